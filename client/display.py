"""The conversation on the terminal while it happens: one line for each turn, growing piece by piece."""

import sys
from typing import TextIO

LABELS = {"heard": "you>  ", "said": "agent> "}


class Display:
    def __init__(self, out: TextIO | None = None, errors: TextIO | None = None):
        self._out = out or sys.stdout
        self._errors = errors or sys.stderr
        self._line: str | None = None  # whose line is open

    def show(self, event: dict) -> None:
        kind, text = event["type"], event.get("text", "")
        if kind in LABELS:
            if self._line != kind:
                self._close_line()
                self._line = kind
                self._write(LABELS[kind] + text.lstrip())
            else:
                self._write(text)
        elif kind == "corrected" and self._line == "heard":
            self._write(f" → {text.strip()}")
        elif kind == "user_ended" and self._line == "heard" and event.get("to") == "other":
            self._write(" [not to the agent]")
            self._close_line()
        elif (
            kind == "user_ended"
            and self._line == "heard"
            or kind == "agent_ended"
            and self._line == "said"
        ):
            self._close_line()
        elif kind == "agent_stopped":
            if self._line == "said":
                self._write(
                    f" [stopped, not said: {text.strip()}]" if text.strip() else " [stopped]"
                )
            self._close_line()
        elif kind == "error":
            self._note(text)
        elif kind == "lag":
            self._note(lag_sentence(event))

    def finish(self) -> None:
        self._close_line()

    def _note(self, text: str) -> None:
        self._close_line()
        print(f"note: {text}", file=self._errors, flush=True)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _close_line(self) -> None:
        if self._line is not None:
            self._write("\n")
            self._line = None


def lag_sentence(event: dict) -> str:
    parts = []
    if event.get("silence_ms"):
        parts.append(f"{event['silence_ms']} ms of your audio came late")
    if event.get("dropped_ms"):
        parts.append(f"{event['dropped_ms']} ms of your audio was dropped")
    if event.get("late_ticks"):
        parts.append(f"{event['late_ticks']} ticks took too long")
    if event.get("unread_ticks"):
        parts.append(f"{event['unread_ticks']} ticks of the agent's audio were not fetched")
    return "out of time: " + ", ".join(parts)
