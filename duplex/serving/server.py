"""The server: each connection is one session of the engine, in the dialect of its path.

    duplex serve --host 127.0.0.1 --port 8765

It knows sockets and messages; what they mean is a dialect's business (protocol.py: /v1/duplex, realtime.py: /v1/realtime,
moshi.py: /api/chat), when they are due the engine's. Plain HTTP on the same port is answered by pages.py.
"""

import asyncio
import contextlib
import http
import json
import logging
import secrets
import signal
import socket
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from duplex import voices
from duplex.errors import EngineFull, EngineStopped, ProtocolError, ServerError
from duplex.events import Error
from duplex.serving import auth as security
from duplex.serving import capacity, moshi, pages
from duplex.serving import native as protocol
from duplex.serving import openai_realtime as realtime
from duplex.serving.commands import (
    Answer,
    Audio,
    Clear,
    Configure,
    End,
    Played,
    Resume,
    SpeakAs,
    Start,
    Stop,
    Truncate,
    Write,
)
from duplex.serving.engine import Engine
from duplex.serving.pages import STATS_PATH  # noqa: F401, where it has always been found
from duplex.serving.session import BEHIND_TICKS, Session

log = logging.getLogger(__name__)

FIRST_MESSAGE_S = 10  # a connection that sends nothing for so long holds no place and is closed
RESUME_S = 30  # how long a session waits for a client whose connection was lost
FAREWELL_S = 3  # how long sessions have to hear that the server shuts down
PING_S = 20  # a client that does not answer for so long is gone
MAX_CONNECTIONS = 256  # with or without a session
SHUTTING_DOWN = "the server is shutting down"
LOST = "the connection was lost"
DIALECTS = {protocol.PATH: 0, realtime.PATH: 0, moshi.PATH: 0}
CLOSE_CODES = {
    "full": protocol.CLOSE_FULL,
    "stopped": protocol.CLOSE_GOING_AWAY,
    "model": protocol.CLOSE_FAILED,
}
CLOSE_CODES |= {
    "idle": protocol.CLOSE_ABUSE,
    "gone": protocol.CLOSE_ENDED,
    "refused": protocol.CLOSE_ABUSE,
}


@dataclass(frozen=True)
class Access:
    """Who may come in."""

    api_key: str | None = None
    origins: tuple[str, ...] = ()  # of web pages beside this server's own
    certificate: str | None = None  # PEM files; both or none
    private_key: str | None = None
    open_to_all: bool = False  # serve beyond this machine without a key

    def check(self, host: str) -> None:
        """Raises ServerError: it would be open to everybody by mistake."""
        if not (security.is_loopback(host) or self.api_key or self.open_to_all):
            raise ServerError(
                f"{host} can be reached by others; give --api-key, or --open if everybody may come in"
            )

    def tls(self) -> ssl.SSLContext | None:
        if not self.certificate:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.private_key)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ServerError(
                f"cannot use the certificate {self.certificate} ({reason})"
            ) from error
        return context


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: a busy port is found before the model is loaded."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[
            0
        ]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise ServerError(
            f"cannot serve on {host} port {port} ({reason}); choose another with --port"
        ) from error
    return listener


def run(
    load: Callable[[int], object],
    host: str,
    port: int,
    slots: int | None = None,
    access: Access | None = None,
    grace_s: float = 10.0,
    **limits,
) -> None:
    """Serves the agent that `load(slots)` returns until SIGINT or SIGTERM. slots None: as many as this machine holds;
    grace_s: how long sessions may then finish their turn; limits: idle_s, longest_s and recorder of the engine."""
    access = access or Access()
    access.check(host)
    access.tls()
    listener = bind(host, port)
    agent, slots = capacity.largest(load) if slots is None else (load(slots), slots)
    engine = Engine(agent, slots, **limits)
    engine.start()
    try:
        asyncio.run(_until_signal(engine, listener, access, grace_s))
    finally:
        engine.stop()
        log.info("stopped; %s", json.dumps(engine.stats()))


