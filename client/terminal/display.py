"""A conversation as plain lines, for files, pipes and the bench: one line for each turn."""

import sys
from pathlib import Path
from typing import TextIO

from duplex.client.speakers import Speakers
from duplex.client.terminal.status import Status
from duplex.transcript import Transcript, Turn


class Display:
    """Writes a turn when it is over, as it was in the end; notes go to the other stream."""

    def __init__(
        self,
        out: TextIO | None = None,
        errors: TextIO | None = None,
        voice_print: Path | None = None,
    ):
        """voice_print: the file that the voice print is written to, if one comes."""
        self._out = out or sys.stdout
        self._errors = errors or sys.stderr
        self._transcript = Transcript()
        self._speakers = Speakers(voice_print)
        # Turns written so far, and how each that was cut short or overheard is marked.
        self._written: list[Turn] = []
        self._is_for_others: set[int] = set()
        # Whether time went wrong, and has been told.
        self._is_late = False
        self._state = ""

    def show(self, event: dict) -> None:
        """One event, an object of the native dialect."""
        if sentence := self._speakers.read(event):
            self.note(sentence)
        self._transcript.read({"time_s": 0.0, **event})
        match event["type"]:
            case "user_ended":
                if event.get("to") == "other" and (turns := self._transcript.turns("user")):
                    self._is_for_others.add(id(turns[-1]))
            case "heard":
                return
            case "error":
                self.note(event["text"])
            case "lag":
                self._show_lag(event)
        self._write_turns()

    def update(self, status: Status) -> None:
        """How the call goes now: failures are told once, when they begin and when they are over."""
        if status.tone == "bad" or status.name in ("cut", "quiet", "restarting"):
            if status.name != self._state:
                self.note(f"{status.sentence}; {status.way_out}")
            self._state = status.name
        elif self._state:
            self.note("it goes on")
            self._state = ""

    def note(self, text: str) -> None:
        """A sentence for the user."""
        print(f"note: {text}", file=self._errors, flush=True)

    def finish(self) -> None:
        """Nothing more comes."""
        self._write_turns(is_over=True)

    def _show_lag(self, event: dict) -> None:
        if is_late(event) and not self._is_late:
            self._is_late = True
            self.note(f"{lag_sentence(event)}; it is told once")

    def _write_turns(self, is_over: bool = False) -> None:
        """The turns that are over and were not written yet, by the time at which they began."""
        written = {id(turn) for turn in self._written}
        for turn in self._transcript.turns():
            if id(turn) in written:
                continue
            is_open = self._transcript.is_open(turn.who) and turn is self._last(turn.who)
            if is_open and not is_over:
                continue
            self._written.append(turn)
            who = f"{self._speakers.name(turn.speaker)}> " if turn.who == "user" else "agent>"
            self._out.write(f"{who} {turn_text(turn)}{self._mark(turn)}\n")
            self._out.flush()

    def _last(self, who: str) -> Turn:
        return self._transcript.turns(who)[-1]

    def _mark(self, turn: Turn) -> str:
        if id(turn) in self._is_for_others:
            return " [not to the agent]"
        return f" [stopped, not said: {turn.unsaid.strip()}]" if turn.unsaid.strip() else ""


def turn_text(turn: Turn) -> str:
    """What was said, as people write it: with a capital at the beginning."""
    text = (turn.partial or turn.text).strip()
    if turn.unsaid.strip():
        text = text.removesuffix(turn.unsaid.strip()).rstrip()
    return text[:1].upper() + text[1:]


def is_late(event: dict) -> bool:
    """Whether a lag is one that people notice."""
    lost_ms = event.get("silence_ms", 0) + event.get("dropped_ms", 0)
    return lost_ms >= 240 or event.get("late_ticks", 0) > 3 or event.get("unread_ticks", 0) > 0


def lag_sentence(event: dict) -> str:
    """What went wrong with time, for people."""
    if event.get("late_ticks", 0) > 3:
        return "the machine is slower than speech just now: answers come late"
    if event.get("unread_ticks", 0):
        return "some of the agent's voice was lost on the way"
    return "your voice reaches the agent late, with gaps"
