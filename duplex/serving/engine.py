"""The engine: sessions in the slots of one batch, moved on by a clock, one step every 80 ms.

The model runs in one thread and nothing else does. Sessions join and leave between two ticks. The
engine knows neither what tensors mean nor what is on a wire: samples in, samples and events out.

Rules of time (the numbers are in limits.py). Each exception to them is counted in `stats()` and
told to the session as a `Lag` event:

- Audio not there when its tick is due: the tick hears silence; what comes later is heard later.
- Audio that comes early waits, at most max_buffered_ticks; beyond, the oldest is dropped: the agent
  lives in the present.
- Audio that always comes long before its tick is due: the clock's beat moves towards it, so that no
  answer waits for nothing. Whole ticks of one session that always wait are skipped in a pause; so
  is the silence that came while its instructions were read beside other sessions.
- A step that takes too long: the next ticks follow without a pause until the clock is caught up;
  what the user said meanwhile is heard, none of it is lost. Once more than max_buffered_ticks
  behind, the agent's voice waits until then: no client keeps what would come at once, and time goes
  to hearing. When more than stalled_ticks behind, the clock lets them go.
- Output nobody fetches waits, at most max_unread_ticks; beyond, the oldest audio is dropped; its
  events are kept.

Rules of admission: no free slot, or too many late ticks in the last two seconds: a new session is
refused at once, so those that run stay in time. A session whose client sends nothing for idle_s, or
that lasts max_session_s, is closed. While the engine drains, nobody comes in, and each session ends
with its turn.

Rules of faults: what the agent reports as one slot's error, and samples that are not numbers, end
that session alone; an exception of the whole step ends all of them, because after it no slot's
state can be trusted.
"""

import asyncio
import contextlib
import dataclasses
import gc
import logging
import secrets
import threading
from collections import deque

import numpy as np

from duplex.agent_interface import AgentInterface
from duplex.audio import TICK_S, TICK_SAMPLES
from duplex.errors import EngineFull, EngineStopped, SessionError
from duplex.events import Ending, Error
from duplex.serving.clock import Beat, WallClock
from duplex.serving.commands import (
    AgentCommand,
    Configure,
    Heed,
    Hint,
    SetTools,
    SetVoice,
    Start,
    TakeTurns,
    Write,
    apply,
)
from duplex.serving.limits import EngineLimits
from duplex.serving.session import ClientSession
from duplex.serving.sound.recorder import Recorder
from duplex.serving.stats import EngineStats

log = logging.getLogger(__name__)

# Counts of a session that join the engine's when it leaves.
SESSION_COUNTS = ("silence_ms", "dropped_ms", "unread_ticks")
STOPPED = "the engine has stopped"


