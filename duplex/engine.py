"""The engine: several sessions in the slots of one batch, moved on by a clock of its own, one step every 80 ms.

The model runs in one thread and nothing else does. Sessions join and leave between two ticks. The engine knows
neither what tensors mean nor what is on a wire: samples in, samples and events out.

Rules of time, each exception to them counted in `stats()` and told to the session as a `Lag` event:

- Audio not there when its tick is due: the tick hears silence; what comes later is still heard, later.
- Audio that comes early waits, at most BEHIND_TICKS; beyond, the oldest is dropped: the agent lives in the present.
- A step that takes too long: the next ticks follow without a pause until the clock is caught up. When more
  than BEHIND_TICKS behind, the clock lets the missed ticks go.
- Output nobody fetches waits, at most UNREAD_TICKS; beyond, the oldest audio is dropped; its events are kept.
"""

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections import deque

import numpy as np

from duplex.audio import TICK_MS, TICK_SAMPLES
from duplex.events import Error
from duplex.session import BEHIND_TICKS, Session

log = logging.getLogger(__name__)

TICK_S = TICK_MS / 1000
WARM_UP_TICKS = 3
TIMED_TICKS = 10_000  # the percentiles of stats() are over the last 13 minutes


class EngineFull(Exception):
    """Every slot is taken."""


class EngineStopped(Exception):
    """The engine no longer takes sessions."""


class WallClock:
    """Real time. Tests bring a clock of their own with the same two methods."""

    def now(self) -> float:
        return time.monotonic()

    def wait_until(self, due: float, wake: threading.Event) -> bool:
        """Returns True when `due` has come, False when woken before that."""
        return not wake.wait(max(0.0, due - self.now())) or self.now() >= due


