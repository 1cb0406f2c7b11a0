"""Ogg-Opus, 24 kHz mono, as it streams: pages of bytes to samples and back, by sphn (what Moshi's own server uses)."""

import numpy as np
import sphn

from duplex.audio import SAMPLE_RATE
from duplex.errors import ProtocolError

MAX_BYTES = (
    1 << 14
)  # of one message: 80 ms are a few hundred; packets of one byte could claim minutes of silence


class Decoder:
    def __init__(self):
        self._reader = sphn.OpusStreamReader(SAMPLE_RATE)

    def decode(self, pages: bytes) -> np.ndarray:
        """Any piece of an Ogg stream -> the samples it completes, float32 [N]. ProtocolError: the stream is broken."""
        if len(pages) > MAX_BYTES:
            raise ProtocolError(f"an Opus message has at most {MAX_BYTES} bytes, not {len(pages)}")
        if not pages:
            return np.zeros(0, np.float32)
        try:
            return np.asarray(self._reader.append_bytes(pages), np.float32)
        except BaseException as error:  # a panic of the Rust code is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            self._reader = sphn.OpusStreamReader(SAMPLE_RATE)  # a new stream may follow
            raise ProtocolError(f"this is no Ogg-Opus stream ({error})"[:120]) from None


class Encoder:
    def __init__(self):
        self._writer = sphn.OpusStreamWriter(SAMPLE_RATE)

    def encode(self, samples: np.ndarray) -> bytes:
        """float [N], N a whole number of ticks -> pages, the stream's two header pages before the first."""
        return self._writer.append_pcm(np.clip(samples, -1, 1).astype(np.float32))
