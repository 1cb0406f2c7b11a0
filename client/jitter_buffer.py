"""Between the network, which brings audio when it can, and a loudspeaker, which wants it now."""

import threading
from dataclasses import dataclass

import numpy as np

from duplex.audio import INAUDIBLE, SAMPLE_RATE, TICK_MS, TICK_SAMPLES

# Samples that a sound card asks for at once: a quarter of a tick, 20 ms.
BLOCK_SAMPLES = TICK_SAMPLES // 4
# The same in milliseconds.
BLOCK_MS = TICK_MS // 4


@dataclass(frozen=True)
class PlaybackConfig:
    """How much may wait."""

    # Ticks that may wait to be played, 640 ms; beyond, the oldest is dropped.
    max_waiting_ticks: int = 8
    # Samples of the cushion that are kept although they were not needed lately: 20 ms.
    spare_samples: int = SAMPLE_RATE // 50
    # Samples that count as lately: four seconds.
    lately_samples: int = 4 * SAMPLE_RATE


class Playback:
    """`push` what has come, `pull` what is to be played now.

    An empty buffer gives silence and then waits until a whole tick is there, so each gap leaves a
    cushion against the next one; a cushion that was not needed lately goes, in a silence. Thread
    safe: `pull` is called by the sound card's thread.
    """

    def __init__(self, config: PlaybackConfig | None = None):
        self.config = config or PlaybackConfig()
        # Times that the agent's voice was interrupted because its audio came too late.
        self.gaps = 0
        self.dropped_ms = 0
        self._lock = threading.Lock()
        self._waiting = np.zeros(0, np.float32)
        self._flows = False
        # The sample played last.
        self._last = 0.0
        # The fewest samples that were left after a pull lately, and for how many samples.
        self._least = 0
        self._lately = 0
        # Samples played so far, silence included.
        self._pulled = 0
        # Samples of the agent that were played or left out: its own clock.
        self._passed = 0

    def push(self, samples: np.ndarray) -> float:
        """Audio [N] from the agent. Returns when it will be played, in ms since the first pull."""
        with self._lock:
            ahead = len(self._waiting)
            self._waiting = np.concatenate([self._waiting, samples])
            surplus = max(0, len(self._waiting) - self.config.max_waiting_ticks * TICK_SAMPLES)
            self._skip(surplus)
            self.dropped_ms += surplus * TICK_MS // TICK_SAMPLES
            return (self._pulled + max(0, ahead - surplus)) * TICK_MS / TICK_SAMPLES

    def pull(self, count: int) -> np.ndarray:
        """Samples [count] to play now."""
        with self._lock:
            self._pulled += count
            if not self._flows and len(self._waiting) >= max(count, TICK_SAMPLES):
                self._flows = True
                self._watch_anew()
            if self._flows and len(self._waiting) < count:
                self._flows = False
                self.gaps += abs(self._last) > INAUDIBLE
            if not self._flows:
                self._last = 0.0
                return np.zeros(count, np.float32)
            samples = self._waiting[:count]
            self._skip(count)
            self._last = float(samples[-1])
            self._least = min(self._least, len(self._waiting))
            self._lately += count
            self._shrink_cushion()
            return samples

    @property
    def passed_ms(self) -> int:
        """How far into the agent's voice the pulls have come."""
        return self._passed * TICK_MS // TICK_SAMPLES

    def _shrink_cushion(self) -> None:
        """Leave out what was not needed lately, where nobody hears it."""
        surplus = self._least - self.config.spare_samples
        if self._lately < self.config.lately_samples or surplus <= 0:
            return
        if np.abs(self._waiting[:surplus]).max() < INAUDIBLE:
            self._skip(surplus)
            self._watch_anew()

    def _skip(self, count: int) -> None:
        self._waiting = self._waiting[count:]
        self._passed += count

    def _watch_anew(self) -> None:
        self._least = len(self._waiting)
        self._lately = 0
