"""The conversation on the terminal while it happens: one line for each turn, piece by piece."""

import sys
from typing import TextIO


class Display:
    """Shows each event as it comes; it keeps no words, so what was shown is corrected behind it."""

    def __init__(self, out: TextIO | None = None, errors: TextIO | None = None):
        self._out = out or sys.stdout
        self._errors = errors or sys.stderr
        # The kind of event whose line is open.
        self._line: str | None = None
        # What the user's turn really was, to be shown once, at its end.
        self._correction = ""

    def show(self, event: dict) -> None:
        """One event, an object of the native dialect."""
        text = event.get("text", "")
        match event["type"], self._line:
            case ("heard" | "said") as kind, _:
                self._show_piece(kind, text)
            case "corrected", "heard":
                self._correction = f" → {text.strip()}"
            case "user_ended", "heard":
                self._show_correction()
                if event.get("to") == "other":
                    self._write(" [not to the agent]")
                self._close_line()
            case "agent_ended", "said":
                self._close_line()
            case "agent_stopped", line:
                unsaid = text.strip()
                if line == "said":
                    self._write(f" [stopped, not said: {unsaid}]" if unsaid else " [stopped]")
                self._close_line()
            case "error", _:
                self._note(text)
            case "lag", _:
                self._note(lag_sentence(event))

    def finish(self) -> None:
        """Nothing more comes."""
        self._close_line()

    def _show_piece(self, kind: str, text: str) -> None:
        if self._line == kind:
            self._write(text)
            return
        self._close_line()
        self._line = kind
        who = {"heard": "you>  ", "said": "agent> "}[kind]
        self._write(who + text.lstrip())

    def _note(self, text: str) -> None:
        self._close_line()
        print(f"note: {text}", file=self._errors, flush=True)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _show_correction(self) -> None:
        self._write(self._correction)
        self._correction = ""

    def _close_line(self) -> None:
        if self._line is not None:
            self._show_correction()
            self._write("\n")
            self._line = None


def lag_sentence(event: dict) -> str:
    """What went wrong with time, for people."""
    sentences = {
        "silence_ms": "{} ms of your audio came late",
        "dropped_ms": "{} ms of your audio was dropped",
        "late_ticks": "{} ticks took too long",
        "unread_ticks": "{} ticks of the agent's audio were not fetched",
    }
    parts = [text.format(event[name]) for name, text in sentences.items() if event.get(name)]
    return "out of time: " + ", ".join(parts)
