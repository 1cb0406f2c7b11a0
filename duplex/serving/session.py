"""One conversation inside the engine: the bounded queues between its owner (an event loop) and the model thread."""

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from duplex.audio import SAMPLE_RATE, SPEECH_LEVEL, TICK_MS, TICK_SAMPLES, TICKS_PER_SECOND
from duplex.events import Ended, Error, Lag

BEHIND_TICKS = 8  # how far anything may fall behind the clock: 640 ms
STALLED_TICKS = (
    30  # 2.4 s behind, an engine lets the time go: whoever waited so long has begun again
)
WISHES = 64  # a client's wishes that may wait for the next tick
UNREAD_TICKS = 25  # two seconds of output
LIVE_TICKS = 2  # more whole ones do not wait when somebody speaks in real time
CUSHION_S = (
    TICK_MS / 2000
)  # the first audio waits half a tick, so a sender whose beat wavers by less is never late
LAG_TICKS = round(TICKS_PER_SECOND)  # at most one Lag event a second


def _ms(samples: int) -> int:
    return round(samples * 1000 / SAMPLE_RATE)


class Session:
    """`push` audio, `wish`, `get` audio and events, `close`; the rest belongs to the engine's model thread.

    `early_ticks` of user audio may wait: with more than BEHIND_TICKS the agent would not live in the present, so that is
    for clients that send a recording at once. Beyond BEHIND_TICKS quiet ticks are skipped until the rest is heard in time.
    What waits because the engine is behind its clock comes on top: nothing that was sent in time is lost.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, engine_wake: threading.Event, now: Callable[[], float],
                 options: dict, early_ticks: int = BEHIND_TICKS):  # fmt: skip
        self.id = secrets.token_hex(6)
        self.options = options  # for agent.open
        self.opened_at = self.touched_at = now()  # touched: when the client last sent anything
        self.mid_turn = False  # someone speaks, or an answer is due
        self.draining: str | None = None  # why the session ends with the turn
        self.ticks = 0
        self.silence_ms = self.dropped_ms = self.late_ticks = self.unread_ticks = 0
        self.closing = False
        self.manner: tuple[str, float] | None = None  # voice and speaking rate, if the client chose
        self._loop = loop
        self._engine_wake = engine_wake
        self._now = now
        self._lock = threading.Lock()
        self._heard = False  # whether any user audio has reached the model
        self._early_samples = early_ticks * TICK_SAMPLES
        self._wishes: deque[tuple[str, tuple]] = deque()
        self._waiting = np.zeros(0, np.float32)  # user audio not yet heard
        self._first_audio_at: float | None = None  # before it there is nothing to be late
        self._due: float | None = None  # when the last tick that was taken should have been
        self._complete_at: deque[float] = deque()  # when each whole tick that waits became whole
        self.waited_s: float | None = (
            None  # from then until the last tick was due; None: none, or a recording at once
        )
        self._ready: deque[tuple[np.ndarray, list]] = deque()
        self._news = asyncio.Event()  # set from the model thread through the loop
        self._finished = False
        self._reason = "closed by the client"
        self._told = self._counts()  # what the last Lag event covered

    def push(self, samples: np.ndarray) -> None:
        """User audio, float32 [N], any N, from any thread."""
        with self._lock:
            self.touched_at = self._now()
            if self._first_audio_at is None:
                self._first_audio_at = self.touched_at
            waiting = np.concatenate([self._waiting, samples])
            surplus = max(
                0,
                len(waiting)
                - self._early_samples
                - self._overdue_ticks(self.touched_at) * TICK_SAMPLES,
            )
            new = len(waiting) // TICK_SAMPLES - len(self._complete_at)
            self._complete_at.extend([self.touched_at] * new)
            self._keep(waiting[surplus:])
            self.dropped_ms += _ms(surplus)

    def _keep(self, waiting: np.ndarray) -> None:
        """What is left after some of the oldest has gone."""
        self._waiting = waiting
        while len(self._complete_at) > len(waiting) // TICK_SAMPLES:
            self._complete_at.popleft()

    def _overdue_ticks(self, now: float) -> int:
        """Ticks that the engine should have taken by now, besides the one whose turn it is."""
        return (
            0
            if self._due is None
            else min(STALLED_TICKS, max(0, int((now - self._due) * 1000 / TICK_MS) - 1))
        )

    def clear(self) -> None:
        """User audio that waits is not heard."""
        with self._lock:
            self._keep(self._waiting[:0])

    def wish(self, method: str, *arguments) -> bool:
        """Calls a method of the agent with the slot and these arguments before the next tick; False: too many wait."""
        self.touched_at = self._now()
        if len(self._wishes) >= WISHES:
            return False
        self._wishes.append((method, arguments))
        return True

    @property
    def waiting_ms(self) -> int:
        return _ms(len(self._waiting))

    def take_wishes(self) -> list[tuple[str, tuple]]:
        return [self._wishes.popleft() for _ in range(len(self._wishes))]

    @property
    def unheard(self) -> bool:
        """Whether the session has not really begun: instructions can still be exchanged."""
        return not self._heard and not self.mid_turn

    async def get(self) -> tuple[np.ndarray, list] | None:
        """The next tick: audio float32 [1920] (or [0] when there are only events), events; None: it is over."""
        while True:
            self._news.clear()
            with self._lock:
                if self._ready:
                    return self._ready.popleft()
                if self._finished:
                    return None
            await self._news.wait()

    def close(self, text: str = "closed by the client") -> None:
        """Leaves at the next gap between ticks; what is ready can still be fetched, an `Ended` event comes last."""
        if not self.closing:
            self._reason = text
            self.closing = True
            self._engine_wake.set()

    def take_tick(self, now: float, due: float) -> np.ndarray:
        """[1920] samples to hear now, in the tick that was `due`. A tick that is not complete stays and is heard later, in
        one piece."""
        with self._lock:
            self._due = due
            bound = (BEHIND_TICKS + self._overdue_ticks(now)) * TICK_SAMPLES
            while (
                len(self._waiting) > bound
                and np.abs(self._waiting[:TICK_SAMPLES]).max() < SPEECH_LEVEL
            ):
                self._keep(self._waiting[TICK_SAMPLES:])
                self.dropped_ms += TICK_MS
            flows = self._first_audio_at is not None and now >= self._first_audio_at + CUSHION_S
            self.waited_s = None
            if flows and len(self._waiting) >= TICK_SAMPLES:
                self._heard, tick = True, self._waiting[:TICK_SAMPLES]
                self.waited_s = (
                    due - self._complete_at[0] if len(self._complete_at) <= LIVE_TICKS else None
                )
                self._keep(self._waiting[TICK_SAMPLES:])
                return tick
            if flows:
                self.silence_ms += TICK_MS
        return np.zeros(TICK_SAMPLES, np.float32)

    def give(self, audio: np.ndarray, events: list, late: bool) -> None:
        """One tick done: audio [1920], or [0] without a voice, and its events, plus a Lag event when there is something to tell."""
        self.ticks += 1
        self.late_ticks += late
        for event in events:
            if event.kind in ("user_started", "agent_started"):
                self.mid_turn = True
            elif event.kind == "agent_ended":
                self.mid_turn = False
        counts = self._counts()
        if self.ticks % LAG_TICKS == 0 and counts != self._told:
            passed = {name: counts[name] - self._told[name] for name in counts}
            events = [*events, Lag(tick=self.ticks - 1, **passed)]
            self._told = counts
        self._put(audio, events)

    def tell(self, event) -> None:
        """An event between ticks."""
        self._put(np.zeros(0, np.float32), [event])

    def fail(self, error: Error) -> None:
        self.tell(error)
        self.close(error.text)

    def finish(self) -> None:
        self.tell(Ended(text=self._reason, ticks=self.ticks, **self._counts()))
        self._finished = True
        self._tell_loop(self._news.set)

    def settle(self, joined: asyncio.Future, result) -> None:
        """Answers the waiting `Engine.open` with a session or an exception."""

        def answer() -> None:
            if joined.cancelled():  # whoever asked has gone: give the slot back
                self.close()
            elif isinstance(result, Exception):
                joined.set_exception(result)
            else:
                joined.set_result(result)

        self._tell_loop(answer)

    def _counts(self) -> dict[str, int]:
        names = ("silence_ms", "dropped_ms", "late_ticks", "unread_ticks")
        return {name: getattr(self, name) for name in names}

    def _put(self, audio: np.ndarray, events: list) -> None:
        with self._lock:
            self._ready.append((audio, events))
            if len(self._ready) > UNREAD_TICKS:
                _, unread = self._ready.popleft()
                audio, events = self._ready.popleft()
                self._ready.appendleft((audio, unread + events))
                self.unread_ticks += 1
        self._tell_loop(self._news.set)

    def _tell_loop(self, call) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop has closed, so nobody listens any more
            self.close()
