"""What a client has the agent speak of: each piece once it is nobody's turn."""

from duplex.events import Event
from duplex.serving.commands import Answer, Write
from duplex.serving.floor import Floor

# How the agent is asked; it knows that users want to hear something.
ASK = "Say this to me in your own words: {}"


class Commentary:
    """Of one session."""

    def __init__(self):
        self._floor = Floor()
        self._waiting: list[str] = []

    def append(self, content: str) -> None:
        """One more piece."""
        self._waiting.append(content)

    def read(self, told: Event) -> None:
        """Who speaks, by an event."""
        self._floor.read(told)

    def tick(self) -> None:
        """A tick has passed."""
        self._floor.tick()

    def take_due(self) -> list:
        """The commands that have the agent speak of the next piece, if it is nobody's turn."""
        if not self._waiting or not self._floor.is_free:
            return []
        self._floor.claim()
        text = ASK.format(self._waiting.pop(0))
        return [Write("user", text, is_answered=False), Answer(hears_out=True)]
