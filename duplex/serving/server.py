"""The server: each connection is one session of the engine, in the dialect of its path.

    duplex serve --host 127.0.0.1 --port 8765

It knows sockets and messages; what they mean is a dialect's business (see dialect.py), when they
are due the engine's. Plain HTTP on the same port is answered by pages.py.
"""

import asyncio
import contextlib
import http
import json
import logging
import secrets
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from duplex.errors import EngineFull, EngineStopped, ServerError
from duplex.events import AgentInterface, Error
from duplex.serving import capacity, dialect, native, native_dialect, pages
from duplex.serving.auth import Access, offered_keys
from duplex.serving.commands import End, Resume, Start
from duplex.serving.connection import SHUTTING_DOWN, first_commands, hear, refuse, speak
from duplex.serving.dialect import Dialect
from duplex.serving.engine import Engine
from duplex.serving.http_body import BodyConnection
from duplex.serving.limits import EngineLimits, ServerLimits
from duplex.serving.openai import http as openai_http
from duplex.serving.openai.realtime import OpenAIRealtime
from duplex.serving.recorder import Recorder
from duplex.serving.session import ClientSession

log = logging.getLogger(__name__)

LOST = "the connection was lost"


@dataclass(frozen=True)
class ServerConfig:
    """Where to serve, whom, and within which bounds."""

    host: str = "127.0.0.1"
    # 0 takes any port that is free.
    port: int = 8765
    # None: as many as a short test finds that this machine holds.
    max_sessions: int | None = None
    access: Access = field(default_factory=Access)
    engine: EngineLimits = field(default_factory=EngineLimits)
    server: ServerLimits = field(default_factory=ServerLimits)
    # Keeps all conversations, where there is one.
    recorder: Recorder | None = None


def run(load: Callable[[int], AgentInterface], config: ServerConfig) -> None:
    """Serve the agent that `load(slots)` returns until SIGINT or SIGTERM. Raises ServerError."""
    config.access.check(config.host)
    config.access.tls()
    # A busy port is found before the model is loaded.
    listener = bind(config.host, config.port)
    slots = config.max_sessions
    if slots is None:
        agent, slots = capacity.largest(load)
    else:
        agent = load(slots)
    engine = Engine(agent, slots, limits=config.engine, recorder=config.recorder)
    engine.start()
    try:
        asyncio.run(_until_signal(Serving(engine, listener, config.access, config.server)))
    finally:
        engine.stop()
        log.info("stopped; %s", json.dumps(engine.stats()))


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet. Raises ServerError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, number, _, address = found[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise ServerError(
            f"cannot serve on {host} port {port} ({reason}); choose another with --port"
        ) from error
    return listener


def address(server: Server) -> str:
    """The URL at which a server speaks the native dialect."""
    host, port = server.sockets[0].getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"ws://{name}:{port}{native.PATH}"


async def _until_signal(serving: "Serving") -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        _on_signal(loop, number, stop)
    async with serving as server:
        listening = f"listening on {address(server)} ({serving.engine.slots} sessions at most)"
        print(listening, file=sys.stderr, flush=True)
        await stop.wait()
        log.info(SHUTTING_DOWN)


def _on_signal(loop: asyncio.AbstractEventLoop, number: int, stop: asyncio.Event) -> None:
    """Set an event of the loop when a signal comes."""
    try:
        loop.add_signal_handler(number, stop.set)
    except NotImplementedError:
        # Windows' loops have no such handlers.
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))


@dataclass
class LostSession:
    """A session that waits for its client to come back."""

    session: ClientSession
    dialect: native_dialect.Native
    timer: asyncio.TimerHandle


