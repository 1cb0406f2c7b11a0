"""User audio between the client, who sends it when it can, and the engine, who hears on a beat."""

import threading
from collections import deque

import numpy as np

from duplex.audio import SAMPLE_RATE, SPEECH_LEVEL, TICK_MS, TICK_SAMPLES
from duplex.serving.limits import EngineLimits
from duplex.serving.sound.sample_queue import SampleQueue


class InputBuffer:
    """Takes pieces of any length from any thread, gives ticks to the model thread.

    early_ticks: so much audio may wait. With more than `limits.max_buffered_ticks` the agent would
    not live in the present, so that is for clients that send a recording at once: they ask whether
    it `fits`. Ticks without speech are then skipped until the rest is heard in time. What waits
    because the engine is behind its clock comes on top: nothing that was sent in time is lost.

    Whole ticks that wait for nothing would delay every answer: those that came before the session's
    first tick, while its instructions were read, or in a burst after a stall of the network. They
    go in the next pause, of the first ones what is silent at once.
    """

    def __init__(self, limits: EngineLimits, early_ticks: int):
        # Milliseconds heard as silence, because the user's audio was not there in time.
        self.silence_ms = 0
        # Milliseconds thrown away, because too much was waiting.
        self.dropped_ms = 0
        # Seconds that the last tick taken had waited since it was whole. None: there was no tick,
        # or it is part of a recording sent at once.
        self.waited_s: float | None = None
        self._limits = limits
        self._early_samples = early_ticks * TICK_SAMPLES
        self._lock = threading.Lock()
        self._waiting = SampleQueue()
        # Ticks without speech that were heard last.
        self._pause_ticks = 0
        # Of each of the last ticks: whole ticks that were left behind it, and its loudest sample.
        self._left: deque[int] = deque(maxlen=limits.surplus_window_ticks)
        self._peaks: deque[float] = deque(maxlen=limits.surplus_window_ticks)
        # Samples that came so far, that went so far (heard or thrown away), and those that came
        # before the client's last commit.
        self._came = 0
        self._went = 0
        self._committed = 0
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

    def fits(self, count: int, now: float) -> bool:
        """Whether so many more samples may wait without any being thrown away."""
        with self._lock:
            return len(self._waiting) + count <= self._room(now)

    def push(self, samples: np.ndarray, now: float) -> None:
        """Add audio, float32 [N]; what is too much of it goes, the oldest first."""
        with self._lock:
            self._push(samples, now)
            surplus = max(0, len(self._waiting) - self._room(now))
            self._drop(surplus)
            self.dropped_ms += milliseconds(surplus)

    def commit(self, now: float) -> None:
        """What came is one utterance: silence completes its last tick, and `clear` keeps it."""
        with self._lock:
            missing = -len(self._waiting) % TICK_SAMPLES
            self._push(np.zeros(missing, np.float32), now)
            self._committed = self._came

    def clear(self) -> None:
        """Forget what waits, without what was committed."""
        with self._lock:
            kept = max(0, self._committed - self._went)
            self._went += max(0, len(self._waiting) - kept)
            self._waiting.truncate(kept)
            self._forget_times()

    @property
    def end(self) -> int:
        """Stands for the moment after all audio that came so far, see `has_passed`."""
        return self._came

    def has_passed(self, end: int) -> bool:
        """Whether everything before such a moment was heard or thrown away."""
        return self._went >= end or len(self._waiting) < TICK_SAMPLES

    def take_tick(self, now: float, due: float) -> np.ndarray:
        """Samples [1920] to hear now, in the tick that was `due`.

        A tick that is not complete stays and is heard later, in one piece.
        """
        with self._lock:
            if self._due is None:
                self._skip_first_silence()
            self._due = due
            self._skip_silence(now)
            self._skip_surplus()
            begun = False
            if self._first_audio_at is not None:
                begun = now >= self._first_audio_at + self._limits.cushion_s
            self.waited_s = None
            if begun and len(self._waiting) >= TICK_SAMPLES:
                if len(self._complete_at) <= self._limits.max_live_ticks:
                    self.waited_s = due - self._complete_at[0]
                tick = self._drop(TICK_SAMPLES)
                self._pause_ticks = self._pause_ticks + 1 if _is_silent(tick) else 0
                self._peaks.append(float(np.abs(tick).max()))
                self._left.append(len(self._waiting) // TICK_SAMPLES)
                return tick
            self._pause_ticks += 1
            if begun:
                self.silence_ms += TICK_MS
        return np.zeros(TICK_SAMPLES, np.float32)

    def _skip_silence(self, now: float) -> None:
        """Drop ticks without speech while more waits than may.

        Of a recording only what is beyond a pause that ends a turn: its sentences stay apart.
        """
        ticks = self._limits.max_buffered_ticks + self._overdue_ticks(now)
        while len(self._waiting) > ticks * TICK_SAMPLES:
            tick = self._next_tick()
            is_recording = len(self._waiting) > self._limits.stalled_ticks * TICK_SAMPLES
            is_pause = is_recording and self._pause_ticks < self._limits.kept_pause_ticks
            if is_pause or not _is_silent(tick):
                return
            self._drop(TICK_SAMPLES)
            self.dropped_ms += TICK_MS

    def _skip_first_silence(self) -> None:
        """Drop silent ticks that came before the session's first one; it has heard nothing yet."""
        if len(self._waiting) > self._limits.max_buffered_ticks * TICK_SAMPLES:
            return  # A recording: its times are kept.
        while len(self._waiting) >= 2 * TICK_SAMPLES and _is_silent(self._next_tick()):
            self._drop(TICK_SAMPLES)

    def _skip_surplus(self) -> None:
        """Drop quiet ticks in a long pause, as many as were always left in the last window.

        Nothing that was said is lost by that, so nothing is counted. Quiet is what is no louder
        than the quietest of the window, give or take: rooms are noisy.
        """
        if len(self._left) < self._limits.surplus_window_ticks:
            return
        quiet = max(SPEECH_LEVEL, self._limits.quiet_factor * min(self._peaks))
        quiet = min(quiet, self._limits.max_quiet)
        is_pause = max([*self._peaks][-self._limits.kept_pause_ticks :]) < quiet
        for _ in range(min(self._left) if is_pause else 0):
            if len(self._waiting) < TICK_SAMPLES or np.abs(self._next_tick()).max() >= quiet:
                return
            self._drop(TICK_SAMPLES)
            self._left.clear()

    def _next_tick(self) -> np.ndarray:
        """The oldest samples that wait, which go on waiting."""
        tick = self._waiting.take(TICK_SAMPLES)
        self._waiting.put_back(tick)
        return tick

    def _room(self, now: float) -> int:
        """Samples that may wait."""
        return self._early_samples + self._overdue_ticks(now) * TICK_SAMPLES

    def _push(self, samples: np.ndarray, now: float) -> None:
        if self._first_audio_at is None:
            self._first_audio_at = now
        self._waiting.push(samples)
        self._came += len(samples)
        whole = len(self._waiting) // TICK_SAMPLES
        self._complete_at.extend([now] * (whole - len(self._complete_at)))

    def _drop(self, count: int) -> np.ndarray:
        """Take the oldest samples away."""
        taken = self._waiting.take(count)
        self._went += len(taken)
        self._forget_times()
        return taken

    def _forget_times(self) -> None:
        """Of ticks that wait no more."""
        while len(self._complete_at) > len(self._waiting) // TICK_SAMPLES:
            self._complete_at.popleft()

    def _overdue_ticks(self, now: float) -> int:
        """Ticks that the engine should have taken by now, besides the one whose turn it is."""
        if self._due is None:
            return 0
        overdue = int((now - self._due) * 1000 / TICK_MS) - 1
        return min(self._limits.stalled_ticks, max(0, overdue))


def _is_silent(tick: np.ndarray) -> bool:
    return np.abs(tick).max() < SPEECH_LEVEL


def milliseconds(samples: int) -> int:
    """How long so many samples last."""
    return round(samples * 1000 / SAMPLE_RATE)
