"""What a dialect of the wire is, and which one is spoken at which path.

To add one, write a module like moshi.py with a class that has all of `Dialect`, and give it a line
in DIALECTS. The tests of keys and of faults then hold for its path as well.
"""

from collections.abc import Callable
from typing import Protocol
from urllib.parse import parse_qsl

import numpy as np

from duplex.events import Error
from duplex.serving import moshi, twilio
from duplex.serving.commands import Start
from duplex.serving.engine import Engine
from duplex.serving.gpt_live import live as gpt_live
from duplex.serving.limits import ClientTerms
from duplex.serving.native import dialect as native_dialect
from duplex.serving.native import messages as native
from duplex.serving.openai import realtime as openai_realtime


class Dialect(Protocol):
    """One client of a dialect: messages to commands, the session's ticks to messages. No I/O."""

    # How the session opens with the connection; None: with the commands of a first message, and
    # one without any is refused.
    start: Start | None
    terms: ClientTerms

    def receive(self, message: bytes | str) -> tuple[list, list]:
        """The commands in a message, and messages to answer it with. Raises ProtocolError."""

    def opened(self, session_id: str) -> list:
        """Messages that tell the client that its session is open."""

    def tick(self, audio: np.ndarray, events: list) -> list:
        """Messages for one tick: audio float32 [1920], or [0] without a voice, and its events."""

    def take_due(self) -> list:
        """Commands that ticks have brought about since the last call."""

    def refused(self, error: Error) -> list:
        """Messages that tell an error; of a client's message, right after it was received."""


# What makes a client's dialect, by path: of the fields in the client's URL and the engine.
DIALECTS: dict[str, Callable[[dict[str, str], Engine], Dialect]] = {
    native.PATH: lambda query, engine: native_dialect.Native(),
    openai_realtime.PATH: lambda query, engine: openai_realtime.OpenAIRealtime(
        query,
        engine.agent.count_tokens,
        engine.agent.max_instruction_tokens,
        engine.agent.takes_tools,
    ),
    gpt_live.PATH: lambda query, engine: gpt_live.GPTLive(
        engine.agent.count_tokens,
        engine.agent.max_instruction_tokens,
        engine.limits.max_session_s,
        engine.agent.takes_tools,
    ),
    moshi.PATH: lambda query, engine: moshi.Moshi(query),
    twilio.PATH: lambda query, engine: twilio.Twilio(),
}


def split_key(path: str) -> tuple[str, str]:
    """A path and the key at its end: for those who can send one in no other way, else empty."""
    if path.startswith(f"{twilio.PATH}/"):
        return twilio.PATH, path.removeprefix(twilio.PATH).strip("/")
    return path, ""


def find(path: str, query: str, engine: Engine) -> Dialect | None:
    """The dialect of a path, for one client; None where none is spoken."""
    make = DIALECTS.get(path.rstrip("/"))
    if make is None:
        return None
    try:
        fields = dict(parse_qsl(query, max_num_fields=50))
    except ValueError:
        fields = {}
    # A client that wants to join a telephone call of OpenAI's would wait in an empty session.
    is_call = make is DIALECTS[openai_realtime.PATH] and "call_id" in fields
    return None if is_call else make(fields, engine)


def subprotocol(offered: list[str]) -> str | None:
    """The name of a dialect among the websocket's subprotocols that a client offers.

    Never the one that carries the key.
    """
    names = (native.SUBPROTOCOL, openai_realtime.SUBPROTOCOL)
    return next((name for name in offered if name in names), None)
