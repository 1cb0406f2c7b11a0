"""What `duplex direct` does: tell clients which of several servers has a place for them.

    duplex direct --replicas http://gpu1:8765,http://gpu2:8765 --port 8764

POST /v1/sessions, with a JSON object or nothing:

    {}                  200 {"url", "token"}: connect to this websocket now
                        202 {"ticket", "place", "wait_s", "retry_s"}: all places are taken; ask
                            again with the ticket after retry_s; wait_s null: nothing tells it
                        503 {"error"}: refused, in one sentence
    {"ticket": "..."}   the same, for who waits
    {"token": "..."}    200 the server of that session, to resume it; 410 {"error"}: it is gone;
                        503 {"error"}: it does not answer just now
    {"path": "/v1/realtime"}   with any of them: another dialect's websocket

Sound never passes through it: when it is gone, conversations go on. It keeps nothing that another
would need, but the line of those who wait; after a restart they ask anew.

GET / is the page, GET /readyz is 200 while a place is free, GET /metrics are its figures.
"""

import asyncio
import http
import json
import secrets
import sys
import time
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from websockets.asyncio.server import serve
from websockets.http11 import Request, Response

from duplex.serving import dialect
from duplex.serving.http import operation, pages
from duplex.serving.http.auth import Access, is_loopback, offered_keys
from duplex.serving.http.handshake import NO_KEY, text_response, whole_response
from duplex.serving.http.http_body import BodyConnection
from duplex.serving.http.listener import bind, web_url
from duplex.serving.metrics import labelled
from duplex.serving.native import messages as native
from duplex.serving.run import on_signal
from duplex.serving.scale.replicas import Replica, Replicas
from duplex.serving.scale.waiting import Line, LineConfig, Waits

SESSIONS = operation.SESSIONS
GONE = "the server of this session is gone, and the session with it"


@dataclass(frozen=True)
class DirectorConfig:
    """Where the director is, and which servers it knows."""

    replicas: tuple[str, ...]
    host: str = "localhost"
    port: int = 8764
    access: Access = field(default_factory=Access)
    line: LineConfig = field(default_factory=LineConfig)
    # Seconds from one look at all servers to the next.
    look_s: float = 0.5
    # Seconds without an answer after which a server's sessions are given up.
    gone_s: float = 0.7


