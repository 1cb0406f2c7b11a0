"""The engine: several sessions in the slots of one batch, moved on by a clock of its own, one step every 80 ms.

The model runs in one thread and nothing else does. Sessions join and leave between two ticks. The engine knows
neither what tensors mean nor what is on a wire: samples in, samples and events out.

Rules of time, each exception to them counted in `stats()` and told to the session as a `Lag` event:

- Audio not there when its tick is due: the tick hears silence; what comes later is still heard, later.
- Audio that comes early waits, at most BEHIND_TICKS; beyond, the oldest is dropped: the agent lives in the present.
- Audio that always comes long before its tick is due: the clock's beat moves towards it, so that no answer waits for nothing.
- A step that takes too long: the next ticks follow without a pause until the clock is caught up; what the user said
  meanwhile is heard, none of it is lost. Once more than BEHIND_TICKS behind, the agent's voice waits until then: no client
  keeps what would come at once, and time goes to hearing. When more than STALLED_TICKS behind, the clock lets them go.
- Output nobody fetches waits, at most UNREAD_TICKS; beyond, the oldest audio is dropped; its events are kept.

Rules of admission: no free slot, or too many late ticks in the last two seconds: a new session is refused at once, so
those that run stay in time. A session whose client sends nothing for `idle_s`, or that lasts `longest_s`, is closed. While
the engine drains, nobody comes in, and each session ends with its turn.

Rules of faults: what the agent reports as one slot's error, and samples that are not numbers, end that session alone; an
exception of the whole step ends all of them, because after it no slot's state can be trusted.
"""

import asyncio
import contextlib
import gc
import logging
import secrets
import statistics
import threading
import time
from collections import deque

import numpy as np

from duplex.audio import TICK_S, TICK_SAMPLES
from duplex.errors import EngineFull, EngineStopped
from duplex.events import AgentInterface, Ending, Error
from duplex.serving.session import BEHIND_TICKS, STALLED_TICKS, Session

log = logging.getLogger(__name__)

WARM_UP_TICKS = 3
TIMED_TICKS = 10_000  # the percentiles of stats() are over the last 13 minutes
OVERLOAD_TICKS = 25  # the two seconds that tell whether the engine is overloaded
OVERLOAD_LATE = 10  # so many late ones among them: it is
WAITED_TICKS = 50  # after so many the beat may move: by what audio has waited in all of them, but for what it needs
NEEDED_S = 0.03  # at least, and as much as the waiting varies


class WallClock:
    """Real time. Tests bring a clock of their own with the same two methods."""

    def now(self) -> float:
        return time.monotonic()

    def wait_until(self, due: float, wake: threading.Event) -> bool:
        """Returns True when `due` has come, False when woken before that."""
        return not wake.wait(max(0.0, due - self.now())) or self.now() >= due


