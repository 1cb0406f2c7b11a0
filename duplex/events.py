"""What passes between an agent and whoever talks with it: events, their one reader, and the calls.

`tick` counts a session's ticks from 0; `start_ms` and `end_ms` are on the session's clock, where
tick k covers the milliseconds from k * 80 to (k + 1) * 80 of what was heard and of what was played.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from duplex.audio import TICK_S


@dataclass
class Event:
    """Something the agent heard, decided or did.

    Kinds: user_started, heard, partial, corrected, user_ended, speaker_corrected, speaker_named,
    speaker_enrolled, backchannel, agent_started, said, spoken, agent_ended, agent_stopped; the
    table in duplex/serving/native/messages.py says what each of them carries.
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


@dataclass
class Turn:
    """What one side said at a stretch. Times are seconds on the clock of the events."""

    # "user" or "agent".
    who: str
    start_s: float
    end_s: float
    # All its words: recognised ones as they are now, or those that the agent decided on.
    text: str = ""
    # The same as pieces of words, each with the time of its event.
    pieces: list[tuple[float, str]] = field(default_factory=list)
    # The end of `text` that the agent never said, because it stopped.
    unsaid: str = ""
    # The user's words so far, better heard than `text` but not to the end of it; "": not known.
    partial: str = ""
    # Who spoke, where people are told apart.
    speaker: int | None = None

    @property
    def spoken_text(self) -> str:
        """The text without what was never said, for which an ellipsis stands."""
        if not self.unsaid:
            return self.text
        return self.text.rstrip().removesuffix(self.unsaid.strip()).rstrip() + " …"

    def add(self, time_s: float, text: str) -> None:
        """Append a piece of text."""
        self.text += text
        self.pieces.append((time_s, text))

    def correct(self, time_s: float, text: str) -> None:
        """Put other words in place of those so far, each at the time of the word it replaces."""
        self.partial = ""
        times = [word_s for word_s, _ in self.words()] or [time_s]
        self.text = text
        self.pieces = [
            (times[min(place, len(times) - 1)], f" {word}")
            for place, word in enumerate(text.split())
        ]

    def words(self, max_gap_s: float = 2.0) -> list[tuple[float, str]]:
        """The pieces joined to words, each with the time of its first piece.

        max_gap_s: a piece that comes later after a word is a new one, even without a space.
        """
        words: list[tuple[float, str]] = []
        for time_s, text in self.pieces:
            if words and not text.startswith(" ") and time_s - words[-1][0] < max_gap_s:
                words[-1] = (words[-1][0], words[-1][1] + text)
            elif text.strip():
                words.append((time_s, text.strip()))
        return words


