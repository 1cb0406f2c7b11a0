"""G.711, the telephone's 8-bit codes at 8 kHz (ITU-T G.711), from and to samples as they stream."""

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.resampling import Resampler

# Samples a second of a telephone.
TELEPHONE_RATE = 8_000


def _mu_levels() -> np.ndarray:
    """What each mu-law code stands for, int16 scale [256]."""
    # With this offset segments begin at powers of two.
    bias = 132
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = (((code & 15).astype(np.int32) * 8 + bias) << (code >> 4 & 7)) - bias
    return np.where(code & 128, -magnitude, magnitude)


def _a_levels() -> np.ndarray:
    """What each A-law code stands for, int16 scale [256]."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    step = (code & 15).astype(np.int32)
    segment = (code >> 4 & 7).astype(np.int32)
    magnitude = np.where(segment, (step * 16 + 264) << np.maximum(segment - 1, 0), step * 16 + 8)
    return np.where(code & 128, magnitude, -magnitude)


# By the name of the law: int16 scale [256], what each code stands for.
LEVELS = {"audio/pcmu": _mu_levels(), "audio/pcma": _a_levels()}


def compress(samples: np.ndarray, law: str) -> bytes:
    """One byte, the nearest level's code, for each of float [N] at 8 kHz in [-1, 1]."""
    levels = LEVELS[law]
    order = np.argsort(levels, kind="stable")
    middles = (levels[order][1:] + levels[order][:-1]) / 2
    nearest = np.searchsorted(middles, np.clip(samples, -1, 1) * 32768)
    return order[nearest].astype(np.uint8).tobytes()


def expand(codes: bytes, law: str) -> np.ndarray:
    """The samples float32 [N] at 8 kHz that N bytes stand for."""
    return (LEVELS[law][np.frombuffer(codes, np.uint8)] / 32768).astype(np.float32)


class Decoder:
    """Telephone bytes to 24 kHz samples, piece by piece."""

    def __init__(self, law: str):
        self._law = law
        self._resampler = Resampler(TELEPHONE_RATE, SAMPLE_RATE, is_even=True)

    def decode(self, codes: bytes) -> np.ndarray:
        """The samples float32 [M] that one more piece completes."""
        return self._resampler.process(expand(codes, self._law))


class Encoder:
    """24 kHz samples to telephone bytes, piece by piece."""

    def __init__(self, law: str):
        self._law = law
        self._resampler = Resampler(SAMPLE_RATE, TELEPHONE_RATE, is_even=True)

    def encode(self, samples: np.ndarray) -> bytes:
        """The bytes that one more piece, float [N], completes."""
        return compress(self._resampler.process(samples), self._law)
