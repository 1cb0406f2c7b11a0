"""How a call goes at one moment: what a status line shows."""

from dataclasses import dataclass

from duplex.client.call_state import SENTENCES, CallFacts, name


@dataclass(frozen=True)
class Status:
    """Figures of one moment."""

    facts: CallFacts
    # Seconds of the recording so far.
    seconds: float = 0.0
    # Levels of this tick, root mean squares.
    you_level: float = 0.0
    agent_level: float = 0.0
    # Seconds from the user's last word to the agent's voice, at the last answer.
    answer_s: float | None = None
    answers: int = 0
    # What waits to be played, and how much shall.
    waiting_ms: int = 0
    target_ms: int = 0
    gaps: int = 0
    is_late: bool = False
    # The line that is being typed; None: none is.
    typed: str | None = None
    # Lines of the choice that is being made.
    menu: tuple[str, ...] = ()
    # Devices, and where the agent is.
    devices: str = ""
    place: str = ""

    @property
    def name(self) -> str:
        """The state, a key of SENTENCES."""
        return name(self.facts)

    @property
    def tone(self) -> str:
        """idle, live, wait or bad."""
        return SENTENCES[self.name][0]

    @property
    def sentence(self) -> str:
        """What is so."""
        return SENTENCES[self.name][1]

    @property
    def way_out(self) -> str:
        """What to do about it."""
        return SENTENCES[self.name][2]
