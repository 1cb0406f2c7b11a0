"""User audio between the client, who sends it when it can, and the engine, who hears on a beat."""

import threading
from collections import deque

import numpy as np

from duplex.audio import SAMPLE_RATE, SPEECH_LEVEL, TICK_MS, TICK_SAMPLES
from duplex.serving.limits import EngineLimits


class InputBuffer:
    """Takes pieces of any length from any thread, gives ticks to the model thread.

    early_ticks: so much audio may wait. With more than `limits.max_buffered_ticks` the agent would
    not live in the present, so that is for clients that send a recording at once; ticks without
    speech are then skipped until the rest is heard in time. What waits because the engine is behind
    its clock comes on top: nothing that was sent in time is lost.
    """

    def __init__(self, limits: EngineLimits, early_ticks: int):
        # Milliseconds heard as silence, because the user's audio was not there in time.
        self.silence_ms = 0
        # Milliseconds thrown away, because too much was waiting.
        self.dropped_ms = 0
        # Whether any of it has reached the model.
        self.was_heard = False
        # Seconds that the last tick taken had waited since it was whole. None: there was no tick,
        # or it is part of a recording sent at once.
        self.waited_s: float | None = None
        self._limits = limits
        self._early_samples = early_ticks * TICK_SAMPLES
        self._lock = threading.Lock()
        self._waiting = np.zeros(0, np.float32)
        # When each whole tick that waits became whole.
        self._complete_at: deque[float] = deque()
        # Before the first audio there is nothing to be late.
        self._first_audio_at: float | None = None
        # When the last tick that was taken should have been.
        self._due: float | None = None

    @property
    def waiting_ms(self) -> int:
        """Audio that waits to be heard."""
        return milliseconds(len(self._waiting))

    def push(self, samples: np.ndarray, now: float) -> None:
        """Add audio, float32 [N]; what is too much of it goes, the oldest first."""
        with self._lock:
            if self._first_audio_at is None:
                self._first_audio_at = now
            waiting = np.concatenate([self._waiting, samples])
            room = self._early_samples + self._overdue_ticks(now) * TICK_SAMPLES
            surplus = max(0, len(waiting) - room)
            whole = len(waiting) // TICK_SAMPLES
            self._complete_at.extend([now] * (whole - len(self._complete_at)))
            self._keep(waiting[surplus:])
            self.dropped_ms += milliseconds(surplus)

    def clear(self) -> None:
        """Forget what waits."""
        with self._lock:
            self._keep(self._waiting[:0])

    def take_tick(self, now: float, due: float) -> np.ndarray:
        """Samples [1920] to hear now, in the tick that was `due`.

        A tick that is not complete stays and is heard later, in one piece.
        """
        with self._lock:
            self._due = due
            self._skip_silence(now)
            begun = False
            if self._first_audio_at is not None:
                begun = now >= self._first_audio_at + self._limits.cushion_s
            self.waited_s = None
            if begun and len(self._waiting) >= TICK_SAMPLES:
                tick = self._waiting[:TICK_SAMPLES]
                self.was_heard = True
                if len(self._complete_at) <= self._limits.max_live_ticks:
                    self.waited_s = due - self._complete_at[0]
                self._keep(self._waiting[TICK_SAMPLES:])
                return tick
            if begun:
                self.silence_ms += TICK_MS
        return np.zeros(TICK_SAMPLES, np.float32)

    def _skip_silence(self, now: float) -> None:
        """Drop ticks without speech while more waits than may."""
        ticks = self._limits.max_buffered_ticks + self._overdue_ticks(now)
        while len(self._waiting) > ticks * TICK_SAMPLES:
            if np.abs(self._waiting[:TICK_SAMPLES]).max() >= SPEECH_LEVEL:
                return
            self._keep(self._waiting[TICK_SAMPLES:])
            self.dropped_ms += TICK_MS

    def _keep(self, waiting: np.ndarray) -> None:
        """Go on with what is left after some of the oldest has gone."""
        self._waiting = waiting
        while len(self._complete_at) > len(waiting) // TICK_SAMPLES:
            self._complete_at.popleft()

    def _overdue_ticks(self, now: float) -> int:
        """Ticks that the engine should have taken by now, besides the one whose turn it is."""
        if self._due is None:
            return 0
        overdue = int((now - self._due) * 1000 / TICK_MS) - 1
        return min(self._limits.stalled_ticks, max(0, overdue))


def milliseconds(samples: int) -> int:
    """How long so many samples last."""
    return round(samples * 1000 / SAMPLE_RATE)