class Transcript:
    """Reads a session's events, in order, into the turns of both sides.

    It takes Event records as an agent gives them and the objects that recordings keep of them, with
    `type`, `time_s`, `start_s` and `end_s`. Whatever is no word and no bound of a turn it ignores.

    - A turn begins with its `started`, or with its first piece where none came.
    - A piece that comes when its side's turn is over still belongs to that turn.
    - `partial` is what to show of the user's turn while it goes on. It changes no word.
    - `corrected` stands for all words of the user's last turn, whether it is over or not.
    - `agent_stopped` ends the agent's turn; its text is the end of it that was not said.
    """

    def __init__(self):
        # The words of the agent's voice, each with the time at which it begins.
        self.spoken: list[tuple[float, str]] = []
        self._turns: list[Turn] = []
        self._open: dict[str, Turn] = {}

    def read(self, event: Event | Error | dict) -> None:
        """Take one more event: a record, or an object of a recording."""
        if not isinstance(event, Event | dict):
            return
        kind, text, time_s, start_s, end_s = _parts(event)
        who = (
            "user"
            if kind in ("heard", "partial", "corrected") or kind.startswith("user_")
            else "agent"
        )
        # A voice is known late: a turn's last label is the best one.
        if who == "user" and _speaker(event) and (turn := self._open.get(who)):
            turn.speaker = _speaker(event)
        match kind:
            case "user_started" | "agent_started":
                self._begin(who, time_s if start_s is None else start_s, time_s)
            case "heard" | "said":
                turn = self._last(who) or self._begin(who, time_s, time_s)
                turn.add(time_s if start_s is None else start_s, text)
                turn.speaker = _speaker(event) or turn.speaker
                if self.is_open(who):
                    turn.end_s = time_s
            case "partial":
                if turn := self._open.get(who):
                    turn.partial = text
            case "corrected":
                turn = self._last(who) or self._begin(who, time_s, time_s)
                turn.correct(time_s, text)
            case "spoken":
                self.spoken.append((time_s if start_s is None else start_s, text.strip()))
            case "user_ended" | "agent_ended" | "agent_stopped":
                if turn := self._open.pop(who, None):
                    turn.end_s = time_s if end_s is None else end_s
                    turn.partial = ""  # What was read in the end stands in its text.
                    turn.unsaid = text if kind == "agent_stopped" else ""

    def turns(self, who: str | None = None) -> list[Turn]:
        """The turns with words in them, of one side or of both, by the time each began."""
        found = [turn for turn in self._turns if who in (None, turn.who) and turn.text.strip()]
        return sorted(found, key=lambda turn: (turn.start_s, turn.who == "agent"))

    def is_open(self, who: str) -> bool:
        """Whether a turn of "user" or "agent" is going on."""
        return who in self._open

    @property
    def user_text(self) -> str:
        """All that was recognised."""
        return "".join(turn.text for turn in self._turns if turn.who == "user")

    @property
    def agent_text(self) -> str:
        """All that the agent decided to say."""
        return "".join(turn.text for turn in self._turns if turn.who == "agent")

    def _begin(self, who: str, start_s: float, time_s: float) -> Turn:
        turn = Turn(who, start_s, time_s)
        self._turns.append(turn)
        self._open[who] = turn
        return turn

    def _last(self, who: str) -> Turn | None:
        return next((turn for turn in reversed(self._turns) if turn.who == who), None)


def transcribe(events) -> Transcript:
    """The transcript of events that are all there."""
    transcript = Transcript()
    for event in events:
        transcript.read(event)
    return transcript


def _speaker(event: Event | dict) -> int | None:
    return event.get("speaker") if isinstance(event, dict) else event.speaker


def _parts(event: Event | dict) -> tuple[str, str, float, float | None, float | None]:
    """Kind, text, time, start and end of an event, in seconds; the last two may be unknown."""
    if isinstance(event, dict):
        time_s = event["time_s"]
        return (
            event["type"],
            event.get("text", ""),
            time_s,
            event.get("start_s"),
            event.get("end_s"),
        )
    start_s, end_s = (None if ms is None else ms / 1000 for ms in (event.start_ms, event.end_ms))
    return event.kind, event.text, event.tick * TICK_S, start_s, end_s


