"""What passes from the agent and the engine to whoever talks with them: plain records, no behaviour.

`tick` counts a session's ticks from 0; `start_ms` and `end_ms` are on the session's clock, where tick k covers
the milliseconds from k * 80 to (k + 1) * 80 of what was heard and of what was played.
"""

from dataclasses import dataclass


@dataclass
class Event:
    """Something the agent heard, decided or did. Kinds: user_started, heard, corrected, user_ended, agent_started, said,
    spoken, agent_ended, agent_stopped; the table in protocol.py says what each of them carries."""

    kind: str
    tick: int
    text: str = ""
    start_ms: int | None = None
    end_ms: int | None = None
    to: str | None = (
        None  # of user_ended: "agent", or "other" when nobody waits for the agent's answer
    )


@dataclass
class Transcript:
    """The user's words, as events tell them."""

    before: str = ""  # of the turns that are over
    turn: str = ""

    def note(self, event: Event) -> None:
        if event.kind == "user_started":
            self.before, self.turn = self.text, ""
        elif event.kind == "heard":
            self.turn += event.text
        elif event.kind == "corrected":
            self.turn = event.text

    @property
    def text(self) -> str:
        return self.before + self.turn


@dataclass
class Lag:
    """Time went wrong since the last such notice: user audio that came too late or too much, ticks done too late."""

    tick: int
    silence_ms: int  # heard as silence because the user's audio was not there in time
    dropped_ms: int  # user audio thrown away because too much of it was waiting
    late_ticks: int  # ticks whose answer was not ready within one tick
    unread_ticks: int  # ticks of agent audio thrown away because nobody fetched them
    kind: str = "lag"


@dataclass
class Error:
    """Something failed; `code` is for programs, `text` is one sentence for people."""

    code: str
    text: str
    kind: str = "error"


@dataclass
class Ending:
    """The session will end with the turn that is going on, or when the time is over."""

    text: str
    within_ms: int
    kind: str = "session.ending"


@dataclass
class Ended:
    """The session is over; its counts in full."""

    text: str
    ticks: int
    silence_ms: int
    dropped_ms: int
    late_ticks: int
    unread_ticks: int
    kind: str = "session.ended"
