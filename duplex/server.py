"""The websocket server: each connection is one session of the engine, in the dialect of protocol.py.

    duplex serve --host 127.0.0.1 --port 8765

It knows sockets and messages; what they mean is the protocol's business, when they are due the engine's.
`GET /v1/stats` on the same port answers with the engine's counts and tick times as JSON.
"""

import asyncio
import http
import json
import logging
import signal
import socket
import sys
from collections.abc import Callable

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from duplex import protocol
from duplex.engine import Engine, EngineFull, EngineStopped
from duplex.events import Error
from duplex.session import Session

log = logging.getLogger(__name__)

STATS_PATH = "/v1/stats"
FIRST_MESSAGE_S = 10  # a connection that sends nothing for so long holds no place and is closed
FAREWELL_S = 3  # how long sessions have to hear that the server shuts down
SHUTTING_DOWN = "the server is shutting down"


class ServerError(Exception):
    """One sentence: why the server cannot serve."""


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: a busy port is found before the model is loaded."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise ServerError(f"cannot serve on {host} port {port} ({reason}); choose another with --port") from error
    return listener


def run(load: Callable[[], object], host: str, port: int, slots: int) -> None:
    """Serves the agent that `load` returns until SIGINT or SIGTERM."""
    listener = bind(host, port)
    engine = Engine(load(), slots)
    engine.start()
    try:
        asyncio.run(_until_signal(engine, listener))
    finally:
        engine.stop()
        log.info("stopped; %s", json.dumps(engine.stats()))


async def _until_signal(engine: Engine, listener: socket.socket) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serving(engine, listener) as server:
        print(f"listening on {address(server)}", file=sys.stderr, flush=True)
        await stop.wait()
        log.info(SHUTTING_DOWN)


def address(server: Server) -> str:
    host, port = server.sockets[0].getsockname()[:2]
    return f"ws://[{host}]:{port}{protocol.PATH}" if ":" in host else f"ws://{host}:{port}{protocol.PATH}"


class serving:  # noqa: N801, used like a function: `async with serving(engine, socket) as server`
    """Serves on a bound socket; on the way out tells each session before its connection is closed."""

    def __init__(self, engine: Engine, listener: socket.socket):
        self.engine = engine
        self.listener = listener
        self.talking: set[asyncio.Task] = set()

    async def __aenter__(self) -> Server:
        self.server = await serve(
            self._handle,
            sock=self.listener,
            process_request=self._answer_http,
            max_size=protocol.MAX_MESSAGE_BYTES,
            max_queue=32,
            compression=None,  # PCM hardly shrinks, and a tick must not wait for it
        )
        return self.server

    async def __aexit__(self, *_) -> None:
        self.engine.close_all(SHUTTING_DOWN)
        if self.talking:
            await asyncio.wait(self.talking, timeout=FAREWELL_S)
        self.server.close()
        await self.server.wait_closed()

    def _answer_http(self, connection: ServerConnection, request):
        path = request.path.partition("?")[0]
        if path == STATS_PATH:
            response = connection.respond(http.HTTPStatus.OK, json.dumps(self.engine.stats()) + "\n")
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = "application/json"
            return response
        if path != protocol.PATH:
            return connection.respond(http.HTTPStatus.NOT_FOUND, f"the agent is at {protocol.PATH}\n")
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        try:
            async with asyncio.timeout(FIRST_MESSAGE_S):
                first = await _first_message(connection)
        except TimeoutError:
            error = Error("idle", f"nothing came within {FIRST_MESSAGE_S} s, neither session.start nor audio")
            await _refuse(connection, error, protocol.CLOSE_ABUSE)
            return
        except ConnectionClosed:
            return
        if first is not None:
            task = asyncio.current_task()
            self.talking.add(task)
            try:
                await _talk(self.engine, connection, first)
            finally:
                self.talking.discard(task)


async def _first_message(connection: ServerConnection) -> protocol.Audio | protocol.Start | protocol.End | None:
    """The first message that means something; None after too many that do not."""
    for _ in range(protocol.MAX_BAD_MESSAGES):
        try:
            return protocol.decode_client(await connection.recv())
        except protocol.ProtocolError as error:
            await connection.send(protocol.encode_event(Error("bad_message", str(error))))
    await connection.close(protocol.CLOSE_ABUSE, "too many bad messages")
    return None


async def _refuse(connection: ServerConnection, error: Error, code: int) -> None:
    try:
        await connection.send(protocol.encode_event(error))
        await connection.close(code, error.text[:100])
    except ConnectionClosed:
        pass


async def _talk(engine: Engine, connection: ServerConnection, first) -> None:
    if isinstance(first, protocol.End):
        await connection.close(protocol.CLOSE_ENDED)
        return
    options = first if isinstance(first, protocol.Start) else protocol.Start()
    try:
        session = await engine.open(seed=options.seed, instructions=options.instructions)
    except EngineFull as error:
        await _refuse(connection, Error("full", f"{error}; try again later"), protocol.CLOSE_FULL)
        return
    except EngineStopped:
        await _refuse(connection, Error("stopped", SHUTTING_DOWN), protocol.CLOSE_GOING_AWAY)
        return
    except Exception as error:
        text = f"the session could not be opened ({type(error).__name__}: {error})"
        await _refuse(connection, Error("model", text), protocol.CLOSE_FAILED)
        return
    if isinstance(first, protocol.Audio):
        session.push(first.samples)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_hear(connection, session), name=f"hear {session.id}")
            tasks.create_task(_speak(connection, session), name=f"speak {session.id}")
    finally:
        session.close("the connection was lost")


async def _hear(connection: ServerConnection, session: Session) -> None:
    """Client messages into the session, until the connection closes."""
    bad = 0
    try:
        async for message in connection:
            try:
                match protocol.decode_client(message):
                    case protocol.Audio(samples):
                        session.push(samples)
                    case protocol.End():
                        session.close()
                    case protocol.Start():
                        raise protocol.ProtocolError("session.start comes once, before everything else")
            except protocol.ProtocolError as error:
                bad += 1
                await connection.send(protocol.encode_event(Error("bad_message", str(error))))
                if bad >= protocol.MAX_BAD_MESSAGES:
                    await connection.close(protocol.CLOSE_ABUSE, "too many bad messages")
    except ConnectionClosed:
        pass
    finally:
        session.close("the connection was lost")


async def _speak(connection: ServerConnection, session: Session) -> None:
    """The session's ticks to the client, until the session ends; then the connection is closed."""
    code = protocol.CLOSE_ENDED
    try:
        await connection.send(protocol.encode_object(protocol.created(session.id)))
        while (tick := await session.get()) is not None:
            audio, events = tick
            if len(audio):
                await connection.send(protocol.encode_audio(audio))
            for event in events:
                if event.kind == "error":
                    code = protocol.CLOSE_FAILED
                elif event.kind == "session.ended" and event.text in (SHUTTING_DOWN, "the engine has stopped"):
                    code = protocol.CLOSE_GOING_AWAY
                await connection.send(protocol.encode_event(event))
        await connection.close(code)
    except ConnectionClosed:
        pass
