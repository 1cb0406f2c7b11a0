"""Between the network, which brings audio when it can, and a loudspeaker, which wants it now.

The browser page has the same buffer, web/jitter_buffer.js; tests/client/jitter_buffer.json holds
both to the same behaviour.
"""

import math
import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

from duplex.audio import INAUDIBLE, SAMPLE_RATE, TICK_MS, TICK_SAMPLES

# Samples that a sound card asks for at once: a quarter of a tick, 20 ms.
BLOCK_SAMPLES = TICK_SAMPLES // 4
# The same in milliseconds.
BLOCK_MS = TICK_MS // 4


@dataclass(frozen=True)
class PlaybackConfig:
    """How much waits, in samples."""

    # What is to be there before anything is played, at least and at most: 80 and 320 ms.
    min_target: int = TICK_SAMPLES
    max_target: int = 4 * TICK_SAMPLES
    # Beyond this the oldest is dropped: 640 ms.
    max_waiting: int = 8 * TICK_SAMPLES
    # Pieces whose lateness is remembered: ten seconds of ticks.
    window: int = 125
    # The share of them that shall come in time.
    share_in_time: float = 0.95
    # A difference that is not worth a correction: 20 ms.
    tolerance: int = BLOCK_SAMPLES
    # What a gap adds to the target, and after how long without a gap it is taken back: 30 s.
    gap_step: int = TICK_SAMPLES
    gap_rest: int = 30 * SAMPLE_RATE
    # Lateness that jumps by more is a pause of the sender's or of the card's: one second.
    jump: int = SAMPLE_RATE
    # How long a voice that breaks off fades out, and then in: 5 ms.
    fade: int = SAMPLE_RATE // 200


@dataclass
class Placement:
    """A stretch of the agent's sound: its first sample, samples pulled before it, its length."""

    first: int
    pulled: int
    count: int


