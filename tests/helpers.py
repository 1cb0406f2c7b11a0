"""What several test files use: a clock they drive, sounds, engines and servers around an agent."""

import asyncio
import contextlib
import gc
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
from websockets.exceptions import ConnectionClosed

from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.serving.engine import Engine
from duplex.serving.http.auth import Access
from duplex.serving.http.listener import bind
from duplex.serving.limits import EngineLimits, ServerLimits
from duplex.serving.native import messages as native
from duplex.serving.server import Serving, address
from tests.tiny_agent import TinyAgent

# One millisecond of patience; a slow machine stretches it: DUPLEX_TEST_MS=5 python -m pytest.
MS = 0.001 * float(os.environ.get("DUPLEX_TEST_MS", "1"))
# Seconds after which a test of servers hangs, whatever else the machine has to do.
PATIENCE_S = 120_000 * MS
QUIET = np.zeros(TICK_SAMPLES, np.float32)


class HandClock:
    """A clock that stands until a test moves it on; the model thread sleeps until then."""

    def __init__(self):
        self._now = 0.0
        self._moved = threading.Condition()

    def now(self) -> float:
        with self._moved:
            return self._now

    def advance(self, seconds: float) -> None:
        with self._moved:
            self._now += seconds
            self._moved.notify_all()

    def wait_until(self, due: float, wake: threading.Event) -> bool:
        with self._moved:
            while self._now < due - 1e-9 and not wake.is_set():
                # The event cannot notify the condition.
                self._moved.wait(2 * MS)
            return self._now >= due - 1e-9


class Failing(TinyAgent):
    """Fails as a whole ("raise"), or gives samples that are no numbers ("nan"), when told to."""

    broken = ""

    def step(self, audio, active, voice=True):
        if self.broken == "raise" and active:
            raise RuntimeError("no more memory")
        played, events = super().step(audio, active)
        if self.broken == "nan":
            played[0, 7] = np.nan
        return played, events

    def open(self, slot, seed, instructions, **options):
        if instructions == "impossible":
            raise ValueError("instructions do not fit")
        super().open(slot, seed, instructions, **options)


def tone(ticks: int, hertz: float = 440.0, level: float = 0.3) -> np.ndarray:
    """float32 [ticks * 1920]"""
    times = np.arange(ticks * TICK_SAMPLES) / SAMPLE_RATE
    return (level * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def write_wave(path: Path, samples: np.ndarray, rate: int = SAMPLE_RATE) -> str:
    """Write a sound file; its name is what a command line wants."""
    soundfile.write(path, samples, rate)
    return str(path)


def start(engine: Engine) -> None:
    """Start an engine whose collection of garbage looks at no object of before.

    All that a run of tests imports would take it 0.3 s, for each engine anew.
    """
    gc.freeze()
    engine.start()


def drive_engine(
    test: Callable[[Engine], Awaitable],
    agent,
    clock,
    limits: EngineLimits | None = None,
    recorder=None,
) -> None:
    """Run an async test with a started engine, which is stopped whatever happens."""

    async def run():
        engine = Engine(agent, agent.slots, clock, limits, recorder)
        start(engine)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await test(engine)
        finally:
            await asyncio.to_thread(engine.stop)

    asyncio.run(run())


def drive_server(
    test: Callable[[str, Engine], Awaitable],
    agent,
    access: Access | None = None,
    limits: ServerLimits | None = None,
    engine_limits: EngineLimits | None = None,
) -> None:
    """Run an async test with the address of a server on a loopback socket, in real time."""
    limits = limits or ServerLimits(grace_s=0)

    async def run():
        engine = Engine(agent, agent.slots, limits=engine_limits)
        start(engine)
        serving = Serving(engine, bind("127.0.0.1", 0), access, limits)
        try:
            async with asyncio.timeout(PATIENCE_S), serving as server:
                await test(address(server), engine)
        finally:
            await asyncio.to_thread(engine.stop)

    asyncio.run(run())


@contextlib.contextmanager
def running_server(agent, access: Access | None = None) -> Iterator[str]:
    """The address of a server on a loopback socket, in real time, in a thread of its own."""
    started = threading.Event()
    served = []

    async def test(url: str, engine) -> None:
        ended = asyncio.Event()
        served.extend([url, asyncio.get_running_loop(), ended])
        started.set()
        await ended.wait()

    thread = threading.Thread(target=drive_server, args=(test, agent, access), name="server")
    thread.start()
    assert started.wait(20)
    url, loop, ended = served
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(20)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    for _ in range(20_000):
        if is_so():
            return
        await asyncio.sleep(MS)
    raise AssertionError("it never came to be so")


async def beat(clock: HandClock, *sessions) -> list[tuple[np.ndarray, list]]:
    """One tick of the clock; what each session gets."""
    clock.advance(TICK_S)
    return [await session.get() for session in sessions]


async def speak(clock: HandClock, session, sound: np.ndarray) -> tuple[np.ndarray, list]:
    """Push the sound tick by tick and collect what comes back."""
    audio, events = [], []
    for tick in sound.reshape(-1, TICK_SAMPLES):
        session.push(tick)
        [(played, told)] = await beat(clock, session)
        audio.append(played)
        events += told
    return np.concatenate(audio), events


def kinds(events: list) -> list[str]:
    return [event.kind for event in events]


async def next_event(connection, kind: str) -> dict:
    """Read on until an event of this type."""
    while True:
        message = native.decode_server(await connection.recv())
        if isinstance(message, dict) and message["type"] == kind:
            return message


async def rest(connection) -> list:
    """Everything up to the end of the connection; events as objects, audio as arrays."""
    return [native.decode_server(message) for message in await rest_raw(connection)]


async def rest_raw(connection) -> list[bytes | str]:
    """The same as it is on the wire."""
    messages = []
    try:
        while True:
            messages.append(await connection.recv())
    except ConnectionClosed:
        return messages
