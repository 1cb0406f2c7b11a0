"""The conversation on the terminal while it happens: one line for each turn, piece by piece."""

import sys
from pathlib import Path
from typing import TextIO


class Display:
    """Shows each event as it comes; it keeps no words, so what was shown is corrected behind it."""

    def __init__(
        self,
        out: TextIO | None = None,
        errors: TextIO | None = None,
        voice_print: Path | None = None,
    ):
        """voice_print: the file that the voice print is written to, if one comes."""
        self._out = out or sys.stdout
        self._errors = errors or sys.stderr
        # The kind of event whose line is open.
        self._line: str | None = None
        # What the user's turn really was, to be shown once, at its end.
        self._correction = ""
        self._voice_print = voice_print
        # Who speaks in the open line, if several do, and what they are called.
        self._speaker: int | None = None
        self._names: dict[int, str] = {}

    def show(self, event: dict) -> None:
        """One event, an object of the native dialect."""
        text = event.get("text", "")
        match event["type"], self._line:
            case ("heard" | "said") as kind, _:
                self._show_piece(kind, text, event.get("speaker"))
            case "speaker_named", _:
                self._names[event["speaker"]] = text
            case "speaker_corrected", _:
                who = self._who(event["speaker"])
                self._note(f"turn {event['turn'] + 1} was said by {who}")
            case "speaker_enrolled", _:
                self._keep_voice_print(text)
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

    def _show_piece(self, kind: str, text: str, speaker: int | None) -> None:
        is_other = kind == "heard" and speaker not in (None, self._speaker)
        if self._line == kind and not is_other:
            self._write(text)
            return
        self._close_line()
        self._line = kind
        self._speaker = speaker
        who = "agent> " if kind == "said" else f"{self._who(speaker)}>  "
        self._write(who + text.lstrip())

    def _who(self, speaker: int | None) -> str:
        """A person as the lines name him."""
        return self._names.get(speaker) or ("you" if speaker in (None, 1) else f"person {speaker}")

    def _keep_voice_print(self, text: str) -> None:
        if self._voice_print is None:
            return
        try:
            self._voice_print.write_text(text + "\n", encoding="utf-8")
            self._note(f"wrote your voice print to {self._voice_print}")
        except OSError as error:
            self._note(f"cannot write {self._voice_print} ({error.strerror or error})")

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
