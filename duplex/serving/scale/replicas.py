"""The servers behind a director: which there are, how they are, which has room.

Each is asked for GET /v1/stats, twice a second, and once more before a session is sent to it.
"""

import asyncio
import hashlib
import json
import logging
import socket
import urllib.request
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException
from urllib.parse import urlsplit

from duplex.errors import UsageError
from duplex.serving.http import operation
from duplex.serving.http.auth import is_loopback

log = logging.getLogger(__name__)

# What is read of a server's stats.
READ = {"state", "slots", "free", "sessions_opened", "ends"}


@dataclass
class Replica:
    """One server, as it was when it was last asked."""

    # http://HOST:PORT
    url: str
    # Of Engine.state(), or down: it does not answer.
    state: str = "down"
    places: int = 0
    free: int = 0
    # Since its start: sessions that came, and that went.
    opened: int = 0
    ended: int = 0
    # Since when it has not answered; None while it does.
    down_since: float | None = None
    # When each place lapses that was promised and not taken yet.
    promised: deque[float] = field(default_factory=deque)

    @property
    def name(self) -> str:
        """What tokens call it; the same after a restart of the director."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:12]

    def room(self, now: float) -> int:
        """Places that may still be promised."""
        while self.promised and self.promised[0] < now:
            self.promised.popleft()
        return max(0, self.free - len(self.promised)) if self.state == "ready" else 0

    def websocket(self, path: str) -> str:
        """Where clients connect."""
        return "ws" + self.url.removeprefix("http") + path


def with_most_room(replicas: list[Replica], now: float) -> Replica | None:
    """Where the next session goes: fewer sessions in a batch leave more time for each tick."""
    best = max(replicas, key=lambda replica: replica.room(now), default=None)
    return best if best and best.room(now) else None


def listed(entries: list[str]) -> list[str]:
    """URLs of the replicas now: http://HOST:PORT as it is, dns:HOST:PORT for each of its addresses.

    Raises UsageError where an entry is neither; a name that is not known yet has no addresses.
    """
    urls: list[str] = []
    for entry in entries:
        if entry.startswith("dns:"):
            urls += _addresses(entry)
            continue
        typed = entry if "://" in entry else f"http://{entry}"
        parts = urlsplit(typed.replace("ws", "http", 1) if typed.startswith("ws") else typed)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{entry!r} is no replica; give http://HOST:PORT or dns:HOST:PORT")
        urls.append(f"{parts.scheme}://{parts.netloc}")
    return list(dict.fromkeys(urls))


def _addresses(entry: str) -> list[str]:
    _, host, port = entry.split(":") if entry.count(":") == 2 else ("", "", "")
    if not (host and port.isdigit()):
        raise UsageError(f"{entry!r} is no replica; give dns:HOST:PORT")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError:
        return []
    hosts = sorted({address[0] for *_, address in found})
    return [f"http://[{one}]:{port}" if ":" in one else f"http://{one}:{port}" for one in hosts]


class Replicas:
    """All of them, watched."""

    def __init__(
        self,
        entries: list[str],
        api_key: str | None,
        now: Callable[[], float],
        patience_s: float = 1.0,
        promise_s: float = 5.0,
    ):
        """patience_s: for an answer. promise_s: in which a client must have taken its place."""
        self._entries = entries
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._now = now
        self._patience_s = patience_s
        self._promise_s = promise_s
        self.all = [Replica(url) for url in listed(entries)]

    def room(self) -> int:
        """Places that may be promised, everywhere."""
        return sum(replica.room(self._now()) for replica in self.all)

    def find(self, token: str) -> Replica | None:
        """The replica that a token names."""
        name = token.partition(".")[0]
        return next((replica for replica in self.all if replica.name == name), None)

    async def ask_all(self) -> int:
        """Look how all are; returns how many sessions ended since the last time."""
        await self._list()
        before = {replica.url: replica.ended for replica in self.all if replica.state != "down"}
        await asyncio.gather(*(self.ask(replica) for replica in self.all))
        return sum(max(0, replica.ended - before.get(replica.url, 0)) for replica in self.all)

    async def ask(self, replica: Replica) -> None:
        """Look how one is."""
        try:
            stats = await asyncio.to_thread(self._stats, replica.url)
        except (OSError, HTTPException, ValueError) as error:
            if replica.down_since is None:
                log.warning("%s does not answer (%s)", replica.url, error)
                replica.down_since = self._now()
            replica.state = "down"
            return
        _note(replica, stats)

    async def take(self) -> Replica | None:
        """A replica that has a place now, which is promised to the caller; None where none has."""
        tried: list[Replica] = []
        while found := with_most_room([r for r in self.all if r not in tried], self._now()):
            # Promised before it is asked: others take places meanwhile.
            promise = self._now() + self._promise_s
            found.promised.append(promise)
            await self.ask(found)
            if promise not in found.promised:
                found.promised.append(promise)
            if found.state == "ready" and found.free >= len(found.promised):
                return found
            found.promised.remove(promise)
            tried.append(found)
        return None

    async def _list(self) -> None:
        """Whom the names stand for may change."""
        urls = await asyncio.to_thread(listed, self._entries)
        known = {replica.url: replica for replica in self.all}
        self.all = [known.get(url) or Replica(url) for url in urls]

    def _stats(self, url: str) -> dict:
        """What a server tells of itself. Raises OSError, HTTPException, ValueError."""
        request = urllib.request.Request(url + operation.STATS, headers=self._headers)
        is_here = is_loopback(urlsplit(url).hostname or "")
        proxies = [urllib.request.ProxyHandler({})] if is_here else []
        opener = urllib.request.build_opener(*proxies)
        with opener.open(request, timeout=self._patience_s) as answer:
            stats = json.load(answer)
        if not isinstance(stats, dict) or not READ <= set(stats):
            raise ValueError("it is no duplex server, or one of another version")
        return stats


def _note(replica: Replica, stats: dict) -> None:
    """Keep what it told; who has come has taken a place that was promised."""
    for _ in range(min(len(replica.promised), stats["sessions_opened"] - replica.opened)):
        replica.promised.popleft()
    replica.state = stats["state"]
    replica.places = stats["slots"]
    replica.free = stats["free"]
    replica.opened = stats["sessions_opened"]
    replica.ended = sum(stats["ends"].values())
    replica.down_since = None
