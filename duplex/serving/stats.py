"""What the engine counts and times: one thread writes, any thread reads."""

import threading
from collections import deque

import numpy as np

# How a session may end: its client left, or was lost; it was silent, lasted or sent too much; the
# model failed; the server stopped.
ENDS = ("client", "lost", "idle", "longest", "abuse", "error", "stopped")


class EngineStats:
    """Counts by name, and for each of the last ticks how long it took."""

    def __init__(self, timed_ticks: int = 10_000):
        """timed_ticks: percentiles are taken over so many of the last ticks, 13 minutes."""
        self._lock = threading.Lock()
        # Since the start; the last three are of sessions that have left.
        counts = ("ticks", "late_ticks", "skipped_ticks", "model_errors", "sessions_opened")
        counts += ("refused", "silence_ms", "dropped_ms", "unread_ticks")
        self._counts = dict.fromkeys(counts, 0)
        self._ends = dict.fromkeys(ENDS, 0)
        # Seconds from the time a tick was due to its answer, and seconds of the step alone.
        self._times: deque[tuple[float, float]] = deque(maxlen=timed_ticks)

    def count(self, **numbers: int) -> None:
        """Add to counts."""
        with self._lock:
            for name, number in numbers.items():
                self._counts[name] += number

    def count_end(self, end: str) -> None:
        """Count a session that has left, by how it ended."""
        with self._lock:
            self._ends[end] += 1

    def time(self, since_due_s: float, step_s: float) -> None:
        """Keep the times of one tick."""
        with self._lock:
            self._times.append((since_due_s, step_s))

    def counts(self) -> dict[str, int | dict[str, int]]:
        """The counts now."""
        with self._lock:
            return {**self._counts, "ends": dict(self._ends)}

    def percentiles(self) -> dict[str, dict[str, float]]:
        """Milliseconds to the last ticks' answers and of their steps: p50, p90, p99 and max."""
        with self._lock:
            times = np.array(self._times).reshape(-1, 2) * 1000
        if not len(times):
            times = np.zeros((1, 2))
        found = np.percentile(times, [50, 90, 99, 100], axis=0).round(1)  # [4, 2]
        names = ("p50", "p90", "p99", "max")
        return {
            "tick_ms": dict(zip(names, found[:, 0].tolist(), strict=True)),
            "step_ms": dict(zip(names, found[:, 1].tolist(), strict=True)),
        }
