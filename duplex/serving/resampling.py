"""Samples from one rate to another, piece by piece, 2 ms late at most.

soxr's streams hand over up to 40 ms late and in uneven pieces; on a telephone that comes twice. The
ratios here are small, so a plain windowed sinc does.
"""

from math import gcd

import numpy as np


class Resampler:
    """A stream from `from_rate` to `to_rate`; N samples of a whole number of periods give exactly
    N * to_rate / from_rate."""

    def __init__(self, from_rate: int, to_rate: int, width: int = 16):
        """width: zero crossings of the sinc on either side of its middle."""
        common = gcd(from_rate, to_rate)
        self._up = to_rate // common
        self._down = from_rate // common
        slower = max(self._up, self._down)
        reach = width * slower
        times = np.arange(-reach, reach + 1) / slower
        # Below the slower rate's Nyquist frequency, so that the slope ends there.
        cutoff = 1 - 2 / width
        window = np.kaiser(2 * reach + 1, 8.0)
        self._taps = (self._up * cutoff / slower) * np.sinc(cutoff * times) * window
        self._before = np.zeros(2 * reach)
        # Samples at the common rate until the next one that is kept.
        self._skip = 0

    def resample(self, samples: np.ndarray) -> np.ndarray:
        """float32 [M] of one more piece, float [N]."""
        if self._up == self._down or not len(samples):
            return samples.astype(np.float32)
        spread = np.zeros(len(samples) * self._up)
        spread[:: self._up] = samples
        spread = np.concatenate([self._before, spread])
        self._before = spread[-len(self._before) :]
        found = np.convolve(spread, self._taps, "valid")
        kept = found[self._skip :: self._down]
        self._skip = (self._skip - len(found)) % self._down
        return kept.astype(np.float32)
