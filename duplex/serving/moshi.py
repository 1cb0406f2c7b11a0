"""Moshi's dialect of the wire at /api/chat, without any I/O: existing Moshi clients talk with this agent unchanged.

Binary messages, byte 0 tells the kind (kyutai-labs/moshi: rust/protocol.md, moshi/server.py, client/src/protocol):

| byte 0 | name      | rest                            | from             |
|--------|-----------|---------------------------------|------------------|
| 00     | handshake | nothing                         | server, at first |
| 01     | audio     | pages of Ogg-Opus, 24 kHz, mono | both             |
| 02     | text      | a piece of the agent's words    | server           |
| 05     | error     | one sentence                    | server           |
| other  | control, metadata, ping …                   | client, ignored  |

The session opens with the connection. Of the query only text_seed is used: the other settings are of Moshi's model.
"""

import numpy as np

from duplex.errors import ProtocolError
from duplex.events import Error
from duplex.serving import opus
from duplex.serving.commands import Audio, Start

PATH = "/api/chat"
HANDSHAKE, AUDIO, TEXT, ERROR = b"\x00", b"\x01", b"\x02", b"\x05"


class Moshi:
    opens_at_once = True
    is_resumable = False
    early_ticks = None

    def __init__(self, query: dict[str, str]):
        seed = query.get("text_seed", "")
        self.start = Start(
            seed=int(seed) % 2**31
            if seed.isascii() and seed.isdecimal() and len(seed) < 20
            else None
        )
        self._decoder, self._encoder = opus.Decoder(), opus.Encoder()

    def receive(self, message: bytes | str) -> tuple[list, list]:
        """-> commands, messages to answer with. Raises ProtocolError."""
        if isinstance(message, str):
            raise ProtocolError("messages are binary here; JSON events are spoken at /v1/duplex")
        if message[:1] != AUDIO:
            return [], []
        return [Audio(self._decoder.decode(message[1:]))], []

    def opened(self, session_id: str) -> list:
        return [HANDSHAKE]

    def tick(self, audio: np.ndarray, events: list) -> list:
        messages = [AUDIO + self._encoder.encode(audio)] if len(audio) else []
        for event in events:
            if event.kind == "said":
                messages.append(TEXT + event.text.encode())
            elif event.kind == "error":
                messages += self.refused(event)
        return messages

    def refused(self, error: Error) -> list:
        return [ERROR + error.text.encode()]
