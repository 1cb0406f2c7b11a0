"""What the server answers to plain HTTP: the web client, health, figures. No sockets here."""

import http
import json
from collections.abc import Callable
from functools import cache
from importlib.resources import files

from duplex.serving import metrics

STATS_PATH = "/v1/stats"
METRICS_PATH = "/metrics"
# Headers of every answer.
SAFE = {
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


# Content types by the ends of the page's files.
KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}


@cache
def _names() -> frozenset[str]:
    """The only files that are ever served."""
    return frozenset(file.name for file in files("duplex.client").joinpath("web").iterdir())


@cache
def _file(name: str) -> bytes:
    return files("duplex.client").joinpath("web", name).read_bytes()


def needs_key(path: str) -> bool:
    """Whether a path is only for those who have the key, if there is one."""
    return path in (STATS_PATH, METRICS_PATH)


def answer(
    path: str, is_ready: bool, stats: Callable[[], dict]
) -> tuple[http.HTTPStatus, str, bytes] | None:
    """Status, content type and body of a path; None where there is no such page."""
    ok = http.HTTPStatus.OK
    name = "index.html" if path == "/" else path.removeprefix("/")
    if name in _names():
        return ok, KINDS[name.rpartition(".")[2]], _file(name)
    if path == "/healthz":
        return ok, "text/plain", b"ok\n"
    if path == "/readyz" and is_ready:
        return ok, "text/plain", b"ready\n"
    if path == "/readyz":
        return http.HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"not taking sessions\n"
    if path == METRICS_PATH:
        return ok, "text/plain; version=0.0.4; charset=utf-8", metrics.exposition(stats())
    if path == STATS_PATH:
        return ok, "application/json", (json.dumps(stats()) + "\n").encode()
    return None
