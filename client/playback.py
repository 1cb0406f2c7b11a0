"""Between the network, which brings audio when it can, and a loudspeaker, which wants it on the beat."""

import threading

import numpy as np

from duplex.audio import TICK_MS, TICK_SAMPLES

HELD_TICKS = 8  # at most 640 ms wait to be played; beyond, the oldest is dropped


class Playback:
    """`push` what has come, `pull` what is to be played now. An empty buffer gives silence and then waits until a
    whole tick is there, so each gap leaves the cushion against the next one. Thread safe: `pull` is called by the
    sound card's thread."""

    def __init__(self):
        self.gaps = 0  # times the agent's audio came too late to be played in time
        self.dropped_ms = 0
        self._lock = threading.Lock()
        self._held = np.zeros(0, np.float32)
        self._flows = False
        self._pulled = 0  # samples played so far, silence included
        self._passed = 0  # samples of the agent that were played or dropped: its own clock

    def push(self, samples: np.ndarray) -> float:
        """Audio [N] from the agent. Returns when it will be played, in ms since the first pull."""
        with self._lock:
            ahead = len(self._held)
            held = np.concatenate([self._held, samples])
            surplus = max(0, len(held) - HELD_TICKS * TICK_SAMPLES)
            self._held = held[surplus:]
            self.dropped_ms += surplus * TICK_MS // TICK_SAMPLES
            self._passed += surplus
            return (self._pulled + max(0, ahead - surplus)) * TICK_MS / TICK_SAMPLES

    def pull(self, count: int) -> np.ndarray:
        """[count] samples to play now."""
        with self._lock:
            self._pulled += count
            if not self._flows and len(self._held) >= max(count, TICK_SAMPLES):
                self._flows = True
            if self._flows and len(self._held) < count:
                self._flows = False
                self.gaps += 1
            if not self._flows:
                return np.zeros(count, np.float32)
            samples, self._held = self._held[:count], self._held[count:]
            self._passed += count
            return samples

    @property
    def passed_ms(self) -> int:
        """How far into the agent's voice the pulls have come."""
        return self._passed * TICK_MS // TICK_SAMPLES
