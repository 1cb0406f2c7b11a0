"""Fixtures: a clock that a test drives, and a server on a real loopback socket."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers import HandClock, drive_server
from tests.tiny_agent import TinyAgent

# A busy machine is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def server_url() -> Iterator[str]:
    """A server with one place for a tiny agent, in a thread of its own."""
    started = threading.Event()
    served = []

    async def test(url: str, engine) -> None:
        ended = asyncio.Event()
        served.extend([url, asyncio.get_running_loop(), ended])
        started.set()
        await ended.wait()

    thread = threading.Thread(target=drive_server, args=(test, TinyAgent(1)), name="server")
    thread.start()
    assert started.wait(20)
    url, loop, ended = served
    yield url
    loop.call_soon_threadsafe(ended.set)
    thread.join(20)