async def _until_signal(
    engine: Engine, listener: socket.socket, access: Access, grace_s: float
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serving(engine, listener, access, grace_s) as server:
        print(
            f"listening on {address(server)} ({engine.slots} sessions at most)",
            file=sys.stderr,
            flush=True,
        )
        await stop.wait()
        log.info(SHUTTING_DOWN)


def address(server: Server) -> str:
    host, port = server.sockets[0].getsockname()[:2]
    return (
        f"ws://[{host}]:{port}{protocol.PATH}"
        if ":" in host
        else f"ws://{host}:{port}{protocol.PATH}"
    )


def _dialect(path: str, query: str):
    if path == protocol.PATH:
        return protocol.Native()
    if path == realtime.PATH:
        return realtime.Realtime()
    return moshi.Moshi(dict(parse_qsl(query, max_num_fields=50))) if path == moshi.PATH else None


def _path(connection: ServerConnection) -> str:
    return connection.request.path.partition("?")[0]


def _subprotocol(connection: ServerConnection, offered: list[str]) -> str | None:
    """The name of the dialect, if it was offered; never the one that carries the key."""
    return next(
        (name for name in offered if name in (protocol.SUBPROTOCOL, realtime.SUBPROTOCOL)), None
    )


class serving:  # noqa: N801, used like a function: `async with serving(engine, socket) as server`
    """Serves on a bound socket; on the way out lets the sessions finish their turns, `grace_s` at most, and tells each."""

    def __init__(
        self,
        engine: Engine,
        listener: socket.socket,
        access: Access | None = None,
        grace_s: float = 0.0,
    ):
        self.engine = engine
        self.listener = listener
        self.access = access or Access()
        self.grace_s = grace_s
        self.connections = 0
        self.opened, self.busy = (
            Counter(DIALECTS),
            Counter(DIALECTS),
        )  # by path: sessions so far, clients that talk now
        self.talking: set[asyncio.Task] = set()
        self.live: dict[str, tuple[ServerConnection, asyncio.Task]] = {}  # by token
        self.lost: dict[str, tuple[Session, protocol.Native, asyncio.TimerHandle]] = {}  # by token

    async def __aenter__(self) -> Server:
        self.server = await serve(
            self._handle,
            sock=self.listener,
            ssl=self.access.tls(),
            process_request=self._answer_http,
            select_subprotocol=_subprotocol,
            max_size=protocol.MAX_MESSAGE_BYTES,
            max_queue=32,
            ping_interval=PING_S,
            ping_timeout=PING_S,
            close_timeout=FAREWELL_S,
            compression=None,  # PCM hardly shrinks, and a tick must not wait for it
        )
        return self.server

    async def __aexit__(self, *_) -> None:
        self.engine.drain(SHUTTING_DOWN, self.grace_s)
        if self.talking and self.grace_s:
            await asyncio.wait(self.talking, timeout=self.grace_s)
        for _, _, timer in self.lost.values():
            timer.cancel()
        self.engine.close_all(SHUTTING_DOWN)
        if self.talking:
            await asyncio.wait(self.talking, timeout=FAREWELL_S)
        self.server.close()
        await self.server.wait_closed()

    def stats(self) -> dict:
        """Those of the engine, and what only the server knows."""
        paths = {"opened": dict(self.opened), "talking": dict(self.busy)}
        return {
            **self.engine.stats(),
            "paths": paths,
            "threads": threading.active_count(),
            "tasks": len(asyncio.all_tasks()),
        }

    def _answer_http(self, connection: ServerConnection, request: Request) -> Response | None:
        path, _, query = request.path.partition("?")
        dialect = _dialect(path, query)
        if dialect is None:
            return self._page(path, request)
        subprotocols = [
            name.strip()
            for line in request.headers.get_all("Sec-WebSocket-Protocol")
            for name in line.split(",")
        ]
        if not security.knows_key(self.access.api_key, request.headers, subprotocols):
            return _response(
                http.HTTPStatus.UNAUTHORIZED, "text/plain", b"the key is missing or wrong\n"
            )
        origin, host = request.headers.get("Origin"), request.headers.get("Host", "")
        if not security.may_connect(origin, host, self.access.origins, bool(self.access.api_key)):
            return _response(
                http.HTTPStatus.FORBIDDEN, "text/plain", b"pages of this origin may not connect\n"
            )
        if self.connections >= MAX_CONNECTIONS:
            return _response(
                http.HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"too many connections\n"
            )
        connection.dialect = dialect
        return None

    def _page(self, path: str, request: Request) -> Response:
        if path in pages.PRIVATE and not security.knows_key(
            self.access.api_key, request.headers, []
        ):
            return _response(
                http.HTTPStatus.UNAUTHORIZED, "text/plain", b"the key is missing or wrong\n"
            )
        found = pages.answer(path, self.engine.accepting, self.stats)
        if found is None:
            return _response(
                http.HTTPStatus.NOT_FOUND,
                "text/plain",
                f"the agent is at {protocol.PATH}\n".encode(),
            )
        return _response(*found)

    async def _handle(self, connection: ServerConnection) -> None:
        self.connections += 1
        task = asyncio.current_task()
        self.talking.add(task)
        try:
            await self._talk(connection, connection.dialect)
        except ConnectionClosed:
            pass
        finally:
            self.talking.discard(task)
            self.connections -= 1

    async def _talk(self, connection: ServerConnection, dialect) -> None:
        first = (
            [dialect.start] if dialect.opens_at_once else await _first_commands(connection, dialect)
        )
        if not first:
            return
        if isinstance(first[0], End):
            await connection.close(protocol.CLOSE_ENDED)
            return
        if isinstance(first[0], Resume):
            if (
                first[0].token in self.live
            ):  # the client knows sooner than the server that the old connection is dead
                old, task = self.live[first[0].token]
                old.transport.abort()
                await asyncio.wait([task], timeout=FAREWELL_S)
            found = self.lost.pop(first[0].token, None)
            answer = found and found[1].resumed(found[0].id, first[0].received)
            if not answer:
                await _refuse(
                    connection, dialect, Error("gone", "there is no such session to go on with")
                )
                return
            session, dialect, timer = found
            timer.cancel()
            first = []
        else:
            start = first.pop(0) if isinstance(first[0], Start) else Start()
            session = await self._open(connection, dialect, start)
            if session is None:
                return
            answer = dialect.opened(session.id)
        for command in first:
            carry_out(session, command)
        await self._converse(connection, dialect, session, answer)

    async def _open(self, connection: ServerConnection, dialect, start: Start) -> Session | None:
        if dialect.resumable:
            dialect.token = secrets.token_urlsafe(24)
        early_ticks = (
            realtime.EARLY_TICKS if isinstance(dialect, realtime.Realtime) else BEHIND_TICKS
        )
        try:
            session = await self.engine.open(
                start.seed, start.instructions, start.temperature, early_ticks
            )
            if start.voice or start.speed:
                session.wish("set_voice", start.voice or voices.DEFAULT, start.speed or 1.0)
            self.opened[_path(connection)] += 1
            return session
        except EngineFull as error:
            await _refuse(connection, dialect, Error("full", f"{error}; try again later"))
        except EngineStopped:
            await _refuse(connection, dialect, Error("stopped", SHUTTING_DOWN))
        except ValueError as error:
            await _refuse(
                connection, dialect, Error("model", f"the session could not be opened: {error}")
            )
        except Exception as error:
            text = f"the session could not be opened ({type(error).__name__}: {error})"
            await _refuse(connection, dialect, Error("model", text))
        return None

    async def _converse(
        self, connection: ServerConnection, dialect, session: Session, answer: list
    ) -> None:
        """Both directions until the session ends; a lost connection leaves a resumable session waiting."""
        if dialect.resumable:
            self.live[dialect.token] = connection, asyncio.current_task()
        self.busy[_path(connection)] += 1
        speaking = asyncio.create_task(
            _speak(connection, dialect, session, answer), name=f"speak {session.id}"
        )
        try:
            lost = await _hear(connection, dialect, session)
            over = speaking.done() or session.closing
            if lost and dialect.resumable and not over and self.engine.accepting:
                timer = asyncio.get_running_loop().call_later(
                    RESUME_S, self._give_up, dialect.token
                )
                self.lost[dialect.token] = session, dialect, timer
                session = None
        finally:
            self.busy[_path(connection)] -= 1
            if dialect.resumable:
                del self.live[dialect.token]
            speaking.cancel()
            if session is not None:
                session.close(LOST)
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await speaking

    def _give_up(self, token: str) -> None:
        session, _, _ = self.lost.pop(token)
        session.close(LOST)


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


async def _first_commands(connection: ServerConnection, dialect) -> list:
    """Those of the first message that means something; none when there is none, and the connection is closed."""
    try:
        async with asyncio.timeout(FIRST_MESSAGE_S):
            for _ in range(protocol.MAX_BAD_MESSAGES):
                try:
                    return dialect.receive(await connection.recv())[0]
                except ProtocolError as error:
                    await _send(connection, dialect.refused(Error("bad_message", str(error))))
    except TimeoutError:
        error = Error(
            "idle", f"nothing came within {FIRST_MESSAGE_S} s, neither session.start nor audio"
        )
        await _refuse(connection, dialect, error)
        return []
    await connection.close(protocol.CLOSE_ABUSE, "too many bad messages")
    return []


async def _refuse(connection: ServerConnection, dialect, error: Error) -> None:
    await _send(connection, dialect.refused(error))
    await connection.close(CLOSE_CODES[error.code], error.text[:100])


async def _send(connection: ServerConnection, messages: list) -> None:
    for message in messages:
        await connection.send(message)


def carry_out(session: Session, command) -> bool:
    """What the client wants, into the session; False: it asks for too much at once."""
    match command:
        case Audio(samples):
            session.push(samples)
        case Clear():
            session.clear()
        case Configure(instructions):
            return session.wish("instruct", instructions)
        case SpeakAs(voice, speed):
            return session.wish("set_voice", voice, speed)
        case Write(role, text):
            return session.wish("write", role, text)
        case Stop():
            return session.wish("stop")
        case Answer():
            return session.wish("answer")
        case Played(ms):
            return session.wish("set_playback_position", ms)
        case Truncate(ms):
            return session.wish("truncate", ms)
        case End():
            session.close()
    return True


async def _hear(connection: ServerConnection, dialect, session: Session) -> bool:
    """Client messages into the session, until the connection closes -> whether it was lost rather than closed."""
    bad, loop = 0, asyncio.get_running_loop()
    allowance = security.Allowance(loop.time())
    while True:
        try:
            message = await connection.recv()
            if not allowance.take(len(message), loop.time()):
                session.close("too much was sent")
                await connection.close(protocol.CLOSE_ABUSE, "too much is sent in too short a time")
                return False
            try:
                commands, replies = dialect.receive(message)
                for command in commands:
                    if not carry_out(session, command):
                        raise ProtocolError(
                            "too much is asked for at once; this message is ignored"
                        )
            except ProtocolError as error:
                bad += 1
                replies = dialect.refused(Error("bad_message", str(error)))
            await _send(connection, replies)
            if bad >= protocol.MAX_BAD_MESSAGES:
                session.close("too many bad messages")
                await connection.close(protocol.CLOSE_ABUSE, "too many bad messages")
                return False
        except ConnectionClosed:
            return connection.close_code not in (protocol.CLOSE_ENDED, protocol.CLOSE_GOING_AWAY)


async def _speak(connection: ServerConnection, dialect, session: Session, answer: list) -> None:
    """The session's ticks to the client, until the session ends; then the connection is closed."""
    code = protocol.CLOSE_ENDED
    await _send(connection, answer)
    while (tick := await session.get()) is not None:
        for event in tick[1]:
            if event.kind == "error" and event.code == "model":
                code = protocol.CLOSE_FAILED
            elif event.kind == "session.ended" and event.text in (
                SHUTTING_DOWN,
                "the engine has stopped",
            ):
                code = protocol.CLOSE_GOING_AWAY
        await _send(connection, dialect.tick(*tick))
    await connection.close(code)
