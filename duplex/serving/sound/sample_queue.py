"""Samples that wait in line: pieces come in at one end, any number leaves at either."""

from collections import deque

import numpy as np


class SampleQueue:
    """float32 samples; adding and taking cost what they move, not what waits."""

    def __init__(self):
        self._pieces: deque[np.ndarray] = deque()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, samples: np.ndarray) -> None:
        """Add samples [N] at the end."""
        if len(samples):
            self._pieces.append(samples)
            self._length += len(samples)

    def take(self, count: int) -> np.ndarray:
        """Remove the first `count` samples, or all if there are fewer, and return them."""
        taken = [np.zeros(0, np.float32)]
        left = min(count, self._length)
        self._length -= left
        while left:
            piece = self._pieces.popleft()
            if len(piece) > left:
                self._pieces.appendleft(piece[left:])
            taken.append(piece[:left])
            left -= len(taken[-1])
        return np.concatenate(taken)

    def put_back(self, samples: np.ndarray) -> None:
        """Add samples [N] at the beginning."""
        if len(samples):
            self._pieces.appendleft(samples)
            self._length += len(samples)

    def truncate(self, count: int) -> None:
        """Remove all but the first `count` samples."""
        while self._length > count:
            piece = self._pieces.pop()
            kept = max(0, len(piece) - (self._length - count))
            self._length -= len(piece) - kept
            if kept:
                self._pieces.append(piece[:kept])
