"""The server as an ASGI application: for engines that bring their own HTTP, Ray Serve among them.

What `duplex serve` answers on its own sockets it answers here too, by the same rules: all dialects,
pages, keys, figures. Only draining always needs the key: who asks is not known behind a proxy.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close
from websockets.http11 import Request, Response

from duplex.serving import dialect
from duplex.serving.dialect import Dialect
from duplex.serving.http.http_body import BodyConnection
from duplex.serving.server import Serving

Receive = Callable[[], Awaitable[dict]]
Send = Callable[[dict], Awaitable[None]]
# How a websocket closes that was cut, and one whose message is too large.
CUT = 1006
TOO_BIG = 1009


class AsgiConnection:
    """One request, or one websocket: what of websockets' ServerConnection a server here uses."""

    max_body_bytes = BodyConnection.max_body_bytes

    def __init__(self, scope: dict, receive: Receive, send: Send, max_queue: int = 32):
        """max_queue: messages of the client that are read ahead."""
        self.body = b""
        self.fault: HTTPStatus | None = None
        self.dialect: Dialect | None = None
        self.path = ""
        self.remote_address = None
        self.close_code: int | None = None
        # The library keeps these elsewhere.
        self.transport = self
        self.max_message_size = 0
        self.method = scope.get("method", "GET")
        self.request = _request(scope)
        self._receive = receive
        self._send = send
        self._messages: asyncio.Queue[bytes | str | None] = asyncio.Queue(max_queue)
        self._closed = asyncio.Event()

    def allow_messages(self, size: int) -> None:
        """Messages may have so many bytes."""
        self.max_message_size = size

    async def read_body(self) -> None:
        """A request's body, if it is not too large."""
        more = True
        while more and not self.fault:
            message = await self._receive()
            self.body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(self.body) > self.max_body_bytes:
                self.fault = HTTPStatus.REQUEST_ENTITY_TOO_LARGE

    async def pump(self) -> None:
        """Read the client's messages until it has gone."""
        while (message := await self._receive())["type"] != "websocket.disconnect":
            data = message.get("text")
            data = message.get("bytes") if data is None else data
            if data is None:
                continue
            if len(data) > self.max_message_size:
                await self.close(TOO_BIG, "the message is too large")
                return
            await self._messages.put(data)
        self._end(message.get("code") or CUT)

    async def recv(self) -> bytes | str:
        """The next message. Raises ConnectionClosed."""
        getting = asyncio.ensure_future(self._messages.get())
        closing = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait([getting, closing], return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                return getting.result()
            raise self._gone()
        finally:
            getting.cancel()
            closing.cancel()

    async def send(self, message: bytes | str) -> None:
        """Raises ConnectionClosed."""
        if self._closed.is_set():
            raise self._gone()
        kind = "text" if isinstance(message, str) else "bytes"
        try:
            await self._send({"type": "websocket.send", kind: message})
        except (OSError, RuntimeError) as error:
            # As the servers of ASGI say that the client has gone.
            self._end(CUT)
            raise self._gone() from error

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close, once."""
        if not self._closed.is_set():
            self._end(code)
            with contextlib.suppress(OSError, RuntimeError):
                await self._send({"type": "websocket.close", "code": code, "reason": reason})

    def abort(self) -> None:
        """As if the cable were pulled."""
        self._end(CUT)

    def _end(self, code: int) -> None:
        self.close_code = self.close_code or code
        self._closed.set()

    def _gone(self) -> ConnectionClosedError:
        return ConnectionClosedError(Close(self.close_code or CUT, ""), None)


def _request(scope: dict) -> Request:
    """The request as the gate reads it."""
    headers = Headers()
    for name, value in scope["headers"]:
        headers[name.decode("latin-1").title()] = value.decode("latin-1")
    if scope["type"] == "websocket" and "Upgrade" not in headers:
        headers["Upgrade"] = "websocket"
        headers["Connection"] = "Upgrade"
    path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
    query = scope.get("query_string", b"").decode("latin-1")
    return Request(f"{path}?{query}" if query else path, headers)


def application(serving: Serving) -> Callable[[dict, Receive, Send], Awaitable[None]]:
    """The ASGI application of a server whose engine runs."""

    async def application(scope: dict, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        connection = AsgiConnection(scope, receive, send)
        if scope["type"] == "http":
            await connection.read_body()
            found = serving.gate.answer(connection, connection.request)
            await _answer(send, "http.response", found)
            return
        await receive()  # websocket.connect
        refusal = serving.gate.answer(connection, connection.request)
        if refusal is not None:
            await _refuse(scope, send, refusal)
            return
        name = dialect.subprotocol(scope.get("subprotocols") or [])
        await send({"type": "websocket.accept", "subprotocol": name})
        pumping = asyncio.create_task(connection.pump())
        try:
            await serving.handle(connection)
        finally:
            pumping.cancel()
            await connection.close()

    return application


async def _refuse(scope: dict, send: Send, refusal: Response) -> None:
    """Why no websocket opens; not every server can say it."""
    if "websocket.http.response" in scope.get("extensions", {}):
        await _answer(send, "websocket.http.response", refusal)
    else:
        sentence = refusal.body.decode(errors="ignore").strip()
        await send({"type": "websocket.close", "code": 1008, "reason": sentence[:100]})


async def _answer(send: Send, kind: str, found: Response) -> None:
    kept = [(n, v) for n, v in found.headers.raw_items() if n != "Connection"]
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in kept]
    await send({"type": f"{kind}.start", "status": found.status_code, "headers": headers})
    await send({"type": f"{kind}.body", "body": found.body})