class Engine:
    """Runs an agent for up to `slots` sessions, in a thread of its own between start and stop."""

    def __init__(
        self,
        agent: AgentInterface,
        slots: int,
        clock=None,
        limits: EngineLimits | None = None,
        recorder: Recorder | None = None,
    ):
        """clock: with the methods of WallClock, which it is by default."""
        self.agent = agent
        self.slots = slots
        self.clock = clock or WallClock()
        self.limits = limits or EngineLimits()
        self.recorder = recorder
        self._stats = EngineStats()
        self._beat = Beat()
        # By slot; changed by the model thread alone.
        self._sessions: dict[int, ClientSession] = {}
        self._joining: deque[tuple[ClientSession, asyncio.Future]] = deque()
        # Set when someone joined or left, or the engine shall stop.
        self._wake = threading.Event()
        self._stopping = threading.Event()
        # Whether new sessions are taken; those that run are not touched by it.
        self.admits = True
        # Why no session is taken any more, and those that run end with their turn.
        self._drain_text: str | None = None
        # Whether each of the last ticks was late.
        self._late: deque[bool] = deque(maxlen=self.limits.overload_window_ticks)
        # When the model thread last came round: with sessions there, each tick.
        self._moved_at = self.clock.now()
        # Seconds behind the clock when the last tick began.
        self._behind_s = 0.0
        self._catching_up = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self, warm_up_ticks: int = 3) -> None:
        """Make the first steps, which are slow (memory, kernels), then begin to take sessions."""
        self.agent.open(0, seed=0, instructions=None)
        for _ in range(warm_up_ticks):
            self.agent.step(np.zeros((self.slots, TICK_SAMPLES), np.float32), [0])
        self.agent.close(0)
        # Otherwise the collector looks through all that the libraries made, for 150 ms, in a tick.
        gc.collect()
        gc.freeze()
        self._thread.start()

    def stop(self) -> None:
        """End every session, the model thread and the recorder; return when they are done."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        gc.unfreeze()
        if self.recorder is not None:
            self.recorder.stop()

    @property
    def is_accepting(self) -> bool:
        """Whether new sessions may come, if there is a free slot."""
        return self._thread.is_alive() and self._drain_text is None and not self._stopping.is_set()

    def state(self) -> str:
        """In a word: ready, full, busy, draining, stopping or stopped."""
        if not self.is_accepting:
            return "stopping" if self._drain_text and self._thread.is_alive() else "stopped"
        if not self.admits:
            return "draining"
        if len(self._sessions) >= self.slots:
            return "full"
        if self._sessions and sum(self._late) > self.limits.overload_late_ticks:
            return "busy"
        return "ready"

    def unready(self) -> str:
        """Why a new session would be refused now; empty where it would not."""
        sentences = {
            "ready": "",
            "full": f"all {self.slots} places are taken",
            "busy": "the machine is too busy for another session",
            "draining": "the server is draining: nobody comes in, those there go on till they end",
            "stopping": f"{self._drain_text}: nobody comes in, those there end with their turn",
            "stopped": STOPPED,
        }
        return sentences[self.state()]

    def ailing(self) -> str:
        """Why the process is of no use any more; empty where it is well."""
        if not self._thread.is_alive():
            return STOPPED
        still_s = self.clock.now() - self._moved_at
        if self._sessions and still_s > self.limits.hung_s:
            return f"the model has not made a step for {still_s:.0f} s"
        return ""

    async def open(
        self,
        start: Start | None = None,
        early_ticks: int | None = None,
        may_be_idle: bool = False,
    ) -> ClientSession:
        """Wait for the next gap between ticks, then return a session.

        early_ticks: audio that may wait to be heard; by default limits.max_buffered_ticks.
        may_be_idle: whether limits.idle_s is not for this one.

        Raises EngineFull, EngineStopped, and what the agent raises where it cannot begin.
        """
        start = start or Start()
        if start.seed is None:
            start = dataclasses.replace(start, seed=secrets.randbits(31))
        if early_ticks is None:
            early_ticks = self.limits.max_buffered_ticks
        session = ClientSession(start, self.limits, early_ticks, self.clock.now, self._wake)
        session.may_be_idle = may_be_idle
        joined = asyncio.get_running_loop().create_future()
        self._joining.append((session, joined))
        self._wake.set()
        if self._stopping.is_set():
            self._refuse_all()
        return await joined

    def close_all(self, text: str) -> None:
        """End every session, each being told why; new ones may still come."""
        for session in list(self._sessions.values()):
            session.close(text, "stopped")

    def drain(self, text: str, within_s: float) -> None:
        """Take no new sessions; tell those that run, which end with their turn.

        After `within_s` call close_all.
        """
        self._drain_text = text
        for session in list(self._sessions.values()):
            session.draining = text
            session.tell(Ending(text, round(within_s * 1000)))

    def stats(self) -> dict:
        """Counts since the start, what is now, and how long after its due time a tick was done."""
        sessions = list(self._sessions.values())
        stats: dict = self._stats.counts()
        for session in sessions:
            counts = session.counts()
            for name in SESSION_COUNTS:
                stats[name] += counts[name]
        stats["sessions"] = len(sessions)
        stats["slots"] = self.slots
        stats["free"] = max(0, self.slots - len(sessions))
        stats["state"] = self.state()
        stats["behind_ms"] = round(1000 * self._behind_s)
        stats["waiting_ms"] = sum(session.input.waiting_ms for session in sessions)
        stats["agent"] = self.agent.metrics()
        return stats | self._stats.percentiles()

    # From here on everything runs in the model thread.

    def _run(self) -> None:
        due = self.clock.now() + TICK_S
        while not self._stopping.is_set():
            self._wake.clear()
            self._moved_at = self.clock.now()
            self._end_sessions()
            self._release()
            self._admit()
            if not self._sessions:
                self._wake.wait()
                due = self.clock.now() + TICK_S
            elif self.clock.wait_until(due, self._wake):
                self._tick(due)
                due = self._next_due(due)
        self.close_all(STOPPED)
        self._release()
        self._refuse_all()

    def _next_due(self, due: float) -> float:
        due += TICK_S - self._beat.take_shift()
        behind = int((self.clock.now() - due) / TICK_S)
        if behind > self.limits.stalled_ticks:
            due += behind * TICK_S
            self._stats.count(skipped_ticks=behind)
            log.warning("the model is %d ticks behind; the clock lets them go", behind)
        return due

    def _end_sessions(self) -> None:
        """Close those whose time is over."""
        now = self.clock.now()
        idle_s = self.limits.idle_s
        longest_s = self.limits.max_session_s
        for session in self._sessions.values():
            if session.draining and not session.mid_turn:
                session.close(session.draining, "stopped")
            elif longest_s and now - session.opened_at > longest_s:
                session.close(f"a session lasts at most {longest_s:g} s", "longest")
            elif idle_s and not session.may_be_idle and now - session.touched_at > idle_s:
                session.close(f"nothing came from the client for {idle_s:g} s", "idle")

    def _release(self) -> None:
        """Free the slots of those who leave."""
        for slot, session in list(self._sessions.items()):
            if session.closing:
                self._remove(slot, session)

    def _remove(self, slot: int, session: ClientSession) -> None:
        del self._sessions[slot]
        counts = session.counts()
        self._stats.count(**{name: counts[name] for name in SESSION_COUNTS})
        self._stats.count_end(session.end)
        try:
            self.agent.close(slot)
        except Exception:
            # The next open resets the slot.
            log.exception("closing slot %d", slot)
        if self.recorder is not None:
            self.recorder.end(session.id)
        if not self._sessions:
            self._late.clear()
        session.finish()

    def _admit(self) -> None:
        """Open a session for everybody who waits, or refuse it."""
        while self._joining:
            session, joined = self._joining.popleft()
            # Whoever left before this one asked has left.
            self._release()
            try:
                slot = self._free_slot()
                # Alone in the batch a session stalls nobody by reading at once.
                self._open_slot(slot, session, gradually=bool(self._sessions))
            except Exception as error:
                if not isinstance(error, SessionError):
                    log.exception("opening a slot")
                self._stats.count(refused=1)
                session.resolve(joined, error)
                continue
            self._sessions[slot] = session
            self._beat.reset()
            self._stats.count(sessions_opened=1)
            session.resolve(joined)

    def _free_slot(self) -> int:
        """Where the next session may sit; raises EngineStopped or EngineFull."""
        if self._drain_text:
            raise EngineStopped(self._drain_text)
        if reason := self.unready():
            raise EngineFull(reason)
        return next(slot for slot in range(self.slots) if slot not in self._sessions)

    def _open_slot(self, slot: int, session: ClientSession, gradually: bool) -> None:
        start = session.start
        self.agent.open(
            slot,
            seed=start.seed,
            instructions=start.instructions,
            temperature=start.temperature,
            gradually=gradually,
            real_time=True,
        )

    def _refuse_all(self) -> None:
        # The event loop may be refusing at the same time.
        with contextlib.suppress(IndexError):
            while True:
                session, joined = self._joining.popleft()
                session.resolve(joined, EngineStopped(STOPPED))

    def _tick(self, due: float) -> None:
        """One step for all sessions."""
        self._behind_s = self.clock.now() - due
        may_be_behind_s = TICK_S * (1 if self._catching_up else self.limits.max_buffered_ticks)
        self._catching_up = self._behind_s > may_be_behind_s

        # 1. What clients asked for, then what users said; the others still read instructions.
        heard = np.zeros((self.slots, TICK_SAMPLES), np.float32)
        listening: dict[int, ClientSession] = {}
        for slot, session in self._sessions.items():
            self._apply_commands(slot, session)
            if not self.agent.is_prefilling(slot):
                listening[slot] = session
                heard[slot] = session.input.take_tick(self.clock.now(), due)
        in_time = self._behind_s < TICK_S
        waits = [session.input.waited_s for session in listening.values()]
        self._beat.note(waits if in_time else [])

        # 2. The step.
        started = self.clock.now()
        active = sorted(self._sessions)
        try:
            played, events = self.agent.step(heard, active, voice=not self._catching_up)
        except Exception as error:
            self._fail_all(error)
            return
        done = self.clock.now()
        late = done - due > TICK_S
        self._late.append(late)
        self._stats.time(done - due, done - started)
        self._stats.count(ticks=1, late_ticks=int(late))

        # 3. What came of it, to each session.
        for slot, session in self._sessions.items():
            fault = _fault(played[slot], events[slot])
            if fault is not None:
                self._stats.count(model_errors=1)
                session.fail(fault)
            elif slot in listening:
                self._give(session, heard[slot], played[slot], events[slot], late)

    def _give(
        self,
        session: ClientSession,
        heard: np.ndarray,
        played: np.ndarray,
        events: list,
        late: bool,
    ) -> None:
        audio = np.zeros(0, np.float32) if self._catching_up else np.array(played, np.float32)
        session.put_tick(audio, list(events), late)
        if self.recorder is not None:
            self.recorder.tick(session.id, heard, played, events)

    def _apply_commands(self, slot: int, session: ClientSession) -> None:
        """Carry out what the client asked for since the last tick."""
        for command in session.take_commands():
            try:
                self._apply(command, slot, session)
            except ValueError as error:
                # What was asked for cannot be; nothing has changed.
                session.tell(Error("refused", str(error)))
            except Exception as error:
                log.exception("%s in slot %d", type(command).__name__, slot)
                self._stats.count(model_errors=1)
                session.fail(_model_error(error))

    def _apply(self, command: AgentCommand, slot: int, session: ClientSession) -> None:
        is_new = isinstance(command, Configure) and not command.is_for_turn
        if is_new and not session.has_begun:
            self._open_anew(command.instructions, slot, session)
            return
        apply(command, self.agent, slot)
        if isinstance(command, SetVoice):
            session.voice = command
        elif isinstance(command, TakeTurns):
            session.turns = command
        elif isinstance(command, Hint):
            session.hint = command
        elif isinstance(command, Heed):
            session.heed = command
        elif isinstance(command, SetTools):
            session.tools = command
        elif isinstance(command, Write):
            session.has_begun = True

    def _open_anew(self, instructions: str, slot: int, session: ClientSession) -> None:
        """Exchange the instructions of a session in which nothing has happened."""
        before = session.start
        gradually = len(self._sessions) > 1
        session.start = dataclasses.replace(before, instructions=instructions)
        self.agent.close(slot)
        try:
            self._open_slot(slot, session, gradually)
        except ValueError:
            session.start = before
            self._open_slot(slot, session, gradually)
            raise
        finally:
            for chosen in session.chosen:
                apply(chosen, self.agent, slot)

    def _fail_all(self, error: Exception) -> None:
        """A step is one computation for all slots: when it breaks, no state can be trusted."""
        self._stats.count(model_errors=1)
        log.error("the model failed; %d sessions end", len(self._sessions), exc_info=error)
        for session in self._sessions.values():
            session.fail(_model_error(error))


def _fault(played: np.ndarray, events: list) -> Error | None:
    """What is wrong with one slot alone, if anything is."""
    fault = next((event for event in events if event.kind == "error"), None)
    if fault is None and not np.isfinite(played).all():
        return Error("model", "the model gave samples that are not numbers; this session is over")
    return fault


def _model_error(error: Exception) -> Error:
    reason = f"{type(error).__name__}: {error}"
    return Error("model", f"the model failed ({reason}); this session is over")