class Engine:
    """Runs an agent: sessions join, leave and are moved on by one step for all every 80 ms."""

    def __init__(
        self,
        agent: AgentInterface,
        slots: int,
        clock=None,
        idle_s: float = 0,
        longest_s: float = 0,
        recorder=None,
    ):
        """idle_s, longest_s: 0 is for ever; recorder: see recorder.py."""
        self.agent = agent
        self.slots = slots
        self.clock = clock or WallClock()
        self.idle_s, self.longest_s, self.recorder = idle_s, longest_s, recorder
        self._drain_text: str | None = None
        self._late: deque[bool] = deque(maxlen=OVERLOAD_TICKS)
        self._waited: list[
            float
        ] = []  # seconds, of the audio that waited least in each tick since the beat last moved
        self._sessions: dict[int, Session] = {}  # by slot; changed by the model thread alone
        self._joining: deque[tuple[Session, asyncio.Future]] = deque()
        self._wake = threading.Event()  # someone joined or left, or the engine shall stop
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # guards the counts below
        self._times: deque[tuple[float, float]] = deque(
            maxlen=TIMED_TICKS
        )  # (due to done, step alone) in seconds
        self._counts = {
            "ticks": 0,
            "late_ticks": 0,
            "skipped_ticks": 0,
            "model_errors": 0,
            "sessions_opened": 0,
            "refused": 0,
        }
        self._gone = {
            "silence_ms": 0,
            "dropped_ms": 0,
            "unread_ticks": 0,
        }  # counts of sessions that have left
        self._behind_s = 0.0  # at the beginning of the last tick
        self._catching_up = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """The first steps of a network are slow (memory, kernels): make them before anybody waits for them."""
        self.agent.open(0, seed=0, instructions=None)
        for _ in range(WARM_UP_TICKS):
            self.agent.step(np.zeros((self.slots, TICK_SAMPLES), np.float32), [0])
        self.agent.close(0)
        gc.collect()
        gc.freeze()  # or the collector looks through all that the libraries made, 150 ms long, in the middle of a tick
        self._thread.start()

    def stop(self) -> None:
        """Ends every session, the model thread and the recorder; returns when they are done."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        gc.unfreeze()
        if self.recorder is not None:
            self.recorder.stop()

    @property
    def accepting(self) -> bool:
        return self._thread.is_alive() and self._drain_text is None and not self._stopping.is_set()

    async def open(
        self,
        seed: int | None = None,
        instructions: str | None = None,
        temperature: float | None = None,
        early_ticks: int = BEHIND_TICKS,
    ) -> Session:
        """Waits for the next gap between ticks, then returns a session or raises EngineFull or EngineStopped."""
        loop = asyncio.get_running_loop()
        joined = loop.create_future()
        seed = secrets.randbits(31) if seed is None else seed
        options = {"seed": seed, "instructions": instructions, "temperature": temperature}
        self._joining.append(
            (Session(loop, self._wake, self.clock.now, options, early_ticks), joined)
        )
        self._wake.set()
        if self._stopping.is_set():
            self._refuse_all()
        return await joined

    def close_all(self, text: str) -> None:
        """Ends every session, each being told why; new ones may still come."""
        for session in list(self._sessions.values()):
            session.close(text)

    def drain(self, text: str, within_s: float) -> None:
        """No new sessions; those that run are told, and end with their turn. After `within_s` call close_all."""
        self._drain_text = text
        for session in list(self._sessions.values()):
            session.draining = text
            session.tell(Ending(text, round(within_s * 1000)))

    def stats(self) -> dict:
        """Counts since the start and, over the last ticks, how long after its due time a tick was done."""
        with self._lock:
            times, stats = (
                np.array(self._times).reshape(-1, 2) * 1000,
                {**self._counts, **self._gone},
            )
        sessions = list(self._sessions.values())
        stats["sessions"], stats["slots"] = len(sessions), self.slots
        stats["behind_ms"] = round(1000 * self._behind_s)
        stats["waiting_ms"] = sum(session.waiting_ms for session in sessions)
        for name in self._gone:
            stats[name] += sum(getattr(session, name) for session in sessions)
        stats["agent"] = self.agent.metrics()
        for name, column in (("tick_ms", 0), ("step_ms", 1)):
            values = (
                np.percentile(times[:, column], [50, 90, 99, 100]) if len(times) else np.zeros(4)
            )
            stats[name] = dict(
                zip(("p50", "p90", "p99", "max"), values.round(1).tolist(), strict=True)
            )
        return stats

    # From here on everything runs in the model thread.

    def _run(self) -> None:
        due = self.clock.now() + TICK_S
        while not self._stopping.is_set():
            self._wake.clear()
            self._end_some()
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
        due += TICK_S - self._sooner()
        behind = int((self.clock.now() - due) / TICK_S)
        if behind > STALLED_TICKS:
            due += behind * TICK_S
            with self._lock:
                self._counts["skipped_ticks"] += behind
            log.warning("the model is %d ticks behind; the clock lets them go", behind)
        return due

    def _sooner(self) -> float:
        """Seconds by which the beat may move, now and then."""
        if len(self._waited) < WAITED_TICKS:
            return 0.0
        least, usual = min(self._waited), statistics.median(self._waited)
        self._waited.clear()
        return min(
            max(0.0, least - max(NEEDED_S, usual - least)), TICK_S / 2
        )  # a step has to fit between two ticks

    def _end_some(self) -> None:
        now = self.clock.now()
        for session in self._sessions.values():
            if session.draining and not session.mid_turn:
                session.close(session.draining)
            elif self.longest_s and now - session.opened_at > self.longest_s:
                session.close(f"a session lasts at most {self.longest_s:g} s")
            elif self.idle_s and now - session.touched_at > self.idle_s:
                session.close(f"nothing came from the client for {self.idle_s:g} s")

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
        if self.recorder is not None:
            self.recorder.end(session.id)
        if not self._sessions:
            self._late.clear()
        session.finish()

    def _admit(self) -> None:
        while self._joining:
            session, joined = self._joining.popleft()
            self._release()  # whoever left before this one asked
            free = [slot for slot in range(self.slots) if slot not in self._sessions]
            try:
                if self._drain_text:
                    raise EngineStopped(self._drain_text)
                if not free:
                    raise EngineFull(f"all {self.slots} places are taken")
                if self._sessions and sum(self._late) > OVERLOAD_LATE:
                    raise EngineFull("the machine is too busy for another session")
                # alone in the batch a session stalls nobody by reading at once
                self.agent.open(free[0], **session.options, gradually=bool(self._sessions))
            except Exception as error:
                if not isinstance(error, EngineFull | EngineStopped):
                    log.exception("opening slot %d", free[0])
                with self._lock:
                    self._counts["refused"] += 1
                session.settle(joined, error)
                continue
            self._sessions[free[0]] = session
            self._waited.clear()
            with self._lock:
                self._counts["sessions_opened"] += 1
            session.settle(joined, session)

    def _refuse_all(self) -> None:
        with contextlib.suppress(IndexError):  # the event loop may be refusing at the same time
            while True:
                session, joined = self._joining.popleft()
                session.settle(joined, EngineStopped("the engine has stopped"))

    def _tick(self, due: float) -> None:
        self._behind_s = self.clock.now() - due
        self._catching_up = self._behind_s > (
            TICK_S if self._catching_up else BEHIND_TICKS * TICK_S
        )
        heard = np.zeros((self.slots, TICK_SAMPLES), np.float32)
        listening = {}  # the others still read their instructions
        for slot, session in self._sessions.items():
            self._carry_out(slot, session)
            if not self.agent.is_prefilling(slot):
                listening[slot] = session
                heard[slot] = session.take_tick(self.clock.now(), due)
        waited = [session.waited_s for session in listening.values()]
        if waited and None not in waited and self._behind_s < TICK_S:
            self._waited.append(min(waited))
        else:
            self._waited.clear()
        started = self.clock.now()
        try:
            played, events = self.agent.step(
                heard, sorted(self._sessions), voice=not self._catching_up
            )
        except Exception as error:
            self._fail(error)
            return
        done = self.clock.now()
        late = done - due > TICK_S
        self._late.append(late)
        with self._lock:
            self._times.append((done - due, done - started))
            self._counts["ticks"] += 1
            self._counts["late_ticks"] += late
        for slot, session in self._sessions.items():
            fault = next((event for event in events[slot] if event.kind == "error"), None)
            if fault is None and not np.isfinite(played[slot]).all():
                fault = Error(
                    "model", "the model gave samples that are not numbers; this session is over"
                )
            if fault is not None:  # this slot is broken, its neighbours are not
                self._count_error()
                session.fail(fault)
                continue
            if slot not in listening:
                continue
            audio = (
                np.zeros(0, np.float32) if self._catching_up else np.array(played[slot], np.float32)
            )
            session.give(audio, list(events[slot]), late)
            if self.recorder is not None:
                self.recorder.tick(session.id, heard[slot], played[slot], events[slot])

    def _carry_out(self, slot: int, session: Session) -> None:
        """What the client asked for since the last tick."""
        for method, arguments in session.take_wishes():
            try:
                if method == "instruct":
                    self._instruct(slot, session, *arguments)
                else:
                    getattr(self.agent, method)(slot, *arguments)
                if method == "set_voice":
                    session.manner = arguments
            except ValueError as error:  # what was asked for cannot be; nothing has changed
                session.tell(Error("refused", str(error)))
            except Exception as error:
                log.exception("%s in slot %d", method, slot)
                self._count_error()
                session.fail(
                    Error(
                        "model",
                        f"the model failed ({type(error).__name__}: {error}); this session is over",
                    )
                )

    def _instruct(self, slot: int, session: Session, instructions: str) -> None:
        if not session.unheard:
            self.agent.write(slot, "system", instructions)
            return
        before, session.options = session.options, {**session.options, "instructions": instructions}
        self.agent.close(slot)
        try:
            self.agent.open(slot, **session.options, gradually=len(self._sessions) > 1)
        except ValueError:
            session.options = before
            self.agent.open(slot, **before, gradually=len(self._sessions) > 1)
            raise
        finally:
            if session.manner:
                self.agent.set_voice(slot, *session.manner)

    def _fail(self, error: Exception) -> None:
        """A step is one computation for all slots: when it breaks, the state of none can be trusted."""
        self._count_error()
        log.error("the model failed; %d sessions end", len(self._sessions), exc_info=error)
        for session in self._sessions.values():
            session.fail(
                Error(
                    "model",
                    f"the model failed ({type(error).__name__}: {error}); this session is over",
                )
            )

    def _count_error(self) -> None:
        with self._lock:
            self._counts["model_errors"] += 1
