"""Sessions on servers of any dialect: push audio, get audio and events, close.

| dialect  | path         | is spoken by                                         |
|----------|--------------|------------------------------------------------------|
| duplex   | /v1/duplex   | our server: client.remote.RemoteSession              |
| realtime | /v1/realtime | OpenAI Realtime: dialects.RealtimeClient             |
| moshi    | /api/chat    | Moshi's servers: dialects.MoshiClient                |

A response may come faster than real time: then the session hands it out at the pace of real time
and drops the rest when the user interrupts, as a client with a loudspeaker would.
"""

import asyncio
import time
from collections import deque
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.bench.serving.dialects import Item, MoshiClient, RealtimeClient, sentence
from duplex.client.remote import RemoteSession
from duplex.errors import ClientError
from duplex.serving.commands import Start
from duplex.serving.native import messages as native

# Seconds that a server may take to open a session: Moshi's answers when the one before has left.
OPEN_S = 20


class PacedSession:
    """A session in another dialect, whose sound is handed out at the pace of real time."""

    def __init__(self, connection: ClientConnection, dialect: RealtimeClient | MoshiClient):
        self._connection = connection
        self._dialect = dialect
        self._line: deque[Item] = deque()  # the answer, in order, as it is to be played
        self._news: deque[dict] = deque()  # what does not wait for the sound before it
        self._due = 0.0  # when the sound handed out has been played
        self._is_over = False

    @classmethod
    async def open(
        cls,
        url: str,
        dialect: RealtimeClient | MoshiClient,
        api_key: str | None = None,
        open_s: float = OPEN_S,
    ) -> "PacedSession":
        """A session that the server has opened. Raises ClientError."""
        connection = await _connect(url, api_key, open_s)
        try:
            async with asyncio.timeout(open_s):
                while not dialect.opened(await connection.recv()):
                    pass
                for message in dialect.first():
                    await connection.send(message)
        except (ConnectionClosed, TimeoutError, ValueError) as error:
            await connection.close()
            reason = sentence(str(error)) or "it said nothing"
            raise ClientError(f"the server at {url} did not open a session: {reason}") from error
        return cls(connection, dialect)

    async def push(self, samples: np.ndarray) -> None:
        """User audio, a whole number of ticks; dropped when the connection has closed."""
        with suppress(ConnectionClosed):
            await self._connection.send(self._dialect.audio(samples))

    async def played(self, played_ms: int) -> None:
        """Nothing of the kind is said in these dialects."""

    async def close(self) -> None:
        """End the session."""
        self._is_over = True
        await self._connection.close()

    async def get(self) -> tuple[np.ndarray, list[dict]] | None:
        """The next audio, when it is time to play it, or the next event; None: it is over."""
        while True:
            if self._news:
                return _item(self._news.popleft())
            wait_s = self._due - time.monotonic() if self._line else None
            if wait_s is not None and wait_s <= 0:
                return self._next()
            if self._is_over:
                return None
            await self._receive(wait_s)

    async def _receive(self, wait_s: float | None) -> None:
        """Take in the server's next message, if it comes within wait_s."""
        try:
            async with asyncio.timeout(wait_s):
                message = await self._connection.recv()
            for item in self._dialect.received(message):
                await self._take(item)
        except TimeoutError:
            pass
        except ConnectionClosed:
            if not self._is_over:
                await self._break("lost", "the connection to the server was lost")
        except ValueError as error:
            text = f"the server sent what no such server sends: {sentence(str(error))}"
            await self._break("bad_message", text)

    def _next(self) -> tuple[np.ndarray, list[dict]]:
        """An event, or a tick of audio at most."""
        item = self._line.popleft()
        if isinstance(item, dict):
            return _item(item)
        if len(item) > TICK_SAMPLES:
            self._line.appendleft(item[TICK_SAMPLES:])
            item = item[:TICK_SAMPLES]
        earliest = time.monotonic() - TICK_S  # a tick late is made up for
        self._due = max(self._due, earliest) + len(item) / SAMPLE_RATE
        return item, []

    async def _take(self, item: Item) -> None:
        """Put what came in its place."""
        if not isinstance(item, dict):
            if len(item):
                self._line.append(item)
        elif item["type"] == "agent_stopped":
            if self._line or item.get("cancelled"):
                self._line.clear()
                self._news.append({"type": "agent_stopped", "text": item["text"]})
        elif item["type"] == "error":
            await self._break(item["code"], item["text"])
        elif item["type"] in ("user_started", "user_ended", "heard"):
            self._news.append(item)
        else:
            self._line.append(item)

    async def _break(self, code: str, text: str) -> None:
        """An error of any kind ends the session: what came after it would not be comparable."""
        self._is_over = True
        self._line.clear()
        self._news.append({"type": "error", "code": code, "text": text})
        await self._connection.close()


def _item(event: dict) -> tuple[np.ndarray, list[dict]]:
    """An event without audio, as `get` gives it."""
    return np.zeros(0, np.float32), [event]


async def _connect(url: str, api_key: str | None, open_s: float) -> ClientConnection:
    """Raises ClientError."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        return await connect(
            url,
            additional_headers=headers,
            open_timeout=open_s,
            max_size=1 << 24,  # A delta may hold many seconds of sound.
            compression=None,
        )
    except (OSError, TimeoutError, InvalidHandshake, InvalidURI, ValueError) as error:
        is_refused = getattr(getattr(error, "response", None), "status_code", None) in (401, 403)
        hint = "; give the right key with --api-key" if is_refused else ""
        reason = sentence(str(error)) or type(error).__name__
        raise ClientError(f"no such server answers at {url} ({reason}){hint}") from error


def address(url: str, dialect: str) -> str:
    """With the dialect's own path where the url names only a server."""
    parts = urlsplit(url)
    paths = {"duplex": native.PATH, "realtime": RealtimeClient.path, "moshi": MoshiClient.path}
    if parts.path not in ("", "/"):
        return url
    return urlunsplit(parts._replace(path=paths[dialect]))


async def open_session(
    url: str, dialect: str, seed: int, api_key: str | None, open_s: float = OPEN_S
) -> RemoteSession | PacedSession:
    """A session in a dialect; the seed is for those that have one. Raises ClientError."""
    url = address(url, dialect)
    if dialect == "duplex":
        return await RemoteSession.open(url, Start(seed=seed), api_key)
    if dialect == "realtime":
        return await PacedSession.open(url, RealtimeClient(), api_key, open_s)
    if "text_seed=" not in url:
        url += f"{'&' if '?' in url else '?'}text_seed={seed}&audio_seed={seed}"
    return await PacedSession.open(url, MoshiClient(), api_key, open_s)
