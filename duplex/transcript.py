"""The one reader of events: the turns of both sides, and their words in time."""

from dataclasses import dataclass, field

from duplex.audio import TICK_S
from duplex.events import Error, Event


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
