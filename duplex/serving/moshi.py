"""Moshi's dialect of the wire at /api/chat: Moshi's clients talk with this agent unchanged. No I/O.

Binary messages; byte 0 tells the kind (kyutai-labs/moshi: rust/protocol.md, moshi/server.py,
client/src/protocol):

| byte 0 | name      | rest                            | from             |
|--------|-----------|---------------------------------|------------------|
| 00     | handshake | nothing                         | server, at first |
| 01     | audio     | pages of Ogg-Opus, 24 kHz, mono | both             |
| 02     | text      | a piece of the agent's words    | server           |
| 05     | error     | one sentence                    | server           |
| other  | control, metadata, ping …                   | client, ignored  |

The session opens with the connection. Of the query only text_seed is used: the other settings are
of Moshi's model.
"""

from enum import Enum

import numpy as np

from duplex.errors import ProtocolError
from duplex.events import Error
from duplex.serving import opus
from duplex.serving.commands import Audio, Start
from duplex.serving.native import MAX_MESSAGE_BYTES

PATH = "/api/chat"


class Kind(bytes, Enum):
    """What a message begins with."""

    HANDSHAKE = b"\x00"
    AUDIO = b"\x01"
    TEXT = b"\x02"
    ERROR = b"\x05"


class Moshi:
    """One client of this dialect; see dialect.Dialect."""

    opens_at_once = True
    early_ticks = None
    is_resumable = False
    may_be_idle = False
    max_message_bytes = MAX_MESSAGE_BYTES

    def __init__(self, query: dict[str, str]):
        """query: the fields of the client's URL."""
        seed = query.get("text_seed", "")
        is_number = seed.isascii() and seed.isdecimal() and len(seed) < 20
        self.start = Start(seed=int(seed) % 2**31 if is_number else None)
        self._decoder = opus.Decoder()
        self._encoder = opus.Encoder()

    def receive(self, message: bytes | str) -> tuple[list, list]:
        """The commands in a message; nothing is ever answered. Raises ProtocolError."""
        if isinstance(message, str):
            raise ProtocolError("messages are binary here; JSON events are spoken at /v1/duplex")
        if message[:1] != Kind.AUDIO:
            return [], []
        return [Audio(self._decoder.decode(message[1:]))], []

    def opened(self, session_id: str) -> list[bytes]:
        """The handshake."""
        return [Kind.HANDSHAKE]

    def tick(self, audio: np.ndarray, events: list) -> list[bytes]:
        """The tick's voice, the agent's words and what went wrong."""
        messages = [Kind.AUDIO + self._encoder.encode(audio)] if len(audio) else []
        for event in events:
            if event.kind == "said":
                messages.append(Kind.TEXT + event.text.encode())
            elif event.kind == "error":
                messages += self.refused(event)
        return messages

    def take_due(self) -> list:
        """Nothing: a tick brings nothing about here."""
        return []

    def refused(self, error: Error) -> list[bytes]:
        """An error's sentence."""
        return [Kind.ERROR + error.text.encode()]
