"""The thread that reads turns a second time: who is let in, and who gives way.

Where sessions have a clock, a turn whose reading would come too late is heard by the first pass
alone, at once: nobody waits for it in vain. A turn that goes on is read so far only while nobody
waits, and half-way gives way to one that may be over.
"""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch


class ReadingThread:
    """One thread for the turns of all slots."""

    def __init__(self, max_jobs: int):
        """max_jobs: turns that wait or are read."""
        self.max_jobs = max_jobs
        self.worker = ThreadPoolExecutor(1, "second-pass", initializer=_begin_thread)
        # What was submitted and is perhaps not read yet.
        self.jobs: list[Future] = []
        # Seconds that a reading took of late.
        self.reading_s = 0.0
        # Set while a turn that may be over waits behind one that goes on.
        self.is_urgent = threading.Event()
        # Turns that might be over: "read", or "refused" as a reading would have come too late.
        self.counts: Counter = Counter()

    @property
    def is_free(self) -> bool:
        """Whether nothing waits or is read."""
        return all(job.done() for job in self.jobs)

    def submit(
        self, work: Callable, is_awaited: bool, within_s: float | None = None
    ) -> Future | None:
        """Have the thread do `work()`.

        within_s: of use only so soon; None: whenever it comes. None where it would come too late.
        """
        self.jobs = [job for job in self.jobs if not job.done()]
        if is_awaited:
            is_late = within_s is not None and self._is_late(within_s)
            self.counts["refused" if is_late else "read"] += 1
            if is_late:
                return None
            self.is_urgent.set()
        else:
            self.is_urgent.clear()
        self.jobs.append(self.worker.submit(self._timed, work))
        return self.jobs[-1]

    def _is_late(self, within_s: float) -> bool:
        """Whether a reading that is submitted now would likely come too late."""
        # The one that is being read is half done on average.
        is_late = (len(self.jobs) + 0.5) * self.reading_s > within_s
        if is_late:
            self.reading_s *= 0.9  # Otherwise one slow reading would end them all.
        return is_late or len(self.jobs) >= self.max_jobs

    def _timed(self, work: Callable):
        begun = time.perf_counter()
        found = work()
        took_s = time.perf_counter() - begun
        self.reading_s += (0.2 if self.reading_s else 1.0) * (took_s - self.reading_s)
        return found


def _begin_thread() -> None:
    """Let the ticks go first, and share no product: that is slower where the cores are busy."""
    torch.set_num_threads(1)
    if sys.platform == "linux":  # Where a thread has a priority of its own.
        thread = os.PRIO_PROCESS, threading.get_native_id()
        os.setpriority(*thread, os.getpriority(*thread) + 5)
