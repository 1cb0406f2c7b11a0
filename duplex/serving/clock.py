"""Time as the engine sees it: a clock, and the beat of its ticks, which moves towards the audio."""

import statistics
import threading
import time

from duplex.audio import TICK_S


class WallClock:
    """Real time. Tests bring a clock of their own with the same two methods."""

    def now(self) -> float:
        """Seconds since some beginning; it never goes back."""
        return time.monotonic()

    def wait_until(self, due: float, wake: threading.Event) -> bool:
        """Returns True when `due` has come, False when woken before that."""
        return not wake.wait(max(0.0, due - self.now())) or self.now() >= due


class Beat:
    """Finds out by how much ticks could come sooner, so that no answer waits for nothing.

    window_ticks: in so many ticks, one after the other, audio must have waited for its tick.
    needed_s: so much it goes on waiting at least, or as much as the waiting varies.
    """

    def __init__(self, window_ticks: int = 50, needed_s: float = 0.03):
        self.window_ticks = window_ticks
        self.needed_s = needed_s
        # Seconds, in each tick of the window, of the audio that waited least.
        self._waits: list[float] = []

    def note(self, waits: list[float | None]) -> None:
        """How long the audio of each session waited for this tick; None where none was in time."""
        if waits and None not in waits:
            self._waits.append(min(waits))
        else:
            self.reset()

    def reset(self) -> None:
        """Begin a new window: somebody came, or nothing can be said of this tick."""
        self._waits.clear()

    def take_shift(self) -> float:
        """Seconds by which the next tick is to come sooner, once a window; else 0."""
        if len(self._waits) < self.window_ticks:
            return 0.0
        least = min(self._waits)
        varies = statistics.median(self._waits) - least
        self._waits.clear()
        # A step has to fit between two ticks.
        return min(max(0.0, least - max(self.needed_s, varies)), TICK_S / 2)
