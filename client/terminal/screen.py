"""The terminal in a live conversation: the transcript scrolls, a few live lines stand under it.

rich draws the live lines: cursor moves on all kinds of terminals are no business of ours.
"""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from duplex.client.speakers import Speakers
from duplex.client.terminal.display import is_late, turn_text
from duplex.client.terminal.status import Status
from duplex.transcript import Transcript, Turn

COLORS = {"user": "blue", "agent": "dark_orange3"}
# Other people by their number; who comes later has the last one's.
OTHERS = {2: "green4", 3: "medium_purple3"}
TONES = {"idle": "dim", "live": "green", "wait": "yellow", "bad": "bold red"}
BLOCKS = " ▁▂▃▄▅▆▇█"
HELP = "m mute · space talk · ⏎ type · esc interrupt · d devices · r restart · q end"


@dataclass
class Line:
    """A turn on the screen."""

    turn: Turn
    ended_at: float | None = None
    is_for_others: bool = False
    answer_s: float | None = None


@dataclass
class Screen:
    """Shows events and figures; `with` it has the last lines of the terminal."""

    console: Console = field(default_factory=Console)
    # Seconds for which a turn that is over stays among the live lines: it may still be corrected.
    settle_s: float = 1.5
    # The file that the voice print is written to, if one comes.
    voice_print: Path | None = None
    # Ticks of levels that are kept to be shown.
    strip_ticks: int = 100

    def __post_init__(self):
        self._transcript = Transcript()
        self._speakers = Speakers(self.voice_print)
        # Turns that are not written above yet, and those that are.
        self._lines: list[Line] = []
        self._seen: set[int] = set()
        self._status: Status | None = None
        self._levels: list[tuple[float, float]] = []
        self._notes: list[str] = []
        self._late_at = -math.inf
        self._live = Live(
            console=self.console, transient=True, auto_refresh=False, vertical_overflow="visible"
        )

    def __enter__(self) -> "Screen":
        self._live.start()
        return self

    def __exit__(self, *_) -> None:
        self._live.stop()

    def show(self, event: dict) -> None:
        """One event, an object of the native dialect."""
        now_s = self._status.seconds if self._status else 0.0
        if sentence := self._speakers.read(event):
            self.note(sentence)
        self._transcript.read({"time_s": now_s, **event})
        for turn in self._transcript.turns():
            if id(turn) not in self._seen:
                self._seen.add(id(turn))
                self._lines.append(Line(turn))
        for line in self._lines:
            is_last = line.turn is self._transcript.turns(line.turn.who)[-1]
            is_open = is_last and self._transcript.is_open(line.turn.who)
            if not is_open and line.ended_at is None:
                line.ended_at = time.monotonic()
                line.is_for_others = event.get("to") == "other"
        if event["type"] == "lag" and is_late(event):
            self._late_at = now_s
        elif event["type"] == "error":
            self.note(event["text"])

    def update(self, status: Status) -> None:
        """How the call goes now; draws all anew."""
        self._levels = [*self._levels, (status.you_level, status.agent_level)][-self.strip_ticks :]
        answered = [line for line in self._lines if line.turn.who == "agent"]
        is_new = self._status is not None and status.answers > self._status.answers
        if answered and is_new and status.answer_s is not None:
            answered[-1].answer_s = status.answer_s
        self._status = status
        self._write_finished(time.monotonic() - self.settle_s)
        self._live.update(self._render(), refresh=True)

    def note(self, text: str) -> None:
        """A sentence for the user, among the transcript."""
        self._live.console.print(Text(f"       {text}", "yellow"))

    def finish(self) -> None:
        """Nothing more comes: all that is left goes to the transcript."""
        self._write_finished(math.inf)
        self._live.update(Text(""), refresh=True)

    def _write_finished(self, before: float) -> None:
        """Turns that ended before then leave the live lines, in the order in which they began."""
        while self._lines and (
            before == math.inf or (self._lines[0].ended_at or math.inf) <= before
        ):
            line = self._lines.pop(0)
            if self._status is not None:
                # Printing draws the live lines as well: with this one among them it stood twice.
                self._live.update(self._render())
            self._live.console.print(self._line(line))

    def _render(self) -> Group:
        lines = [self._line(line) for line in self._lines]
        status = self._status
        width = self.console.width
        rule = Text("─" * width, "dim")
        below = [
            Text(text, "" if status.menu else "dim", no_wrap=True, overflow="ellipsis")
            for text in status.menu or (HELP,)
        ]
        return Group(*lines, rule, *self._meters(status, width), self._bottom(status), *below)

    def _line(self, line: Line) -> Text:
        """Time, who, words; the answer's time behind them."""
        turn = line.turn
        who = self._speakers.name(turn.speaker) if turn.who == "user" else "agent"
        text = Text()
        text.append(f"{clock(turn.start_s)}  ", "dim")
        color = OTHERS.get(min(turn.speaker or 1, max(OTHERS)), COLORS[turn.who])
        text.append(f"{who:<5}  ", color if turn.who == "user" else COLORS["agent"])
        text.append(turn_text(turn))
        if turn.unsaid.strip():
            text.append(" ")
            text.append(turn.unsaid.strip(), "dim strike")
        if line.is_for_others:
            text.append("  (not for the agent)", "dim")
        if line.answer_s is not None:
            text.append(f"  {line.answer_s:.2f} s", "dim")
        if line.ended_at is None:
            text.append("▌", "dim")
        return text

    def _meters(self, status: Status, width: int) -> list[Text]:
        """Who spoke when in the last seconds, and how loud each is now."""
        strip = max(8, min(self.strip_ticks, width - 22))
        rows = []
        for place, (name, level) in enumerate(
            (("you", status.you_level), ("agent", status.agent_level))
        ):
            who = ("user", "agent")[place]
            heights = [pair[place] for pair in self._levels[-strip:]]
            bars = "".join(BLOCKS[round(8 * loudness(height))] for height in heights)
            row = Text(f"{name:<6}", COLORS[who])
            row.append(f"{bars:>{strip}}", COLORS[who])
            decibels = 20 * math.log10(level + 1e-6)
            row.append(f" {decibels:>4.0f} dB" if level > 1e-4 else "       –", "dim")
            rows.append(row)
        return rows

    def _bottom(self, status: Status) -> Text:
        if status.typed is not None:
            return Text.assemble(("type: ", "bold"), status.typed, ("▌", "dim"))
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f"● {status.sentence}", TONES[status.tone])
        if status.way_out:
            text.append(f"; {status.way_out}", "dim")
            return text
        is_late_now = status.seconds - self._late_at < 5
        figures = [
            clock(status.seconds),
            f"answer {status.answer_s:.2f} s" if status.answer_s is not None else "",
            f"buffer {status.waiting_ms}/{status.target_ms} ms",
            f"{status.gaps} gap{'' if status.gaps == 1 else 's'}",
            "late" if is_late_now else "on time",
        ]
        text.append("   " + " · ".join(figure for figure in figures if figure), "dim")
        return text


def loudness(level: float) -> float:
    """0 to 1: the loudest 50 dB."""
    return min(1.0, max(0.0, 1 + math.log10(level + 1e-9) / 2.5))


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
