"""From one sample rate to another, piece by piece: for sound cards and for the wire.

soxr's streams hold back up to 40 ms and give it out in lumps, which a loudspeaker cannot use, and
which on a telephone comes twice. So here is the plain filter: a windowed sinc for each phase. The
page has the same, client/web/resample.js.
"""

import math

import numpy as np


class Resampler:
    """`process` pieces of any length at `source` Hz; each gives what is due at `target` Hz."""

    def __init__(self, source: int, target: int, is_even: bool = False, crossings: int = 16):
        """is_even: pieces of whole periods give their whole share from the first one on.

        So the sound is late by half the filter, 2.3 ms at 8 kHz; otherwise the first piece gives
        that much less. crossings: zero crossings of the filter on each side.
        """
        common = math.gcd(source, target)
        # `phases` samples come out for every `step` that go in.
        self._phases = target // common
        self._step = source // common
        cutoff = min(1.0, target / source) * 0.92
        # Taps on each side of the middle.
        self._half = math.ceil(crossings / cutoff)
        taps = np.arange(2 * self._half)[None] - self._half + 1
        times = taps - np.arange(self._phases)[:, None] / self._phases  # [phases, taps]
        window = np.cos(np.pi * times / (2 * self._half)).clip(0.0) ** 2
        kernels = cutoff * np.sinc(cutoff * times) * window
        self._kernels = (kernels / kernels.sum(axis=1, keepdims=True)).astype(np.float32)
        self._is_same = source == target
        ahead = self._half if is_even else 0
        self._waiting = np.zeros(self._half - 1 + ahead, np.float32)
        # Place of the next sample to come out: whole samples of what waits, and a phase.
        self._phase = 0

    def process(self, samples: np.ndarray) -> np.ndarray:
        """float32 [N] in; float32 [about N * target / source] out."""
        if self._is_same:
            return samples.astype(np.float32)
        waiting = np.concatenate([self._waiting, samples])
        room = len(waiting) - 2 * self._half + 1
        count = max(0, -(-(room * self._phases - self._phase) // self._step))
        if not count:
            self._waiting = waiting
            return np.zeros(0, np.float32)
        places = self._phase + self._step * np.arange(count + 1)
        starts = places // self._phases
        windows = np.lib.stride_tricks.sliding_window_view(waiting, 2 * self._half)
        kernels = self._kernels[places[:-1] % self._phases]
        out = np.einsum("nt,nt->n", windows[starts[:-1]], kernels)
        self._waiting = waiting[starts[-1] :]
        self._phase = int(places[-1] % self._phases)
        return out.astype(np.float32)
