"""Between the network, which brings audio when it can, and a loudspeaker, which wants it on the beat."""

import threading

import numpy as np

from duplex.audio import INAUDIBLE, SAMPLE_RATE, TICK_MS, TICK_SAMPLES

BLOCK_SAMPLES, BLOCK_MS = TICK_SAMPLES // 4, TICK_MS // 4  # what a sound card asks for at once
HELD_TICKS = 8  # at most 640 ms wait to be played; beyond, the oldest is dropped
SPARE_SAMPLES = SAMPLE_RATE // 50  # the audio may come 20 ms later than it has lately
LATELY_SAMPLES = 4 * SAMPLE_RATE


class Playback:
    """`push` what has come, `pull` what is to be played now. An empty buffer gives silence and then waits until a
    whole tick is there, so each gap leaves the cushion against the next one; a cushion that was not needed lately goes,
    in a silence. Thread safe: `pull` is called by the sound card's thread."""

    def __init__(self):
        self.gaps = 0  # times the agent's voice was interrupted because its audio came too late
        self.dropped_ms = 0
        self._lock = threading.Lock()
        self._held = np.zeros(0, np.float32)
        self._flows = False
        self._last = 0.0  # sample that was played
        self._least, self._lately = (
            0,
            0,
        )  # samples that were left after each pull lately, at least; and since when, in samples
        self._pulled = 0  # samples played so far, silence included
        self._passed = 0  # samples of the agent that were played or left out: its own clock

    def push(self, samples: np.ndarray) -> float:
        """Audio [N] from the agent. Returns when it will be played, in ms since the first pull."""
        with self._lock:
            ahead = len(self._held)
            held = np.concatenate([self._held, samples])
            surplus = max(0, len(held) - HELD_TICKS * TICK_SAMPLES)
            self._skip(surplus, held)
            self.dropped_ms += surplus * TICK_MS // TICK_SAMPLES
            return (self._pulled + max(0, ahead - surplus)) * TICK_MS / TICK_SAMPLES

    def _skip(self, count: int, held: np.ndarray) -> None:
        self._held = held[count:]
        self._passed += count

    def pull(self, count: int) -> np.ndarray:
        """[count] samples to play now."""
        with self._lock:
            self._pulled += count
            if not self._flows and len(self._held) >= max(count, TICK_SAMPLES):
                self._flows = True
                self._settle()
            if self._flows and len(self._held) < count:
                self._flows = False
                self.gaps += abs(self._last) > INAUDIBLE
            if not self._flows:
                self._last = 0.0
                return np.zeros(count, np.float32)
            samples = self._held[:count]
            self._skip(count, self._held)
            self._last = float(samples[-1])
            self._least, self._lately = min(self._least, len(self._held)), self._lately + count
            surplus = self._least - SPARE_SAMPLES
            if (
                self._lately >= LATELY_SAMPLES
                and surplus > 0
                and np.abs(self._held[:surplus]).max() < INAUDIBLE
            ):
                self._skip(surplus, self._held)
                self._settle()
            return samples

    def _settle(self) -> None:
        self._least, self._lately = len(self._held), 0

    @property
    def passed_ms(self) -> int:
        """How far into the agent's voice the pulls have come."""
        return self._passed * TICK_MS // TICK_SAMPLES
