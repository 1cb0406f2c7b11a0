"""What an agent tells whoever talks with it: events; transcript.py reads them.

`tick` counts a session's ticks from 0; `start_ms` and `end_ms` are on the session's clock, where
tick k covers the milliseconds from k * 80 to (k + 1) * 80 of what was heard and of what was played.
"""

from dataclasses import dataclass


@dataclass
class Event:
    """Something the agent heard, decided or did.

    Kinds: user_started, heard, partial, corrected, user_ended, speaker_corrected, speaker_named,
    speaker_enrolled, sound, backchannel, agent_started, said, spoken, agent_ended, agent_stopped;
    the table in duplex/serving/native/messages.py says what each of them carries.
    """

    kind: str
    tick: int
    text: str = ""
    start_ms: int | None = None
    end_ms: int | None = None
    # Set in user_ended: "agent", or "other" when nobody waits for the agent's answer.
    to: str | None = None
    # Whose voice it is, counted from 1; None while one voice alone was heard, or it is not known.
    speaker: int | None = None
    # Set in speaker_corrected: the number of the user's turn, counted from 0.
    turn: int | None = None


@dataclass
class ToolCall:
    """The agent wants a function called; its client tells the result, see AgentInterface."""

    tick: int
    call_id: str
    name: str
    # A JSON object.
    arguments: str
    kind: str = "tool"


@dataclass
class Lag:
    """Time went wrong since the last such notice: audio came late or too much, ticks were late.

    silence_ms: heard as silence because the user's audio was not there in time.
    dropped_ms: user audio thrown away because too much of it was waiting.
    late_ticks: ticks whose answer was not ready within one tick.
    unread_ticks: ticks of agent audio thrown away because nobody fetched them.
    """

    tick: int
    silence_ms: int
    dropped_ms: int
    late_ticks: int
    unread_ticks: int
    kind: str = "lag"


@dataclass
class Error:
    """Something failed; `code` is for programs, `text` is one sentence for people."""

    code: str
    text: str
    kind: str = "error"


@dataclass
class Marked:
    """A client's audio was heard up to its mark of this number."""

    number: int
    kind: str = "marked"


@dataclass
class Ending:
    """The session will end with the turn that is going on, or when the time is over."""

    text: str
    within_ms: int
    kind: str = "session.ending"


@dataclass
class Ended:
    """The session is over; its counts in full, as in Lag."""

    text: str
    ticks: int
    silence_ms: int
    dropped_ms: int
    late_ticks: int
    unread_ticks: int
    kind: str = "session.ended"


@dataclass(frozen=True)
class TurnTaking:
    """How one client wants its turns to be taken; as it is here the agent decides all of it."""

    # Whether the agent hears when the user's turn is over; if not, `end_turn` and `answer` say so.
    ends_turns: bool = True
    # Whether it answers unasked.
    answers: bool = True
    # Whether what the user says to it makes it stop.
    yields: bool = True
    # Whether it may say "mhm" while the user has the floor: sound that belongs to no answer.
    backchannels: bool = True
    # How long it waits for who pauses: "low" (longer), "auto" or "high" (less).
    eagerness: str = "auto"
    # Milliseconds of silence before the user's turn may end; less than the agent's own has no
    # effect.
    silence_ms: int = 0
    # Whether its words are spoken. If not they are only told, as fast as it finds them.
    speaks: bool = True
    # Pieces of words that one turn of it may have; None: as many as it likes.
    max_tokens: int | None = None
