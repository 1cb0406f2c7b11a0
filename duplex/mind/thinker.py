"""A thinker: messages in, words out as they come.

A text model thinks in a thread of its own. A tick asks, looks and cancels; it never waits.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from duplex.errors import DuplexError

log = logging.getLogger(__name__)

# As the chat completions of OpenAI have them: {"role": "system", "user", "assistant" or "tool",
# "content": text}, and with calls {"role": "assistant", "content": text, "tool_calls": [...]}.
Message = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """A function that the model wants called."""

    id: str
    name: str
    # A JSON object.
    arguments: str


@dataclass(frozen=True)
class Tools:
    """Functions that may be called."""

    # Each with `name`, `description` and `parameters`, a JSON schema.
    functions: tuple[dict, ...] = ()
    # "auto", "none", "required", or the name of the one that is to be called.
    choice: str = "auto"


NO_TOOLS = Tools()


class Source(Protocol):
    """A text model."""

    def read(self, messages: list[Message], tools: Tools, is_cancelled: Callable[[], bool]) -> None:
        """Read a conversation so far, where that makes its next answer come sooner.

        It may go on: in its last message, or with others. Stops soon once it `is_cancelled`.
        """

    def stream(
        self, messages: list[Message], tools: Tools, is_cancelled: Callable[[], bool]
    ) -> Iterator[str | Call]:
        """Pieces of the answer as they come, and calls; soon none once it `is_cancelled`.

        Raises MindError, or what the model raises, where it cannot go on.
        """


class Thought:
    """One answer in the making. One thread adds to it, another one reads it."""

    def __init__(self, messages: list[Message], tools: Tools):
        self.messages = messages
        self.tools = tools
        # What was thought so far.
        self.text = ""
        # Complete when it is done.
        self.calls: list[Call] = []
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

    def add(self, piece: str | Call) -> None:
        """The next piece of the answer, or a call."""
        if isinstance(piece, Call):
            self.calls.append(piece)
        else:
            self.text += piece
        self.pieces += 1

    def answers(self, messages: list[Message], tools: Tools) -> bool:
        """Whether it is the answer to this."""
        return self.messages == messages and self.tools == tools

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
        """begin: called first in each thread. What must be fetched or loaded: see prepare."""
        # Whether it can be asked; what is asked before waits.
        self.is_ready = True
        self.source = source
        self._pool = ThreadPoolExecutor(threads, "thinker", initializer=begin)
        # What is read and nobody waits for.
        self._readings: list[Thought] = []

    def prepare(self, work: Callable[[], None]) -> None:
        """Do this in its thread before anything else; returns at once. It is not ready until then.

        Where it fails with a MindError or WeightsError it never is, and that is told on stderr.
        """
        self.is_ready = False
        self._pool.submit(self._prepare, work)

    def _prepare(self, work: Callable[[], None]) -> None:
        try:
            work()
        except DuplexError as error:
            print(f"duplex: the small mind goes on talking: {error}", file=sys.stderr, flush=True)
        except Exception:
            log.exception("the thinker cannot begin; the small mind goes on talking")
        else:
            self.is_ready = True

    def think(self, messages: list[Message], tools: Tools = NO_TOOLS) -> Thought:
        """Begin to answer the last message; returns at once. What is only read makes way."""
        for reading in self._readings:
            reading.cancel()
        self._readings = []
        thought = Thought(messages, tools)
        self._pool.submit(self._think, thought)
        return thought

    def read(self, messages: list[Message], tools: Tools = NO_TOOLS) -> Thought:
        """Read a conversation before it is asked anything; returns at once, nothing is thought."""
        reading = Thought(messages, tools)
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
                self.source.read(reading.messages, reading.tools, lambda: reading.is_cancelled)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
            log.warning("the thinker cannot read: %s", error)
        reading.finish(error)

    def _think(self, thought: Thought) -> None:
        error = None
        try:
            if not thought.is_cancelled:
                asked = thought.messages, thought.tools, lambda: thought.is_cancelled
                for piece in self.source.stream(*asked):
                    if thought.is_cancelled:
                        break
                    thought.add(piece)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
            log.warning("the thinker failed: %s", error)
        thought.finish(error)