class Engine:
    """`agent` needs open(slot, seed=, instructions=), close(slot) and step(audio [B, 1920], active)."""

    def __init__(self, agent, slots: int, clock=None):
        self.agent = agent
        self.slots = slots
        self.clock = clock or WallClock()
        self._sessions: dict[int, Session] = {}  # by slot; changed by the model thread alone
        self._joining: deque[tuple[Session, dict, asyncio.Future]] = deque()
        self._wake = threading.Event()  # someone joined or left, or the engine shall stop
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # guards the counts below
        self._times: deque[tuple[float, float]] = deque(maxlen=TIMED_TICKS)  # (due to done, step alone) in seconds
        self._counts = {"ticks": 0, "late_ticks": 0, "skipped_ticks": 0, "model_errors": 0, "sessions_opened": 0}
        self._gone = {"silence_ms": 0, "dropped_ms": 0, "unread_ticks": 0}  # counts of sessions that have left
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """The first steps of a network are slow (memory, kernels): make them before anybody waits for them."""
        self.agent.open(0, seed=0, instructions=None)
        for _ in range(WARM_UP_TICKS):
            self.agent.step(np.zeros((self.slots, TICK_SAMPLES), np.float32), [0])
        self.agent.close(0)
        self._thread.start()

    def stop(self) -> None:
        """Ends every session and the model thread; returns when the thread is done."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    async def open(self, seed: int | None = None, instructions: str | None = None) -> Session:
        """Waits for the next gap between ticks, then returns a session or raises EngineFull or EngineStopped."""
        loop = asyncio.get_running_loop()
        joined = loop.create_future()
        options = {"seed": secrets.randbits(31) if seed is None else seed, "instructions": instructions}
        self._joining.append((Session(loop, self._wake, self.clock.now), options, joined))
        self._wake.set()
        if self._stopping.is_set():
            self._refuse_all()
        return await joined

    def close_all(self, text: str) -> None:
        """Ends every session, each being told why; new ones may still come."""
        for session in list(self._sessions.values()):
            session.close(text)

    def stats(self) -> dict:
        """Counts since the start and, over the last ticks, how long after its due time a tick was done."""
        with self._lock:
            times, stats = np.array(self._times).reshape(-1, 2) * 1000, {**self._counts, **self._gone}
        sessions = list(self._sessions.values())
        stats["sessions"] = len(sessions)
        for name in self._gone:
            stats[name] += sum(getattr(session, name) for session in sessions)
        for name, column in (("tick_ms", 0), ("step_ms", 1)):
            values = np.percentile(times[:, column], [50, 90, 99, 100]) if len(times) else np.zeros(4)
            stats[name] = dict(zip(("p50", "p90", "p99", "max"), values.round(1).tolist(), strict=True))
        return stats

    # From here on everything runs in the model thread.

    def _run(self) -> None:
        due = 0.0
        while not self._stopping.is_set():
            self._wake.clear()
            self._release()
            self._admit()
            if not self._sessions:
                self._wake.wait()
                due = self.clock.now() + TICK_S
            elif self.clock.wait_until(due, self._wake):
                self._tick(due)
                due = self._next_due(due)
        self.close_all("the engine has stopped")
        self._release()
        self._refuse_all()

    def _next_due(self, due: float) -> float:
        due += TICK_S
        behind = int((self.clock.now() - due) / TICK_S)
        if behind > BEHIND_TICKS:
            due += behind * TICK_S
            with self._lock:
                self._counts["skipped_ticks"] += behind
            log.warning("the model is %d ticks behind; the clock lets them go", behind)
        return due

    def _release(self) -> None:
        for slot, session in list(self._sessions.items()):
            if session.closing:
                self._remove(slot, session)

    def _remove(self, slot: int, session: Session) -> None:
        del self._sessions[slot]
        with self._lock:
            for name in self._gone:
                self._gone[name] += getattr(session, name)
        try:
            self.agent.close(slot)
        except Exception:
            log.exception("closing slot %d", slot)  # the next open resets the slot
        session.finish()

    def _admit(self) -> None:
        while self._joining:
            session, options, joined = self._joining.popleft()
            self._release()  # whoever left before this one asked
            free = [slot for slot in range(self.slots) if slot not in self._sessions]
            try:
                if not free:
                    raise EngineFull(f"all {self.slots} places are taken")
                self.agent.open(free[0], **options)
            except Exception as error:
                if not isinstance(error, EngineFull):
                    log.exception("opening slot %d", free[0])
                session.settle(joined, error)
                continue
            self._sessions[free[0]] = session
            with self._lock:
                self._counts["sessions_opened"] += 1
            session.settle(joined, session)

    def _refuse_all(self) -> None:
        with contextlib.suppress(IndexError):  # the event loop may be refusing at the same time
            while True:
                session, _, joined = self._joining.popleft()
                session.settle(joined, EngineStopped("the engine has stopped"))

    def _tick(self, due: float) -> None:
        heard = np.zeros((self.slots, TICK_SAMPLES), np.float32)
        for slot, session in self._sessions.items():
            heard[slot] = session.take_tick(self.clock.now())
        started = self.clock.now()
        try:
            played, events = self.agent.step(heard, sorted(self._sessions))
        except Exception as error:
            self._fail(error)
            return
        done = self.clock.now()
        late = done - due > TICK_S
        with self._lock:
            self._times.append((done - due, done - started))
            self._counts["ticks"] += 1
            self._counts["late_ticks"] += late
        for slot, session in self._sessions.items():
            if np.isfinite(played[slot]).all():
                session.give(np.array(played[slot], np.float32), list(events[slot]), late)
            else:  # this slot is broken, its neighbours are not
                self._count_error()
                session.fail(Error("model", "the model gave samples that are not numbers; this session is over"))

    def _fail(self, error: Exception) -> None:
        """A step is one computation for all slots: when it breaks, the state of none can be trusted."""
        self._count_error()
        log.error("the model failed; %d sessions end", len(self._sessions), exc_info=error)
        for session in self._sessions.values():
            session.fail(Error("model", f"the model failed ({type(error).__name__}: {error}); this session is over"))

    def _count_error(self) -> None:
        with self._lock:
            self._counts["model_errors"] += 1
