"""The server: each connection is one session of the engine, in the dialect of its path.

    duplex serve --port 8765

It knows sockets and messages; what they mean is a dialect's business (see dialect.py), when they
are due the engine's. What a request is answered before its websocket opens is in handshake.py.
"""

import asyncio
import contextlib
import secrets
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass

from websockets.asyncio.server import Server, serve
from websockets.exceptions import ConnectionClosed

from duplex.errors import EngineFull, EngineStopped
from duplex.events import Error
from duplex.serving import dialect
from duplex.serving.commands import End, Resume, Start
from duplex.serving.connection import SHUTTING_DOWN, first_commands, hear, refuse, speak
from duplex.serving.dialect import Dialect
from duplex.serving.engine import Engine
from duplex.serving.http.auth import Access
from duplex.serving.http.handshake import Gate
from duplex.serving.http.http_body import BodyConnection
from duplex.serving.http.listener import web_url, websocket_url
from duplex.serving.limits import ClientTerms, ServerLimits
from duplex.serving.native import dialect as native_dialect
from duplex.serving.native import messages as native
from duplex.serving.openai.http import ClientSecrets
from duplex.serving.session import ClientSession

LOST = "the connection was lost"


def address(server: Server) -> str:
    """The URL at which a server without TLS speaks the native dialect."""
    return websocket_url(web_url(server.sockets[0], "", False))


@dataclass
class LostSession:
    """A session that waits for its client to come back."""

    session: ClientSession
    dialect: native_dialect.Native
    timer: asyncio.TimerHandle


class Serving:
    """Serves on bound sockets: `async with Serving(engine, listeners) as server`, the first's.

    On the way out it lets sessions finish their turns, limits.grace_s at most, and tells each.
    """

    def __init__(
        self,
        engine: Engine,
        listeners: list[socket.socket],
        access: Access | None = None,
        limits: ServerLimits | None = None,
    ):
        self.engine = engine
        self.listeners = listeners
        self.servers: list[Server] = []
        self.access = access or Access()
        self.limits = limits or ServerLimits()
        # By path: sessions so far, and clients that talk now.
        self._opened = Counter(dict.fromkeys(dialect.DIALECTS, 0))
        self._talking = Counter(dict.fromkeys(dialect.DIALECTS, 0))
        # The task of each connection.
        self._tasks: set[asyncio.Task] = set()
        # By the token with which a client may come back.
        self._live: dict[str, tuple[BodyConnection, asyncio.Task]] = {}
        self._lost: dict[str, LostSession] = {}
        self.gate = Gate(
            engine,
            self.access,
            self.limits,
            ClientSecrets(time.time),
            self.stats,
            lambda: len(self._tasks),
        )

    async def __aenter__(self) -> Server:
        self.servers = [await self._serve(listener) for listener in self.listeners]
        return self.servers[0]

    async def _serve(self, listener: socket.socket) -> Server:
        return await serve(
            self.handle,
            sock=listener,
            ssl=self.access.tls(),
            process_request=self.gate.answer,
            create_connection=BodyConnection,
            select_subprotocol=lambda _, offered: dialect.subprotocol(offered),
            max_size=ClientTerms.max_message_bytes,
            max_queue=32,
            ping_interval=self.limits.ping_s,
            ping_timeout=self.limits.ping_s,
            close_timeout=self.limits.farewell_s,
            # PCM hardly shrinks, and a tick must not wait for it.
            compression=None,
        )

    async def __aexit__(self, *_) -> None:
        await self.close()

    async def close(self) -> None:
        """End all sessions as on the way out."""
        self.engine.drain(SHUTTING_DOWN, self.limits.grace_s)
        if self._tasks and self.limits.grace_s:
            await asyncio.wait(self._tasks, timeout=self.limits.grace_s)
        for lost in self._lost.values():
            lost.timer.cancel()
        self.engine.close_all(SHUTTING_DOWN)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.limits.farewell_s)
        for server in self.servers:
            server.close()
        for server in self.servers:
            await server.wait_closed()

    def stats(self) -> dict:
        """Those of the engine, and what only the server knows."""
        return {
            **self.engine.stats(),
            "paths": {"opened": dict(self._opened), "talking": dict(self._talking)},
            "threads": threading.active_count(),
            "tasks": len(asyncio.all_tasks()),
        }

    async def handle(self, connection: BodyConnection) -> None:
        """One connection from its beginning to its end, once the gate has let it in."""
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            await self._talk(connection, connection.dialect)
        except ConnectionClosed:
            pass
        finally:
            self._tasks.discard(task)

    async def _talk(self, connection: BodyConnection, spoken: Dialect) -> None:
        if spoken.start:
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

    async def _resume(self, connection: BodyConnection, spoken: Dialect, command: Resume) -> None:
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
                lost.session.close(LOST, "lost")
            gone = Error("gone", "there is no such session to go on with")
            await refuse(connection, spoken, gone)
            return
        await self._converse(connection, lost.dialect, lost.session, answer)

    async def _open(
        self, connection: BodyConnection, spoken: Dialect, start: Start
    ) -> ClientSession | None:
        """A new session; None, and the client has been told why, where there cannot be one."""
        if spoken.terms.is_resumable:
            spoken.token = secrets.token_urlsafe(24)
        try:
            session = await self.engine.open(
                start, spoken.terms.early_ticks, spoken.terms.may_be_idle
            )
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
            self._opened[connection.path] += 1
            return session
        await refuse(connection, spoken, refusal)
        return None

    async def _converse(
        self, connection: BodyConnection, spoken: Dialect, session: ClientSession, answer: list
    ) -> None:
        """Both directions until the session ends; a lost connection may leave it waiting."""
        path = connection.path
        if spoken.terms.is_resumable:
            self._live[spoken.token] = connection, asyncio.current_task()
        self._talking[path] += 1
        speaking = asyncio.create_task(
            speak(connection, spoken, session, answer), name=f"speak {session.id}"
        )
        is_waiting = False
        is_lost = True
        try:
            is_lost = await hear(connection, spoken, session, self.limits)
            is_over = speaking.done() or session.closing
            if is_lost and spoken.terms.is_resumable and not is_over and self.engine.is_accepting:
                self._wait_for(session, spoken)
                is_waiting = True
        finally:
            self._talking[path] -= 1
            if spoken.terms.is_resumable:
                del self._live[spoken.token]
            speaking.cancel()
            if not is_waiting:
                session.close(LOST, "lost" if is_lost else "client")
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await speaking

    def _wait_for(self, session: ClientSession, spoken: native_dialect.Native) -> None:
        """Keep a session for a client that may come back, but not for ever."""

        def give_up() -> None:
            del self._lost[spoken.token]
            session.close(LOST, "lost")

        timer = asyncio.get_running_loop().call_later(self.limits.resume_s, give_up)
        self._lost[spoken.token] = LostSession(session, spoken, timer)
