"""What a client has the agent speak of: each piece once it is nobody's turn."""

from duplex.events import Event
from duplex.serving.commands import Answer, Write

# How the agent is asked; it knows that users want to hear something.
ASK = "Say this to me in your own words: {}"
# Ticks in which nobody speaks, after a turn of the user that the agent may be about to answer.
QUIET_TICKS = 25


class Commentary:
    """Of one session."""

    def __init__(self):
        self._waiting: list[str] = []
        self._due: list = []
        self._speaks = {"user": False, "agent": False}
        # Ticks since somebody spoke; at first nobody is about to.
        self._quiet_ticks = QUIET_TICKS

    def append(self, content: str) -> None:
        """One more piece."""
        self._waiting.append(content)
        self._release()

    def read(self, told: Event) -> None:
        """Who speaks, by an event."""
        who, _, what = told.kind.partition("_")
        if who in self._speaks and what in ("started", "ended", "stopped"):
            self._speaks[who] = what == "started"
            # Behind an answer that is complete nobody is about to speak.
            self._quiet_ticks = QUIET_TICKS if told.kind == "agent_ended" else 0
            self._release()

    def tick(self) -> None:
        """A tick has passed."""
        self._quiet_ticks += 1
        self._release()

    def take_due(self) -> list:
        """The commands that have become due since the last call."""
        due, self._due = self._due, []
        return due

    def _release(self) -> None:
        """Have the agent speak of the next piece, if it is nobody's turn."""
        if not self._waiting or any(self._speaks.values()) or self._quiet_ticks < QUIET_TICKS:
            return
        text = ASK.format(self._waiting.pop(0))
        self._due += [Write("user", text, is_answered=False), Answer(hears_out=True)]
        # The agent is about to speak.
        self._quiet_ticks = 0
