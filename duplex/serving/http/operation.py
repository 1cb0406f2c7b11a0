"""What the server answers to those who operate it, over plain HTTP. No sockets here.

GET    /healthz   200 while it lives, 503 and why when its model stands still
GET    /readyz    200 when a new session would be taken, 503 and why when it is full, draining (by
                  POST /drain: sessions go on) or stopping (by SIGTERM: they end with their turn)
POST   /drain     takes no new session from now on; those there go on till they end
DELETE /drain     takes them again
GET    /metrics   figures for Prometheus
GET    /v1/stats  the same as JSON
POST   /v1/sessions  where a new session opens: here; a director names another server
"""

import http
import json
from collections.abc import Callable

from duplex.serving import metrics
from duplex.serving.engine import Engine
from duplex.serving.native import messages as native

HEALTH = "/healthz"
READY = "/readyz"
DRAIN = "/drain"
METRICS = "/metrics"
STATS = "/v1/stats"
SESSIONS = native.SESSIONS
PATHS = (HEALTH, READY, DRAIN, METRICS, STATS, SESSIONS)
METRICS_KIND = "text/plain; version=0.0.4; charset=utf-8"

Answer = tuple[http.HTTPStatus, str, bytes]


def needs_key(path: str) -> bool:
    """Whether a path is only for those who have the key, if there is one."""
    return path in (DRAIN, METRICS, STATS)


def methods(path: str) -> tuple[str, ...]:
    """With which methods a path may be asked for."""
    special = {DRAIN: ("POST", "DELETE"), SESSIONS: ("POST",)}
    return special.get(path, ("GET", "HEAD"))


def answer(method: str, path: str, engine: Engine, stats: Callable[[], dict]) -> Answer:
    """Status, content type and body of one of PATHS."""
    ok = http.HTTPStatus.OK
    if path in (HEALTH, READY):
        reason = engine.ailing() if path == HEALTH else engine.unready()
        status = http.HTTPStatus.SERVICE_UNAVAILABLE if reason else ok
        well = "ok" if path == HEALTH else "ready"
        return status, "text/plain", f"{reason or well}\n".encode()
    if path == DRAIN:
        engine.admits = method == "DELETE"
        told = {"draining": not engine.admits, "sessions": stats()["sessions"]}
        return ok, "application/json", (json.dumps(told) + "\n").encode()
    if path == METRICS:
        return ok, METRICS_KIND, metrics.exposition(stats())
    if path == SESSIONS:
        # Relative to the address that was asked, as proxies may have changed it.
        where = {"url": native.PATH, "token": ""}
        return ok, "application/json", (json.dumps(where) + "\n").encode()
    return ok, "application/json", (json.dumps(stats()) + "\n").encode()
