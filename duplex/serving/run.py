"""What `duplex serve` does: bind, load, serve, and stop at a signal."""

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from duplex.agent_interface import AgentInterface
from duplex.serving import capacity
from duplex.serving.connection import SHUTTING_DOWN
from duplex.serving.engine import Engine
from duplex.serving.http.auth import Access, is_loopback
from duplex.serving.http.listener import bind, web_url, websocket_url
from duplex.serving.limits import EngineLimits, ServerLimits
from duplex.serving.server import Serving
from duplex.serving.sound.recorder import Recorder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerConfig:
    """Where to serve, whom, and within which bounds."""

    # An address, or a name of this machine.
    host: str = "localhost"
    # 0 takes any port that is free.
    port: int = 8765
    # None: as many as a short test finds that this machine holds.
    max_sessions: int | None = None
    access: Access = field(default_factory=Access)
    engine: EngineLimits = field(default_factory=EngineLimits)
    server: ServerLimits = field(default_factory=ServerLimits)
    # Numbers of sessions that the test tries, the largest first.
    candidates: tuple[int, ...] = (8, 4, 3, 2)
    # Keeps all conversations, where there is one.
    recorder: Recorder | None = None


def run(load: Callable[[int], AgentInterface], config: ServerConfig) -> None:
    """Serve the agent that `load(slots)` returns until SIGINT or SIGTERM. Raises ServerError."""
    config.access.check(config.host)
    config.access.tls()
    # A busy port is found before the model is loaded.
    listeners = bind(config.host, config.port)
    slots = config.max_sessions
    if slots is None:
        agent, slots = capacity.largest(load, candidates=config.candidates)
    else:
        agent = load(slots)
    engine = Engine(agent, slots, limits=config.engine, recorder=config.recorder)
    engine.start()
    serving = Serving(engine, listeners, config.access, config.server)
    web = web_url(listeners[0], config.host, bool(config.access.certificate))
    try:
        asyncio.run(_serve(serving, _greeting(web, slots, config)))
    finally:
        engine.stop()
        log.info("stopped; %s", json.dumps(engine.stats()))


def _greeting(web: str, slots: int, config: ServerConfig) -> str:
    """What is printed once clients may come."""
    greeting = f"listening on {web}, programs: {websocket_url(web)} ({slots} sessions at most)"
    if not is_loopback(config.host) and not config.access.certificate:
        greeting += (
            "\nbrowsers give the microphone to pages of https alone; "
            "give --tls-cert, or put a proxy with TLS in front"
        )
    return greeting


async def _serve(serving: Serving, greeting: str) -> None:
    stop = on_signal()
    async with serving:
        print(greeting, file=sys.stderr, flush=True)
        await stop.wait()
        log.info(SHUTTING_DOWN)


def on_signal() -> asyncio.Event:
    """What is set once SIGINT or SIGTERM comes to this process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        _on_signal(loop, number, stop)
    return stop


def _on_signal(loop: asyncio.AbstractEventLoop, number: int, stop: asyncio.Event) -> None:
    """Set an event of the loop when a signal comes."""
    try:
        loop.add_signal_handler(number, stop.set)
    except NotImplementedError:
        # Windows' loops have no such handlers.
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
