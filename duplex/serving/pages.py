"""What the server answers to plain HTTP: the web client, health, figures. Paths to answers, no I/O but reading the client once."""

import http
import json
from collections.abc import Callable
from functools import cache
from importlib.resources import files

from duplex.serving import metrics

STATS_PATH = "/v1/stats"
PACKAGE = "duplex.client"  # whose folder holds the page
FILES = {  # the only files that are ever served
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/worklet.js": ("worklet.js", "text/javascript; charset=utf-8"),
}
PRIVATE = (STATS_PATH, "/metrics")  # need the key, if there is one
SAFE = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


@cache
def _file(name: str) -> bytes:
    return files(PACKAGE).joinpath(name).read_bytes()


def answer(
    path: str, ready: bool, stats: Callable[[], dict]
) -> tuple[http.HTTPStatus, str, bytes] | None:
    """-> status, content type, body; None: there is no such page."""
    if path in FILES:
        name, kind = FILES[path]
        return http.HTTPStatus.OK, kind, _file(name)
    if path == "/healthz":
        return http.HTTPStatus.OK, "text/plain", b"ok\n"
    if path == "/readyz":
        status = http.HTTPStatus.OK if ready else http.HTTPStatus.SERVICE_UNAVAILABLE
        return status, "text/plain", b"ready\n" if ready else b"not taking sessions\n"
    if path == "/metrics":
        return (
            http.HTTPStatus.OK,
            "text/plain; version=0.0.4; charset=utf-8",
            metrics.exposition(stats()),
        )
    if path == STATS_PATH:
        return http.HTTPStatus.OK, "application/json", (json.dumps(stats()) + "\n").encode()
    return None
