"""One client's conversation inside the engine: what passes between an event loop and the model."""

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from duplex.events import Ended, Error, Event, Lag, Marked
from duplex.serving.commands import (
    AfterInput,
    Answer,
    Audio,
    Clear,
    Commit,
    End,
    Heed,
    Hint,
    Mark,
    SetTools,
    SetVoice,
    Start,
    Stop,
    TakeTurns,
)
from duplex.serving.limits import EngineLimits
from duplex.serving.sound.input_buffer import InputBuffer


class ClientSession:
    """What a client does with the agent, and what comes back; every queue is bounded.

    The owner, on the event loop, calls `enqueue_command` (or `push` and `close`) and `get`. The
    engine's model thread calls the rest. It is made on the loop that will fetch from it.
    """

    def __init__(
        self,
        start: Start,
        limits: EngineLimits,
        early_ticks: int,
        now: Callable[[], float],
        engine_wake: threading.Event,
    ):
        self.id = secrets.token_hex(6)
        # What it was opened with, for the agent.
        self.start = start
        self.input = InputBuffer(limits, early_ticks)
        self._refuses_audio = early_ticks > limits.max_buffered_ticks
        self.opened_at = now()
        # When the client last sent anything, and whether that matters to nobody.
        self.may_be_idle = False
        self.touched_at = self.opened_at
        # Whether someone speaks, or an answer is due.
        self.mid_turn = False
        # Whether something was said or written: then instructions can no longer be exchanged.
        self.has_begun = False
        # Why the session ends with the turn that is going on.
        self.draining: str | None = None
        # The voice in use, how turns are taken, likely words and so on, if the client chose.
        self.voice: SetVoice | None = None
        self.turns: TakeTurns | None = None
        self.hint: Hint | None = None
        self.heed: Heed | None = None
        self.tools: SetTools | None = None
        self.closing = False
        # How it ended, in a word of stats.ENDS.
        self.end = "client"
        self.ticks = self.late_ticks = self.unread_ticks = 0
        self._limits = limits
        self._now = now
        self._engine_wake = engine_wake
        self._loop = asyncio.get_running_loop()
        self._commands: deque = deque()
        # Commands that wait for the audio before them: (its end, command).
        self._after_input: deque[tuple[int, object]] = deque()
        self._lock = threading.Lock()
        self._ready: deque[tuple[np.ndarray, list]] = deque()
        # Set by the model thread, through the loop, when there is something to fetch.
        self._news = asyncio.Event()
        self._finished = False
        self._reason = "closed by the client"
        # What the last Lag event covered.
        self._told = self.counts()
        for command in start.commands():
            self.enqueue_command(command)

    @property
    def chosen(self) -> list:
        """The commands by which the client has chosen how the agent is to be."""
        found = (self.voice, self.turns, self.hint, self.heed, self.tools)
        return [command for command in found if command is not None]

    # For the owner.

    def push(self, samples: np.ndarray) -> None:
        """User audio, float32 [N], any N, from any thread."""
        self.touched_at = self._now()
        self.input.push(samples, self.touched_at)

    def enqueue_command(self, command) -> bool:
        """Do what concerns the session alone, keep the rest for the next tick.

        Returns False where too many commands wait, or more audio than may from a client that was
        allowed to send it early; this command is then ignored.
        """
        self.touched_at = self._now()
        match command:
            case Audio(samples):
                if self._refuses_audio and not self.input.fits(len(samples), self.touched_at):
                    return False
                self.push(samples)
            case Commit():
                self.input.commit(self.touched_at)
            case Clear():
                self.input.clear()
            case End():
                self.close()
            case AfterInput(later):
                if len(self._after_input) >= self._limits.max_pending_commands:
                    return False
                with self._lock:
                    self._after_input.append((self.input.end, later))
            case _:
                if len(self._commands) >= self._limits.max_pending_commands:
                    return False
                self._commands.append(command)
                if isinstance(command, Stop):
                    self._withdraw_answers()
        return True

    def _withdraw_answers(self) -> None:
        with self._lock:
            kept = [entry for entry in self._after_input if not isinstance(entry[1], Answer)]
            self._after_input = deque(kept)

    async def get(self) -> tuple[np.ndarray, list] | None:
        """The next tick: audio float32 [1920], or [0] where there are only events, and its events.

        Returns None when the session is over.
        """
        while True:
            self._news.clear()
            with self._lock:
                if self._ready:
                    return self._ready.popleft()
                if self._finished:
                    return None
            await self._news.wait()

    def close(self, text: str = "closed by the client", end: str = "client") -> None:
        """Leave at the next gap between ticks; what is ready can be fetched, `Ended` comes last.

        end: the same as `text` in a word of stats.ENDS.
        """
        if not self.closing:
            self._reason = text
            self.end = end
            self.closing = True
            self._engine_wake.set()

    # For the engine.

    def take_commands(self) -> list:
        """What waits, in order, then what has waited for audio that was heard by now."""
        found = [self._commands.popleft() for _ in range(len(self._commands))]
        with self._lock:
            while self._after_input and self.input.has_passed(self._after_input[0][0]):
                found.append(self._after_input.popleft()[1])
        for command in found:
            if isinstance(command, Mark):
                self.tell(Marked(command.number))
        return [command for command in found if not isinstance(command, Mark)]

    def counts(self) -> dict[str, int]:
        """What went wrong with time so far; the fields of Lag and Ended."""
        return {
            "silence_ms": self.input.silence_ms,
            "dropped_ms": self.input.dropped_ms,
            "late_ticks": self.late_ticks,
            "unread_ticks": self.unread_ticks,
        }

    def put_tick(self, audio: np.ndarray, events: list[Event], late: bool) -> None:
        """Hand over a tick that is done: audio [1920], or [0] without a voice, and its events.

        A Lag event is added when there is something to tell.
        """
        self.ticks += 1
        self.late_ticks += late
        for event in events:
            if event.kind in ("user_started", "agent_started"):
                self.mid_turn = True
                self.has_begun = True
            elif event.kind == "agent_ended":
                self.mid_turn = False
        counts = self.counts()
        if self.ticks % self._limits.lag_interval_ticks == 0 and counts != self._told:
            passed = {name: counts[name] - self._told[name] for name in counts}
            events = [*events, Lag(tick=self.ticks - 1, **passed)]
            self._told = counts
        self._put(audio, events)

    def tell(self, event) -> None:
        """Hand over an event between ticks."""
        self._put(np.zeros(0, np.float32), [event])

    def fail(self, error: Error) -> None:
        """End the session with an error."""
        self.tell(error)
        self.close(error.text, "error")

    def finish(self) -> None:
        """The last call: nothing comes after the `Ended` event."""
        self.tell(Ended(text=self._reason, ticks=self.ticks, **self.counts()))
        self._finished = True
        self._call_on_loop(self._news.set)

    def resolve(self, joined: asyncio.Future, error: Exception | None = None) -> None:
        """Answer the waiting `Engine.open` with this session, or with an exception."""

        def answer() -> None:
            if joined.cancelled():
                # Whoever asked has gone: give the slot back.
                self.close()
            elif error is not None:
                joined.set_exception(error)
            else:
                joined.set_result(self)

        self._call_on_loop(answer)

    def _put(self, audio: np.ndarray, events: list) -> None:
        with self._lock:
            self._ready.append((audio, events))
            if len(self._ready) > self._limits.max_unread_ticks:
                # The oldest audio goes; its events come with the next one's.
                _, unread = self._ready.popleft()
                audio, events = self._ready.popleft()
                self._ready.appendleft((audio, unread + events))
                self.unread_ticks += 1
        self._call_on_loop(self._news.set)

    def _call_on_loop(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            # The loop has closed, so nobody listens any more.
            self.close()