class AgentInterface(Protocol):
    """All that servers, clients and the bench call of an agent: several conversations, one a slot.

    The calls come from one thread, except `metrics`. Where a call cannot do what a client asks for
    it raises ValueError with a sentence for the client, and nothing has changed.
    """

    slots: int

    def open(
        self,
        slot: int,
        seed: int = 0,
        instructions: str | None = None,
        temperature: float | None = None,
        gradually: bool = False,
        real_time: bool = False,
    ) -> None:
        """Begin a session in a free slot.

        The instructions are read at once or, `gradually`, in the next steps: see is_prefilling.
        real_time: whether the session's ticks come on a clock; if not, the same sound gives the
        same answers.
        """

    def close(self, slot: int) -> None:
        """End the session of a slot, or do nothing where there is none."""

    def is_prefilling(self, slot: int) -> bool:
        """Whether the instructions are not read yet; until then steps are no ticks of it."""

    def step(
        self, audio: np.ndarray, active: list[int], voice: bool = True
    ) -> tuple[np.ndarray, list[list[Event | Error]]]:
        """One tick of all slots.

        audio: float32 [B, 1920] in [-1, 1]. active: the slots with a session. voice: False where
        time is short: the agent listens and decides, and its voice stands still.

        Returns sound float32 [B, 1920] and for each slot its events. An Error among them says that
        this slot's session is broken and its neighbours are not.
        """

    def write(
        self, slot: int, role: str, text: str, is_answered: bool = True, name: str | None = None
    ) -> None:
        """Put text into the conversation, as if `role` had said it: user, assistant or system.

        Or it is an "event" that has happened: a large mind may speak of it first.

        is_answered: whether the agent may answer what a user wrote before it is asked to.
        name: by which it can be forgotten.
        """

    def instruct(self, slot: int, instructions: str, is_for_turn: bool = False) -> None:
        """Put other instructions in the place of the session's, as soon as they are read.

        is_for_turn: for the agent's next turn alone.
        """

    def forget(self, slot: int, kind: str, key: int | str) -> None:
        """Forget a turn of the "user" or the "agent", by its number, or a "text", by its name.

        Turns are counted from 0, in the order in which they began.
        """

    def count_tokens(self, text: str) -> int:
        """Pieces of words in a text; any thread may ask."""

    @property
    def max_instruction_tokens(self) -> int:
        """Pieces of words that the instructions of a session may have."""

    def take_turns(self, slot: int, wanted: TurnTaking) -> None:
        """Take turns in this session as its client wants it."""

    def hint(self, slot: int, words: list[str]) -> None:
        """Favour these words, in place of those before, where the user's are recognised."""

    def heed(self, slot: int, whom: str, print_text: str | None = None) -> None:
        """Heed "anyone", the "first" who speaks, or the "enrolled" one alone.

        What others say is written down; it neither interrupts nor is answered. print_text: of the
        enrolled one, see duplex.voice_print; without it, of who enrolled in this session.
        """

    def enroll(self, slot: int) -> None:
        """Take a voice print of who speaks in the next 5 s of speech; speaker_enrolled has it."""

    def name_speaker(self, slot: int, speaker: int, name: str) -> None:
        """Call a speaker of the session by a name."""

    def end_turn(self, slot: int) -> None:
        """End the user's turn once all that was said so far is heard."""

    def abandon_turn(self, slot: int) -> None:
        """Forget what the user has said since the last turn ended."""

    def stop(self, slot: int) -> None:
        """Have the agent fall silent."""

    def answer(self, slot: int, hears_out: bool = False) -> None:
        """Have the agent speak now or, if it `hears_out`, once all that was said so far is heard.

        Nothing comes of it where the agent speaks by then.
        """

    @property
    def takes_tools(self) -> bool:
        """Whether it can have functions called; any thread may ask."""

    def set_tools(
        self, slot: int, functions: list[dict], choice: str = "auto", notice: str = ""
    ) -> None:
        """Offer these functions from the next answer on, in place of those before.

        functions: each with a name, a description and parameters, a JSON schema. choice: "auto",
        "none", "required", or the name of the one that is to be called. A call is a ToolCall event;
        until its result is there the agent listens. notice: what it says when that takes long.
        """

    def give_result(self, slot: int, call_id: str, result: str, is_answered: bool = True) -> None:
        """The result of a call. is_answered: whether the agent may speak of it unasked."""

    def set_voice(self, slot: int, voice: str, speed: float) -> None:
        """Choose a voice of duplex.voices and its speaking rate, from the next word on."""

    def set_playback_position(self, slot: int, heard_ms: int) -> None:
        """Tell how much of the agent's voice the user has heard, on the session's clock."""

    def truncate(self, slot: int, heard_ms: int, turn: int | None = None) -> None:
        """Forget the words of a turn of the agent, by its number, that sound after this time.

        Numbers count from 0; None is the last turn.
        """

    def with_slots(self, slots: int) -> "AgentInterface":
        """Make another agent of the same parts, with so many slots and no session."""

    def metrics(self) -> dict[str, float | dict[str, int]]:
        """Figures for whoever watches the server, by name; any thread may ask."""
