"""What several tests need: a clock they drive, sounds, and a server on a real loopback socket."""

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from tests.tiny_agent import TinyAgent

# a busy machine is no failure
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


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
                self._moved.wait(0.002)  # the event cannot notify the condition
            return self._now >= due - 1e-9


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def server_url() -> Iterator[str]:
    """A server with one place for a tiny agent, in a thread of its own."""
    from duplex.serving.engine import Engine
    from duplex.serving.server import address, bind, serving

    started, stop, urls = threading.Event(), [], []

    async def run() -> None:
        engine = Engine(TinyAgent(1), 1)
        engine.start()
        ended = asyncio.Event()
        async with serving(engine, bind("127.0.0.1", 0)) as server:
            stop.append((asyncio.get_running_loop(), ended))
            urls.append(address(server))
            started.set()
            await ended.wait()
        await asyncio.to_thread(engine.stop)

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="server")
    thread.start()
    assert started.wait(20)
    yield urls[0]
    loop, ended = stop[0]
    loop.call_soon_threadsafe(ended.set)
    thread.join(20)


def tone(ticks: int, hertz: float = 440.0, level: float = 0.3) -> np.ndarray:
    """float32 [ticks * 1920]"""
    times = np.arange(ticks * TICK_SAMPLES) / SAMPLE_RATE
    return (level * np.sin(2 * np.pi * hertz * times)).astype(np.float32)
