"""What a request is answered before a websocket opens: a page, a refusal, or nothing: it opens."""

import http
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from duplex.serving import dialect
from duplex.serving.dialect import Dialect
from duplex.serving.engine import Engine
from duplex.serving.http import operation, pages
from duplex.serving.http.auth import Access, is_loopback, offered_keys
from duplex.serving.http.http_body import BodyConnection
from duplex.serving.limits import ServerLimits
from duplex.serving.openai import beta
from duplex.serving.openai import http as openai_http
from duplex.serving.openai.realtime import OpenAIRealtime

log = logging.getLogger(__name__)

NO_KEY = "the key is missing or wrong"
# What proxies forget most. The lines are nginx's; others have their own words for them.
UPGRADE_LINES = (
    "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    'proxy_set_header Connection "upgrade";'
)
HOST_LINE = "proxy_set_header Host $http_host;"


@dataclass
class Gate:
    """All that a request is judged by."""

    engine: Engine
    access: Access
    limits: ServerLimits
    secrets: openai_http.ClientSecrets
    # The server's figures, and how many connections there are now.
    stats: Callable[[], dict]
    connections: Callable[[], int]

    def answer(self, connection: BodyConnection, request: Request) -> Response | None:
        """The answer; None lets the websocket open, in `connection.dialect`."""
        if connection.fault:
            sentence = f"a body has a Content-Length, {connection.max_body_bytes} bytes at most"
            return text_response(connection.fault, sentence)
        full_path, _, query = request.path.partition("?")
        path, path_key = dialect.split_key(full_path)
        spoken = dialect.find(path, query, self.engine)
        if spoken is None:
            found = self._page(path, connection, request)
        elif connection.method != "GET" or not _is_websocket(request):
            found = self._explain(path, request)
        else:
            found = self._refusal(spoken, request, path_key)
            connection.dialect = spoken
            connection.path = path.rstrip("/")
            connection.allow_messages(spoken.terms.max_message_bytes)
        if found and connection.method == "HEAD":
            found.body = b""
        return found

    def _refusal(self, spoken: Dialect, request: Request, path_key: str) -> Response | None:
        """Why a websocket may not open, if it may not."""
        subprotocols = [
            name.strip()
            for line in request.headers.get_all("Sec-WebSocket-Protocol")
            for name in line.split(",")
        ]
        offered = [*offered_keys(request.headers, subprotocols), path_key]
        secret = self.secrets.find(offered)
        is_secret = secret is not None and isinstance(spoken, OpenAIRealtime)
        if not (is_secret or self.access.is_valid(offered)):
            return text_response(http.HTTPStatus.UNAUTHORIZED, NO_KEY)
        if is_secret:
            spoken.preset(secret.session)
        if isinstance(spoken, OpenAIRealtime):
            wanted = request.headers.get("OpenAI-Beta", "")
            spoken.is_beta = beta.is_asked_for(wanted, subprotocols)
        if sentence := self._foreign(request):
            return text_response(http.HTTPStatus.FORBIDDEN, sentence)
        if self.connections() >= self.limits.max_connections:
            return text_response(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
        return None

    def _foreign(self, request: Request) -> str:
        """Why the page that asks may not, told in the log too; empty where it may."""
        origin = request.headers.get("Origin")
        host = request.headers.get("Host", "")
        forwarded = request.headers.get("X-Forwarded-Host", "").partition(",")[0].strip()
        if any(self.access.is_allowed_origin(origin, name) for name in (host, forwarded)):
            return ""
        advice = (
            f"allow it with --origin {origin}, or have the proxy before the server pass on "
            f"its request's Host (nginx: {HOST_LINE})"
        )
        log.warning("a page of %s may not connect to %s; %s", origin, host, advice)
        return f"pages of {origin} may not connect to {host}; {advice}"

    def _explain(self, path: str, request: Request) -> Response:
        """Why no websocket opens here: for who looks, and for a page whose handshake failed."""
        is_stripped = "Sec-WebSocket-Key" in request.headers or _is_closed_by_proxy(request)
        sentence = f"{path} is a websocket; open it with a client of its dialect"
        if is_stripped:
            sentence = (
                f"{path} is a websocket, and this request lacks its Upgrade headers; "
                f"have the proxy before the server pass them on (nginx: {UPGRADE_LINES})"
            )
        if "Sec-WebSocket-Key" in request.headers:
            log.warning("%s", sentence)
        if foreign := self._foreign(request):
            sentence = f"{foreign}; {sentence}" if is_stripped else foreign
            return text_response(http.HTTPStatus.FORBIDDEN, sentence)
        return text_response(http.HTTPStatus.UPGRADE_REQUIRED, sentence)

    def _page(self, path: str, connection: BodyConnection, request: Request) -> Response:
        has_key = self.access.is_valid(offered_keys(request.headers, []))
        plain = path.rstrip("/")
        if openai_http.is_api(path):
            if not has_key:
                return text_response(http.HTTPStatus.UNAUTHORIZED, NO_KEY)
            api = openai_http.answer(connection.method, plain, connection.body, self.secrets)
            if api is not None:
                status, fields = api
                return whole_response(status, "application/json", json.dumps(fields).encode())
        if plain in operation.PATHS:
            return self._operate(plain, connection, request, has_key)
        if connection.method not in ("GET", "HEAD"):
            return text_response(
                http.HTTPStatus.METHOD_NOT_ALLOWED, "pages are read with GET or HEAD"
            )
        found = pages.answer(path)
        if found is None:
            known = ", ".join(sorted(dialect.DIALECTS))
            return text_response(
                http.HTTPStatus.NOT_FOUND, f"nothing is here; the agent is at {known}"
            )
        return whole_response(*found)

    def _operate(
        self, path: str, connection: BodyConnection, request: Request, has_key: bool
    ) -> Response:
        if operation.needs_key(path) and not has_key:
            return text_response(http.HTTPStatus.UNAUTHORIZED, NO_KEY)
        allowed = operation.methods(path)
        if connection.method not in allowed:
            sentence = f"{path} takes {' or '.join(allowed)}"
            return text_response(http.HTTPStatus.METHOD_NOT_ALLOWED, sentence)
        if path == operation.DRAIN:
            if sentence := self._foreign(request):
                return text_response(http.HTTPStatus.FORBIDDEN, sentence)
            peer = (connection.remote_address or ("",))[0]
            is_program = "Origin" not in request.headers and not _came_by_proxy(request)
            is_here = is_loopback(peer) and is_program
            if not (self.access.api_key or is_here):
                sentence = "without a key the server is drained from its own machine alone"
                return text_response(http.HTTPStatus.FORBIDDEN, sentence)
        return whole_response(*operation.answer(connection.method, path, self.engine, self.stats))


def _is_websocket(request: Request) -> bool:
    """Whether it has both headers that open one."""
    connection = request.headers.get("Connection", "").lower()
    return request.headers.get("Upgrade", "").lower() == "websocket" and "upgrade" in connection


def _is_closed_by_proxy(request: Request) -> bool:
    """Whether a browser's request ends its connection: nginx does so by default, browsers never."""
    is_closed = request.headers.get("Connection", "").lower() == "close"
    return is_closed and "Origin" in request.headers


def _came_by_proxy(request: Request) -> bool:
    """Whether a proxy has left a trace."""
    names = ("Via", "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP")
    return any(name in request.headers for name in names)


def text_response(status: http.HTTPStatus, sentence: str) -> Response:
    """An answer of one sentence."""
    return whole_response(status, "text/plain; charset=utf-8", f"{sentence}\n".encode())


def whole_response(status: http.HTTPStatus, kind: str, body: bytes) -> Response:
    """An answer of a content type, with the headers that all have."""
    headers = {
        "Content-Type": kind,
        "Content-Length": str(len(body)),
        "Connection": "close",
        **pages.SAFE,
    }
    if status == http.HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status == http.HTTPStatus.UPGRADE_REQUIRED:
        headers["Upgrade"] = "websocket"
    return Response(status.value, status.phrase, Headers(headers), body)