class Director:
    """Answers requests; `watch` must run beside it."""

    def __init__(self, config: DirectorConfig):
        self.config = config
        self.replicas = Replicas(list(config.replicas), config.access.api_key, time.monotonic)
        self.line = Line(config.line, time.monotonic())
        self.placed = 0

    async def watch(self) -> None:
        """Look how the servers are, for ever."""
        while True:
            await asyncio.sleep(self.config.look_s)
            ended = await self.replicas.ask_all()
            self.line.note_ends(ended, time.monotonic())

    async def answer(self, connection: BodyConnection, request: Request) -> Response:
        """The answer to any request: no websocket opens here."""
        path = request.path.partition("?")[0].rstrip("/") or "/"
        if path == SESSIONS:
            return await self._sessions(connection, request)
        if path in dialect.DIALECTS:
            sentence = f"this is a director; POST {SESSIONS} tells which server has a place"
            return text_response(http.HTTPStatus.MISDIRECTED_REQUEST, sentence)
        if path == operation.HEALTH:
            return text_response(http.HTTPStatus.OK, "ok")
        if path == operation.READY:
            room = self.replicas.room()
            status = http.HTTPStatus.OK if room else http.HTTPStatus.SERVICE_UNAVAILABLE
            return text_response(status, "ready" if room else "all places are taken")
        if path in (operation.METRICS, operation.STATS):
            if not self._has_key(request):
                return text_response(http.HTTPStatus.UNAUTHORIZED, NO_KEY)
            if path == operation.STATS:
                return _json(http.HTTPStatus.OK, self.stats())
            return whole_response(http.HTTPStatus.OK, operation.METRICS_KIND, self.figures())
        found = pages.answer(path)
        if found is None or connection.method not in ("GET", "HEAD"):
            sentence = f"this is a director: POST {SESSIONS}, or GET / for the page"
            return text_response(http.HTTPStatus.NOT_FOUND, sentence)
        return whole_response(*found)

    def _is_foreign(self, request: Request) -> bool:
        """Whether a page asks that is not the director's own: it could fill the line."""
        headers = request.headers
        hosts = (headers.get("Host", ""), headers.get("X-Forwarded-Host", ""))
        origin = headers.get("Origin")
        return not any(self.config.access.is_allowed_origin(origin, host) for host in hosts)

    def _has_key(self, request: Request) -> bool:
        return self.config.access.is_valid(offered_keys(request.headers, []))

    async def _sessions(self, connection: BodyConnection, request: Request) -> Response:
        if connection.method != "POST":
            return text_response(http.HTTPStatus.METHOD_NOT_ALLOWED, f"{SESSIONS} takes POST")
        if not self._has_key(request):
            return text_response(http.HTTPStatus.UNAUTHORIZED, NO_KEY)
        if self._is_foreign(request):
            sentence = "pages of other addresses may not ask the director"
            return _json(http.HTTPStatus.FORBIDDEN, {"error": sentence})
        try:
            asked = json.loads(connection.body or b"{}")
            token, ticket, path = (
                str(asked.get(name) or "") for name in ("token", "ticket", "path")
            )
        except (ValueError, AttributeError):
            sentence = "the body is no JSON object; leave it out, or see the director's table"
            return _json(http.HTTPStatus.BAD_REQUEST, {"error": sentence})
        path = path or native.PATH
        if path not in dialect.DIALECTS:
            known = ", ".join(sorted(dialect.DIALECTS))
            return _json(http.HTTPStatus.BAD_REQUEST, {"error": f"path is one of {known}"})
        if token:
            return await self._find(token, path)
        return await self._place(ticket, path)

    async def _place(self, ticket: str, path: str) -> Response:
        """A place for a new session, or in the line."""
        if all(replica.state == "down" for replica in self.replicas.all):
            sentence = "none of the servers answers; try again later"
            return _json(http.HTTPStatus.SERVICE_UNAVAILABLE, {"error": sentence})
        found = self.line.ask(ticket, self.replicas.room(), time.monotonic())
        if found is None:
            if replica := await self.replicas.take():
                self.placed += 1
                return _told(replica, f"{replica.name}.{secrets.token_urlsafe(9)}", path)
            # It was taken, or lost, meanwhile.
            if ticket:
                self.line.give_back(ticket, time.monotonic())
            found = self.line.ask(ticket, 0, time.monotonic())
        if isinstance(found, Waits):
            fields = {"ticket": found.ticket, "place": found.place, "wait_s": found.wait_s}
            fields["retry_s"] = self.line.config.retry_s
            return _json(http.HTTPStatus.ACCEPTED, fields)
        return _json(http.HTTPStatus.SERVICE_UNAVAILABLE, {"error": found})

    async def _find(self, token: str, path: str) -> Response:
        """The server of a session that goes on."""
        replica = self.replicas.find(token)
        if replica is not None:
            await self.replicas.ask(replica)
            if replica.down_since is None:
                return _told(replica, token, path)
            if time.monotonic() - replica.down_since < self.config.gone_s:
                sentence = "the server of this session does not answer; try again"
                return _json(http.HTTPStatus.SERVICE_UNAVAILABLE, {"error": sentence})
        return _json(http.HTTPStatus.GONE, {"error": GONE})

    def stats(self) -> dict:
        """How the servers and the line are."""
        names = ("url", "state", "places", "free")
        servers = [{name: getattr(r, name) for name in names} for r in self.replicas.all]
        waiting = {"waiting": len(self.line), "refused": self.line.refused}
        return {"replicas": servers, "placed": self.placed, **waiting}

    def figures(self) -> bytes:
        """For Prometheus."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self):
        """What prometheus_client collects."""
        known = self.replicas.all
        up = [replica for replica in known if replica.state != "down"]
        states = {r.state: sum(o.state == r.state for o in known) for r in known}
        replicas = GaugeMetricFamily("duplex_replicas", "Servers, by state", labels=["state"])
        yield labelled(replicas, states)
        places = sum(replica.places for replica in up)
        yield GaugeMetricFamily("duplex_director_places", "Places of all servers", places)
        free = sum(replica.free for replica in up)
        yield GaugeMetricFamily("duplex_director_places_free", "Of them, free", free)
        yield GaugeMetricFamily("duplex_director_waiting", "Who waits", len(self.line))
        yield CounterMetricFamily("duplex_director_placed", "Sessions placed", self.placed)
        yield CounterMetricFamily("duplex_director_refused", "Refused", self.line.refused)


def _told(replica: Replica, token: str, path: str) -> Response:
    return _json(http.HTTPStatus.OK, {"url": replica.websocket(path), "token": token})


def _json(status: http.HTTPStatus, fields: dict) -> Response:
    return whole_response(status, "application/json", (json.dumps(fields) + "\n").encode())


async def direct(config: DirectorConfig) -> None:
    """Answer until SIGINT or SIGTERM. Raises ServerError, UsageError."""
    config.access.check(config.host)
    stop = on_signal()
    director = Director(config)
    await director.replicas.ask_all()
    listeners = bind(config.host, config.port)
    tls = config.access.tls()
    servers = [
        await serve(
            lambda connection: connection.close(),
            sock=listener,
            ssl=tls,
            process_request=director.answer,
            create_connection=BodyConnection,
        )
        for listener in listeners
    ]
    watching = asyncio.create_task(director.watch(), name="watch")
    web = web_url(listeners[0], config.host, tls is not None)
    print(f"directing on {web} to {', '.join(config.replicas)}", file=sys.stderr, flush=True)
    if not is_loopback(config.host) and any(
        "localhost" in entry or "127.0.0.1" in entry for entry in config.replicas
    ):
        advice = "give --replicas names that they know"
        print(f"clients elsewhere cannot reach localhost; {advice}", file=sys.stderr, flush=True)
    try:
        await stop.wait()
    finally:
        watching.cancel()
        for server in servers:
            server.close()


def run(config: DirectorConfig) -> None:
    """See direct."""
    asyncio.run(direct(config))
