"""G.711, the telephone's 8-bit codes at 8 kHz (ITU-T G.711), to and from 24 kHz samples as they stream."""

import numpy as np
import soxr

from duplex.audio import SAMPLE_RATE

TELEPHONE_RATE = 8_000  # Hz
BIAS = 132  # of the mu law, on a 16-bit scale: makes its segments begin at powers of two


def _mu_levels() -> np.ndarray:
    """What each mu-law code stands for, int16 scale [256]."""
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = (((code & 15).astype(np.int32) * 8 + BIAS) << (code >> 4 & 7)) - BIAS
    return np.where(code & 128, -magnitude, magnitude)


def _a_levels() -> np.ndarray:
    """What each A-law code stands for, int16 scale [256]."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    step, segment = (code & 15).astype(np.int32), (code >> 4 & 7).astype(np.int32)
    magnitude = np.where(segment, (step * 16 + 264) << np.maximum(segment - 1, 0), step * 16 + 8)
    return np.where(code & 128, magnitude, -magnitude)


LEVELS = {"audio/pcmu": _mu_levels(), "audio/pcma": _a_levels()}


def compress(samples: np.ndarray, law: str) -> bytes:
    """float [N] at 8 kHz -> one byte a sample, the nearest level's code."""
    levels = LEVELS[law]
    order = np.argsort(levels, kind="stable")
    middles = (levels[order][1:] + levels[order][:-1]) / 2
    return (
        order[np.searchsorted(middles, np.clip(samples, -1, 1) * 32768)].astype(np.uint8).tobytes()
    )


def expand(codes: bytes, law: str) -> np.ndarray:
    """One byte a sample -> float32 [N] at 8 kHz."""
    return (LEVELS[law][np.frombuffer(codes, np.uint8)] / 32768).astype(np.float32)


class Decoder:
    """Telephone bytes to 24 kHz samples."""

    def __init__(self, law: str):
        self._law, self._resample = (
            law,
            soxr.ResampleStream(TELEPHONE_RATE, SAMPLE_RATE, 1, "float32", "LQ"),
        )

    def decode(self, codes: bytes) -> np.ndarray:
        return self._resample.resample_chunk(expand(codes, self._law))


class Encoder:
    """24 kHz samples to telephone bytes."""

    def __init__(self, law: str):
        self._law, self._resample = (
            law,
            soxr.ResampleStream(SAMPLE_RATE, TELEPHONE_RATE, 1, "float32", "LQ"),
        )

    def encode(self, samples: np.ndarray) -> bytes:
        return compress(self._resample.resample_chunk(samples.astype(np.float32)), self._law)