class Playback:
    """`push` what has come, `pull` what is to be played now.

    Its target is 80 ms and what the pieces of the last ten seconds spread in time, 320 ms at most.
    It moves towards it where the voice is silent, by waiting or by leaving silence out. A voice
    that has to break off fades. Thread safe: the sound card's thread calls `pull`.
    """

    def __init__(self, config: PlaybackConfig | None = None):
        self.config = config or PlaybackConfig()
        # Times that the agent's voice was interrupted because its audio came too late.
        self.gaps = 0
        self.dropped_ms = 0
        # Where the agent's sound was played, one entry for each stretch without a break.
        self.placements: list[Placement] = []
        self._lock = threading.Lock()
        self._waiting = np.zeros(0, np.float32)
        self._flows = False
        # Whether the sound card is gone: nobody misses what is not played then.
        self._is_paused = False
        # When pieces came, in samples pulled, less their place in the agent's sound.
        self._lateness: deque[int] = deque(maxlen=self.config.window)
        self._spread = 0
        # Samples that gaps have added to the target, and how long ago the last one was.
        self._boost = 0
        self._since_gap = 0
        # Samples pulled so far, silence included; those pushed; those played or left out.
        self._pulled = 0
        self._pushed = 0
        self._passed = 0
        # The last sample played, whether its piece could be heard, and what is left of the fades.
        self._last = 0.0
        self._is_audible = False
        self._fade_out = 0
        self._fade_in = 0

    def push(self, samples: np.ndarray) -> float:
        """Audio [N] from the agent. Returns when it will be played, in ms since the first pull."""
        with self._lock:
            self._measure(self._pulled - self._pushed)
            ahead = len(self._waiting)
            self._pushed += len(samples)
            self._waiting = np.concatenate([self._waiting, samples])
            surplus = max(0, len(self._waiting) - self.config.max_waiting)
            if surplus:
                self._skip(surplus)
                self._lateness.clear()
                self._measure(self._pulled - self._pushed + len(samples))
            if not self._is_paused:
                self.dropped_ms += surplus * TICK_MS // TICK_SAMPLES
            delay = 0 if self._flows else max(0, -self._excess())
            return (self._pulled + max(0, ahead - surplus) + delay) * TICK_MS / TICK_SAMPLES

    def pull(self, count: int) -> np.ndarray:
        """Samples [count] to play now."""
        with self._lock:
            out = np.zeros(count, np.float32)
            self._is_paused = False
            if not self._flows and len(self._waiting) and self._excess() >= 0:
                self._flows = True
            if self._flows and not self._adapt(count):
                self._play(out)
            elif self._fade_out:
                self._fade_rest(out)
            self._pulled += count
            self._since_gap += count
            if self._boost and self._since_gap >= self.config.gap_rest:
                self._boost -= self.config.gap_step
                self._since_gap = 0
            return out

    def pause(self, count: int) -> None:
        """So many samples' time passes and nothing is played: the sound card is gone."""
        with self._lock:
            self._pulled += count
            self._flows = False
            self._is_paused = True

    @property
    def pushed_ms(self) -> int:
        """How much of the agent's voice has come."""
        return self._pushed * TICK_MS // TICK_SAMPLES

    @property
    def passed_ms(self) -> int:
        """How far into the agent's voice the pulls have come."""
        return self._passed * TICK_MS // TICK_SAMPLES

    @property
    def waiting_ms(self) -> int:
        """How much waits to be played."""
        return len(self._waiting) * TICK_MS // TICK_SAMPLES

    @property
    def target_ms(self) -> int:
        """How much shall wait before the voice begins."""
        return self._target() * TICK_MS // TICK_SAMPLES

    def played_at_ms(self, voice_ms: float) -> float:
        """When a moment of the agent's sound was played, in ms since the first pull."""
        sample = voice_ms * TICK_SAMPLES / TICK_MS
        at = sample
        with self._lock:
            for place in self.placements:
                # What was left out is where the sound goes on.
                at = place.pulled + max(0.0, sample - place.first)
                if sample < place.first + place.count:
                    break
        return at * TICK_MS / TICK_SAMPLES

    def _measure(self, lateness: int) -> None:
        """Remember how late a piece came, and how much they spread."""
        if self._lateness and abs(lateness - self._lateness[-1]) > self.config.jump:
            self._lateness.clear()
        self._lateness.append(lateness)
        ordered = sorted(self._lateness)
        in_time = math.ceil((len(ordered) - 1) * self.config.share_in_time)
        spread = ordered[in_time] - ordered[0]
        is_steady = spread <= self.config.tolerance
        self._spread = 0 if is_steady else spread + self.config.tolerance

    def _target(self) -> int:
        wanted = self.config.min_target + self._spread + self._boost
        return min(wanted, self.config.max_target)

    def _excess(self) -> int:
        """By how much the next sample would be played later than is wanted."""
        delay = self._pulled - self._passed - min(self._lateness)
        return delay - (self._target() - self.config.min_target)

    def _adapt(self, count: int) -> bool:
        """Leave out silence of which there is too much; return whether to wait in a silence."""
        excess = self._excess()
        if self._is_audible or abs(excess) <= self.config.tolerance:
            return False
        if excess < 0:
            head = self._waiting[:count]
            return len(head) == count and np.abs(head).max() < INAUDIBLE
        loud = np.flatnonzero(np.abs(self._waiting[:excess]) >= INAUDIBLE)
        self._skip(int(loud[0]) if len(loud) else min(excess, len(self._waiting)))
        return False

    def _play(self, out: np.ndarray) -> None:
        """The next samples, into `out`; where there are too few the voice fades out."""
        played = self._waiting[: len(out)].copy()
        if len(played):
            self._place(len(played))
            if self._fade_in:
                steps = np.arange(self.config.fade - self._fade_in, self.config.fade)[: len(played)]
                played[: len(steps)] *= (steps + 1) / self.config.fade
                self._fade_in -= len(steps)
            self._is_audible = bool(np.abs(played).max() > INAUDIBLE)
            self._last = float(played[-1])
            self._skip(len(played))
        out[: len(played)] = played
        if len(played) < len(out):
            self._flows = False
            if self._is_audible:
                self._note_gap()
                self._fade_rest(out[len(played) :])

    def _place(self, count: int) -> None:
        """So many samples are played now."""
        last = self.placements[-1] if self.placements else Placement(0, -1, 0)
        if (last.first + last.count, last.pulled + last.count) == (self._passed, self._pulled):
            last.count += count
        else:
            self.placements.append(Placement(self._passed, self._pulled, count))

    def _note_gap(self) -> None:
        self.gaps += 1
        self._boost = min(self._boost + self.config.gap_step, self.config.max_target)
        self._since_gap = 0
        self._is_audible = False
        self._fade_out = self.config.fade
        self._fade_in = self.config.fade

    def _fade_rest(self, out: np.ndarray) -> None:
        """What is left of the voice that broke off, into the beginning of `out`."""
        count = min(self._fade_out, len(out))
        steps = np.arange(self._fade_out - 1, self._fade_out - 1 - count, -1)
        out[:count] = self._last * steps / self.config.fade
        self._fade_out -= count

    def _skip(self, count: int) -> None:
        self._waiting = self._waiting[count:]
        self._passed += count
