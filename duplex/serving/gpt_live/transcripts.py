"""Both sides' words with their times, as GPT-Live tells them: pieces in order, none taken back.

So the user's wait until they are final: of a turn, until it is over; of a long one, until two
readings agree on them. What was taken for words and was noise is never told. The agent's come when
they have sounded, so what an interruption leaves unsaid never appears.
"""

import re

from duplex.audio import TICK_MS
from duplex.events import Event

INPUT = "session.input_transcript.delta"
OUTPUT = "session.output_transcript.delta"
# Clients end a message after 0.8 s without a piece, so short turns are told whole.
LONG_TURN_MS = 8_000

Pieces = list[tuple[str, dict]]


class Transcripts:
    """Of one session; times are milliseconds from its beginning."""

    def __init__(self):
        # The user's turn: when it began, its words so far, its last reading, how many were told.
        self._begin_ms = 0
        self._text = ""
        self._reading: list[str] = []
        self._told = 0
        # The end of what was told last: times never run back.
        self._end_ms = 0

    def read(self, told) -> Pieces:
        """The types and the fields of the pieces that an event gives."""
        if not isinstance(told, Event):
            return []
        now_ms = (told.tick + 1) * TICK_MS
        match told.kind:
            case "user_started":
                self._begin_ms = told.tick * TICK_MS if told.start_ms is None else told.start_ms
                self._begin_turn()
            case "heard":
                self._text += told.text
            case "partial":
                return self._agree(told.text, now_ms)
            case "corrected":
                self._text = told.text
                return self._agree(told.text, now_ms)
            case "user_ended":
                return self.end_turn(now_ms if told.end_ms is None else told.end_ms)
            case "spoken":
                return [self._output(told)]
        return []

    def end_turn(self, now_ms: int) -> Pieces:
        """The words of the user's turn that were not told yet, if there are any."""
        pieces = self._tell(self._text.split(), now_ms)
        self._begin_turn()
        return pieces

    def _begin_turn(self) -> None:
        self._text = ""
        self._reading = []
        self._told = 0

    def _agree(self, text: str, now_ms: int) -> Pieces:
        """Of a long turn, the words that two readings begin with."""
        words = text.split()
        before = self._reading
        self._reading = words
        if now_ms - self._begin_ms < LONG_TURN_MS:
            return []
        length = 0
        for old, new in zip(before, words, strict=False):
            if _letters(old) != _letters(new):
                break
            length += 1
        return self._tell(words[:length], now_ms)

    def _tell(self, words: list[str], now_ms: int) -> Pieces:
        """The words of the turn so far, as far as they are new."""
        new = words[self._told :]
        if not new:
            return []
        self._told = len(words)
        start_ms = max(self._begin_ms, self._end_ms)
        self._end_ms = max(start_ms, now_ms)
        delta = f" {' '.join(new)}"
        return [(INPUT, {"delta": delta, "start_ms": start_ms, "end_ms": self._end_ms})]

    def _output(self, told: Event) -> tuple[str, dict]:
        """A word that has sounded."""
        end_ms = (told.tick + 1) * TICK_MS if told.end_ms is None else told.end_ms
        start_ms = end_ms if told.start_ms is None else told.start_ms
        text = f" {told.text.strip()}"
        return OUTPUT, {"delta": text, "start_ms": start_ms, "end_ms": max(start_ms, end_ms)}


def _letters(word: str) -> str:
    return re.sub(r"\W", "", word.lower()) or word