class Serving:
    """Serves on a bound socket: `async with Serving(engine, listener) as server`.

    On the way out it lets sessions finish their turns, limits.grace_s at most, and tells each.
    """

    def __init__(
        self,
        engine: Engine,
        listener: socket.socket,
        access: Access | None = None,
        limits: ServerLimits | None = None,
    ):
        self.engine = engine
        self.listener = listener
        self.access = access or Access()
        self.limits = limits or ServerLimits()
        # By path: sessions so far, and clients that talk now.
        self._opened = Counter(dict.fromkeys(dialect.DIALECTS, 0))
        self._talking = Counter(dict.fromkeys(dialect.DIALECTS, 0))
        # The task of each connection.
        self._tasks: set[asyncio.Task] = set()
        # By the token with which a client may come back.
        self._live: dict[str, tuple[ServerConnection, asyncio.Task]] = {}
        self._lost: dict[str, LostSession] = {}
        self._secrets = openai_http.ClientSecrets(time.time)

    async def __aenter__(self) -> Server:
        self.server = await serve(
            self._handle,
            sock=self.listener,
            ssl=self.access.tls(),
            process_request=self._answer_http,
            create_connection=BodyConnection,
            select_subprotocol=lambda _, offered: dialect.subprotocol(offered),
            max_size=native.MAX_MESSAGE_BYTES,
            max_queue=32,
            ping_interval=self.limits.ping_s,
            ping_timeout=self.limits.ping_s,
            close_timeout=self.limits.farewell_s,
            # PCM hardly shrinks, and a tick must not wait for it.
            compression=None,
        )
        return self.server

    async def __aexit__(self, *_) -> None:
        self.engine.drain(SHUTTING_DOWN, self.limits.grace_s)
        if self._tasks and self.limits.grace_s:
            await asyncio.wait(self._tasks, timeout=self.limits.grace_s)
        for lost in self._lost.values():
            lost.timer.cancel()
        self.engine.close_all(SHUTTING_DOWN)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.limits.farewell_s)
        self.server.close()
        await self.server.wait_closed()

    def stats(self) -> dict:
        """Those of the engine, and what only the server knows."""
        return {
            **self.engine.stats(),
            "paths": {"opened": dict(self._opened), "talking": dict(self._talking)},
            "threads": threading.active_count(),
            "tasks": len(asyncio.all_tasks()),
        }

    def _answer_http(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse a connection, answer with a page, or let the websocket be opened (None)."""
        path, _, query = request.path.partition("?")
        spoken = dialect.find(path, query, self.engine)
        is_websocket = "upgrade" in request.headers.get("Connection", "").lower()
        if spoken is None or not is_websocket and request.method != "GET":
            page = self._page(path, request, connection.body)
            if request.method == "HEAD":
                page.body = b""
            return page
        subprotocols = [
            name.strip()
            for line in request.headers.get_all("Sec-WebSocket-Protocol")
            for name in line.split(",")
        ]
        secret = self._secrets.find(offered_keys(request.headers, subprotocols))
        is_secret = secret is not None and isinstance(spoken, OpenAIRealtime)
        if not (is_secret or self.access.has_valid_key(request.headers, subprotocols)):
            return _text(http.HTTPStatus.UNAUTHORIZED, "the key is missing or wrong")
        if is_secret:
            spoken.preset(secret.session)
        origin = request.headers.get("Origin")
        host = request.headers.get("Host", "")
        if not self.access.is_allowed_origin(origin, host):
            advice = "allow it with --origin %s, or have the proxy pass on its request's Host"
            log.warning(f"a page of %s may not connect to %s; {advice}", origin, host, origin)
            text = "pages of this origin may not connect; the server's log says how to allow it"
            return _text(http.HTTPStatus.FORBIDDEN, text)
        if len(self._tasks) >= self.limits.max_connections:
            return _text(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
        connection.dialect = spoken
        connection.protocol.max_message_size = spoken.max_message_bytes
        return None

    def _page(self, path: str, request: Request, body: bytes) -> Response:
        is_api = openai_http.is_api(path)
        needs_key = is_api or pages.needs_key(path)
        if needs_key and not self.access.has_valid_key(request.headers, []):
            return _text(http.HTTPStatus.UNAUTHORIZED, "the key is missing or wrong")
        if is_api:
            api = openai_http.answer(request.method, path.rstrip("/"), body, self._secrets)
            if api is not None:
                status, fields = api
                return _response(status, "application/json", json.dumps(fields).encode())
        if request.method not in ("GET", "HEAD"):
            return _text(http.HTTPStatus.METHOD_NOT_ALLOWED, "pages are read with GET or HEAD")
        found = pages.answer(path, self.engine.is_accepting, self.stats)
        if found is None:
            return _text(http.HTTPStatus.NOT_FOUND, f"the agent is at {native.PATH}")
        return _response(*found)

    async def _handle(self, connection: ServerConnection) -> None:
        """One connection from its beginning to its end."""
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            await self._talk(connection, connection.dialect)
        except ConnectionClosed:
            pass
        finally:
            self._tasks.discard(task)

    async def _talk(self, connection: ServerConnection, spoken: Dialect) -> None:
        if spoken.opens_at_once:
            commands = [spoken.start]
        else:
            commands = await first_commands(connection, spoken, self.limits)
        if not commands:
            return
        first = commands[0]
        if isinstance(first, End):
            await connection.close(native.CloseCode.ENDED)
            return
        if isinstance(first, Resume):
            await self._resume(connection, spoken, first)
            return
        start = commands.pop(0) if isinstance(first, Start) else Start()
        session = await self._open(connection, spoken, start)
        if session is None:
            return
        answer = spoken.opened(session.id)
        for command in commands:
            session.enqueue_command(command)
        await self._converse(connection, spoken, session, answer)

    async def _resume(self, connection: ServerConnection, spoken: Dialect, command: Resume) -> None:
        """Go on with a session whose connection was lost."""
        if command.token in self._live:
            # The client knows sooner than the server that the old connection is dead.
            old, task = self._live[command.token]
            old.transport.abort()
            await asyncio.wait([task], timeout=self.limits.farewell_s)
        lost = self._lost.pop(command.token, None)
        answer = None
        if lost:
            lost.timer.cancel()
            answer = lost.dialect.resumed(lost.session.id, command.received)
        if not answer:
            if lost:
                lost.session.close(LOST)
            gone = Error("gone", "there is no such session to go on with")
            await refuse(connection, spoken, gone)
            return
        await self._converse(connection, lost.dialect, lost.session, answer)

    async def _open(
        self, connection: ServerConnection, spoken: Dialect, start: Start
    ) -> ClientSession | None:
        """A new session; None, and the client has been told why, where there cannot be one."""
        if spoken.is_resumable:
            spoken.token = secrets.token_urlsafe(24)
        try:
            session = await self.engine.open(start, spoken.early_ticks, spoken.may_be_idle)
        except EngineFull as error:
            refusal = Error("full", f"{error}; try again later")
        except EngineStopped:
            refusal = Error("stopped", SHUTTING_DOWN)
        except ValueError as error:
            refusal = Error("model", f"the session could not be opened: {error}")
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            refusal = Error("model", f"the session could not be opened ({reason})")
        else:
            self._opened[_path(connection)] += 1
            return session
        await refuse(connection, spoken, refusal)
        return None

    async def _converse(
        self, connection: ServerConnection, spoken: Dialect, session: ClientSession, answer: list
    ) -> None:
        """Both directions until the session ends; a lost connection may leave it waiting."""
        path = _path(connection)
        if spoken.is_resumable:
            self._live[spoken.token] = connection, asyncio.current_task()
        self._talking[path] += 1
        speaking = asyncio.create_task(
            speak(connection, spoken, session, answer), name=f"speak {session.id}"
        )
        is_waiting = False
        try:
            is_lost = await hear(connection, spoken, session, self.limits)
            is_over = speaking.done() or session.closing
            if is_lost and spoken.is_resumable and not is_over and self.engine.is_accepting:
                self._wait_for(session, spoken)
                is_waiting = True
        finally:
            self._talking[path] -= 1
            if spoken.is_resumable:
                del self._live[spoken.token]
            speaking.cancel()
            if not is_waiting:
                session.close(LOST)
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await speaking

    def _wait_for(self, session: ClientSession, spoken: native_dialect.Native) -> None:
        """Keep a session for a client that may come back, but not for ever."""

        def give_up() -> None:
            del self._lost[spoken.token]
            session.close(LOST)

        timer = asyncio.get_running_loop().call_later(self.limits.resume_s, give_up)
        self._lost[spoken.token] = LostSession(session, spoken, timer)


def _path(connection: ServerConnection) -> str:
    return connection.request.path.partition("?")[0].rstrip("/")


def _text(status: http.HTTPStatus, sentence: str) -> Response:
    return _response(status, "text/plain", f"{sentence}\n".encode())


def _response(status: http.HTTPStatus, kind: str, body: bytes) -> Response:
    headers = {
        "Content-Type": kind,
        "Content-Length": str(len(body)),
        "Connection": "close",
        **pages.SAFE,
    }
    if status == http.HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(status.value, status.phrase, Headers(headers), body)
