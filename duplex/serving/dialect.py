"""What a dialect of the wire is, and which one is spoken at which path.

To add one, write a module like moshi.py with a class that has all of `Dialect`, and give it a line
in DIALECTS. The tests of keys and of faults then hold for its path as well.
"""

from collections.abc import Callable
from typing import Protocol
from urllib.parse import parse_qsl

import numpy as np

from duplex.events import Error
from duplex.serving import moshi, native, openai_realtime
from duplex.serving.commands import Start


class Dialect(Protocol):
    """One client of a dialect: messages to commands, the session's ticks to messages. No I/O."""

    # Whether the session opens with the connection, as `start` says, or with the commands of a
    # first message; one without any is refused.
    opens_at_once: bool
    start: Start
    # Ticks of audio that may wait to be heard; None: what the engine usually lets wait.
    early_ticks: int | None
    # Whether a client whose connection was lost may come back; then it has all of native.Native.
    is_resumable: bool

    def receive(self, message: bytes | str) -> tuple[list, list]:
        """The commands in a message, and messages to answer it with. Raises ProtocolError."""

    def opened(self, session_id: str) -> list:
        """Messages that tell the client that its session is open."""

    def tick(self, audio: np.ndarray, events: list) -> list:
        """Messages for one tick: audio float32 [1920], or [0] without a voice, and its events."""

    def refused(self, error: Error) -> list:
        """Messages that tell an error."""


# What makes a client's dialect, by path; it is given the query of the client's URL.
DIALECTS: dict[str, Callable[[str], Dialect]] = {
    native.PATH: lambda query: native.Native(),
    openai_realtime.PATH: lambda query: openai_realtime.OpenAIRealtime(),
    moshi.PATH: lambda query: moshi.Moshi(dict(parse_qsl(query, max_num_fields=50))),
}


def find(path: str, query: str) -> Dialect | None:
    """The dialect of a path, for one client; None where none is spoken."""
    make = DIALECTS.get(path)
    return make and make(query)


def subprotocol(offered: list[str]) -> str | None:
    """The name of a dialect among the websocket's subprotocols that a client offers.

    Never the one that carries the key.
    """
    names = (native.SUBPROTOCOL, openai_realtime.SUBPROTOCOL)
    return next((name for name in offered if name in names), None)
