"""A thinker: messages in, words out as they come.

A text model thinks in a thread of its own. A tick asks, looks and cancels; it never waits.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

log = logging.getLogger(__name__)

# {"role": "system", "user" or "assistant", "content": text}, as chat models read them.
Message = dict[str, str]


class Source(Protocol):
    """A text model."""

    def read(self, messages: list[Message], is_cancelled: Callable[[], bool]) -> None:
        """Read a conversation so far, where that makes its next answer come sooner.

        It may go on: in its last message, or with others. Stops soon once it `is_cancelled`.
        """

    def stream(self, messages: list[Message], is_cancelled: Callable[[], bool]) -> Iterator[str]:
        """Pieces of the answer as they come; soon none any more once it `is_cancelled`.

        Raises MindError, or what the model raises, where it cannot go on.
        """


class Thought:
    """One answer in the making. One thread adds to it, another one reads it."""

    def __init__(self, messages: list[Message]):
        self.messages = messages
        # What was thought so far.
        self.text = ""
        # Pieces in which it came: tokens of most models.
        self.pieces = 0
        # Why there is no more to come than there is, though it is not complete.
        self.error: str | None = None
        self._done = threading.Event()
        self._cancelled = threading.Event()

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come."""
        return self._done.is_set()

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody wants it any more."""
        return self._cancelled.is_set()

    def add(self, piece: str) -> None:
        """The next piece of the answer."""
        self.text += piece
        self.pieces += 1

    def finish(self, error: str | None = None) -> None:
        """Nothing more will come; error: why, where the answer is not complete."""
        self.error = error
        self._done.set()

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self._cancelled.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing more will come; whether that is so."""
        return self._done.wait(timeout_s)


class Thinker:
    """Thinks in threads of its own, as many answers at once as there are threads."""

    def __init__(self, source: Source, threads: int = 1, begin: Callable[[], None] | None = None):
        """begin: called first in each thread."""
        self.source = source
        self._pool = ThreadPoolExecutor(threads, "thinker", initializer=begin)
        # What is read and nobody waits for.
        self._readings: list[Thought] = []

    def think(self, messages: list[Message]) -> Thought:
        """Begin to answer the last message; returns at once. What is only read makes way."""
        for reading in self._readings:
            reading.cancel()
        self._readings = []
        thought = Thought(messages)
        self._pool.submit(self._think, thought)
        return thought

    def read(self, messages: list[Message]) -> Thought:
        """Read a conversation before it is asked anything; returns at once, nothing is thought."""
        reading = Thought(messages)
        self._readings = [other for other in self._readings if not other.is_done]
        self._readings.append(reading)
        self._pool.submit(self._read, reading)
        return reading

    def wait(self) -> None:
        """Wait until all that a single thread was asked before is done."""
        self._pool.submit(lambda: None).result()

    def close(self) -> None:
        """Think no more; answers under way end when they are cancelled or complete."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, reading: Thought) -> None:
        error = None
        try:
            if not reading.is_cancelled:
                self.source.read(reading.messages, lambda: reading.is_cancelled)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
            log.warning("the thinker cannot read: %s", error)
        reading.finish(error)

    def _think(self, thought: Thought) -> None:
        error = None
        try:
            if not thought.is_cancelled:
                for piece in self.source.stream(thought.messages, lambda: thought.is_cancelled):
                    if thought.is_cancelled:
                        break
                    thought.add(piece)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
            log.warning("the thinker failed: %s", error)
        thought.finish(error)
