"""Moshi's dialect of the wire at /api/chat: clients of Moshi and of PersonaPlex, unchanged. No I/O.

Binary messages; byte 0 tells the kind (kyutai-labs/moshi: rust/protocol.md, moshi/server.py,
client/src/protocol):

| byte 0 | name      | rest                                    | from             |
|--------|-----------|-----------------------------------------|------------------|
| 00     | handshake | versions of protocol and model, two u32 | server, at first |
| 01     | audio     | pages of Ogg-Opus, 24 kHz, mono         | both             |
| 02     | text      | a piece of the agent's words, or what   | both             |
|        |           | the user types: a whole turn            |                  |
| 05     | error     | one sentence                            | server           |
| other  | control, metadata, ping …                           | client, ignored  |

The session opens with the connection. Of the query three things are used:

| field                       | meaning                                                         |
|-----------------------------|-----------------------------------------------------------------|
| text_prompt                 | instructions                                                    |
| voice_prompt                | a voice of ours, or the one that fits a voice of PersonaPlex    |
|                             | (NATF2.pt is a woman's, VARM0.pt a man's)                       |
| seed, text_seed, audio_seed | the first one that is a number; -1 is none                      |

The other settings are of Moshi's model.
"""

import re
from enum import Enum

import numpy as np

from duplex import voices
from duplex.errors import ProtocolError
from duplex.events import Error
from duplex.serving.commands import Audio, Start, Write
from duplex.serving.limits import ClientTerms
from duplex.serving.native.commands import MAX_TEXT
from duplex.serving.sound import opus

PATH = "/api/chat"


class Kind(bytes, Enum):
    """What a message begins with."""

    HANDSHAKE = b"\x00"
    AUDIO = b"\x01"
    TEXT = b"\x02"
    ERROR = b"\x05"


class Moshi:
    """One client of this dialect; see dialect.Dialect."""

    terms = ClientTerms()

    def __init__(self, query: dict[str, str]):
        """query: the fields of the client's URL."""
        self.start = Start(
            instructions=_instructions(query), voice=_voice(query), seed=_seed(query)
        )
        # Whether the next piece of words is the first of an answer.
        self._begins = False
        self._decoder = opus.Decoder()
        self._encoder = opus.Encoder()

    def receive(self, message: bytes | str) -> tuple[list, list]:
        """The commands in a message; nothing is ever answered. Raises ProtocolError."""
        if isinstance(message, str):
            raise ProtocolError("messages are binary here; JSON events are spoken at /v1/duplex")
        if message[:1] == Kind.TEXT:
            text = message[1:].decode(errors="replace").strip()
            if len(text) > MAX_TEXT:
                raise ProtocolError(f"a typed turn has at most {MAX_TEXT} characters")
            return [Write("user", text)] if text else [], []
        if message[:1] != Kind.AUDIO:
            return [], []
        return [Audio(self._decoder.decode(message[1:]))], []

    def opened(self, session_id: str) -> list[bytes]:
        """The handshake."""
        return [Kind.HANDSHAKE + bytes(8)]

    def tick(self, audio: np.ndarray, events: list) -> list[bytes]:
        """The tick's voice, the agent's words and what went wrong."""
        messages = [Kind.AUDIO + self._encoder.encode(audio)] if len(audio) else []
        for event in events:
            if event.kind == "agent_started":
                self._begins = True
            elif event.kind == "said":
                # Clients join the pieces: answers would be glued together.
                is_glued = self._begins and not event.text.startswith(" ")
                self._begins = False
                messages.append(Kind.TEXT + (" " * is_glued + event.text).encode())
            elif event.kind == "error":
                messages += self.refused(event)
        return messages

    def take_due(self) -> list:
        """Nothing: a tick brings nothing about here."""
        return []

    def refused(self, error: Error) -> list[bytes]:
        """An error's sentence."""
        return [Kind.ERROR + error.text.encode()]


def _instructions(query: dict[str, str]) -> str | None:
    """PersonaPlex's clients may write its marks around them."""
    text = query.get("text_prompt", "").strip()
    return text.removeprefix("<system>").removesuffix("<system>").strip() or None


def _voice(query: dict[str, str]) -> str | None:
    """A voice of ours for the name of a file; None where it names no voice."""
    name = query.get("voice_prompt", "").rpartition("/")[2].partition(".")[0]
    if name in voices.VOICES:
        return name
    sex = re.fullmatch(r"[A-Z]+([FM])\d+", name)
    if sex is None:
        return None
    return {"F": "heart", "M": "oak"}[sex[1]]


def _seed(query: dict[str, str]) -> int | None:
    for name in ("seed", "text_seed", "audio_seed"):
        seed = query.get(name, "")
        if seed.isascii() and seed.isdecimal() and len(seed) < 20:
            return int(seed) % 2**31
    return None
