"""Ogg-Opus, 24 kHz mono, as it streams: pages of bytes to samples and back, by sphn."""

import numpy as np
import sphn

from duplex.audio import SAMPLE_RATE
from duplex.errors import ProtocolError

# Bytes of one message at most. 80 ms are a few hundred; packets of one byte could claim minutes.
MAX_BYTES = 1 << 14


class Decoder:
    """Pages to samples. (Moshi's own server uses the same library.)"""

    def __init__(self):
        self._reader = sphn.OpusStreamReader(SAMPLE_RATE)

    def decode(self, pages: bytes) -> np.ndarray:
        """The samples float32 [N] that any piece of an Ogg stream completes.

        Raises ProtocolError where the stream is broken; a new one may follow.
        """
        if len(pages) > MAX_BYTES:
            raise ProtocolError(f"an Opus message has at most {MAX_BYTES} bytes, not {len(pages)}")
        if not pages:
            return np.zeros(0, np.float32)
        try:
            return np.asarray(self._reader.append_bytes(pages), np.float32)
        except BaseException as error:
            # A panic of the library's Rust code is no Exception.
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            self._reader = sphn.OpusStreamReader(SAMPLE_RATE)
            raise ProtocolError(f"this is no Ogg-Opus stream ({error})"[:120]) from None


class Encoder:
    """Samples to pages."""

    def __init__(self):
        self._writer = sphn.OpusStreamWriter(SAMPLE_RATE)

    def encode(self, samples: np.ndarray) -> bytes:
        """The pages of float [N], N whole ticks; the stream's two header pages come first."""
        return self._writer.append_pcm(np.clip(samples, -1, 1).astype(np.float32))
