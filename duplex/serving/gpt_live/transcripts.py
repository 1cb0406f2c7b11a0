"""Both sides' words with their times, as GPT-Live tells them: pieces in order, none taken back.

The user's come as they are first heard. What the agent writes differently at the end of the turn
cannot be told any more, but for the sign at its end. The agent's come when they have sounded, so
what an interruption leaves unsaid never appears.
"""

from duplex.audio import TICK_MS
from duplex.events import Event

INPUT = "session.input_transcript.delta"
OUTPUT = "session.output_transcript.delta"


class Transcripts:
    """Of one session; times are milliseconds from its beginning."""

    def __init__(self):
        # The end of the user's last word: times never run back.
        self._heard_ms = 0
        # Whether the sign at the end of the user's turn was told.
        self._has_sign = False

    def read(self, told) -> list[tuple[str, dict]]:
        """The types and the fields of the pieces that an event gives."""
        if not isinstance(told, Event):
            return []
        match told.kind:
            case "user_started":
                self._has_sign = False
            case "heard":
                return [self._input(told, told.text)]
            case "corrected":
                sign = told.text.rstrip()[-1:]
                if sign and sign in ".?!" and not self._has_sign:
                    self._has_sign = True
                    return [self._input(told, sign)]
            case "spoken":
                return [self._output(told)]
        return []

    def _input(self, told: Event, text: str) -> tuple[str, dict]:
        end_ms = (told.tick + 1) * TICK_MS
        start_ms = min(end_ms, max(self._heard_ms, told.tick * TICK_MS))
        self._heard_ms = end_ms
        return INPUT, {"delta": text, "start_ms": start_ms, "end_ms": end_ms}

    def _output(self, told: Event) -> tuple[str, dict]:
        """A word that has sounded."""
        end_ms = (told.tick + 1) * TICK_MS if told.end_ms is None else told.end_ms
        start_ms = end_ms if told.start_ms is None else told.start_ms
        text = f" {told.text.strip()}"
        return OUTPUT, {"delta": text, "start_ms": start_ms, "end_ms": max(start_ms, end_ms)}
