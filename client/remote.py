"""A session on a server, over a websocket; a lost connection is taken up again."""

import asyncio
from http import HTTPStatus

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ProxyError, WebSocketException

from duplex.audio import TICK_MS
from duplex.client import address, directed
from duplex.errors import ClientError, ProtocolError
from duplex.serving.commands import AgentCommand, SetPlaybackPosition, Start
from duplex.serving.limits import ClientTerms
from duplex.serving.native import commands as native_commands
from duplex.serving.native import messages as native


class RemoteSession:
    """Push audio, get audio and events, close."""

    def __init__(
        self,
        connection: ClientConnection,
        url: str,
        headers: dict,
        token: str | None,
        placed: directed.Placed | None = None,
    ):
        """placed: by whom, where the server is a director's choice."""
        self._connection = connection
        self._url = url
        self._headers = headers
        # With it the session can be taken up again.
        self._token = token
        self._placed = placed
        # Events since the session was created.
        self._received = 0
        # Ticks of audio that came, and that were lost on the way.
        self._ticks = 0
        self._lost_ticks = 0
        # Whether the server, or the loss of it, has ended the session.
        self._ended = False
        # Whether the connection is lost and is being taken up again.
        self.is_cut = False

    @classmethod
    async def open(
        cls,
        url: str,
        start: Start | None = None,
        api_key: str | None = None,
        patience_s: float = 30.0,
    ) -> "RemoteSession":
        """Connect, start a session and wait until it is open. Raises ClientError.

        url: the server, or a director of several, as `address.server_url` takes it. patience_s:
        seconds until the server must have opened it.
        """
        url = address.server_url(url)
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        placed = None
        connection = await _connect_first(url, headers)
        if connection is None:
            placed = await directed.place(url, headers)
            url = placed.url
            connection = await _connect_first(url, headers)
        if connection is None:
            raise ClientError(f"the director names another director, {url}; give it servers")
        try:
            await connection.send(native.encode_start(start))
            async with asyncio.timeout(patience_s):
                answer = native.decode_server(await connection.recv())
        except TimeoutError as error:
            connection.transport.abort()
            raise ClientError(
                f"the server at {url} opens no session within {patience_s:g} s"
            ) from error
        except (ConnectionClosed, ProtocolError) as error:
            raise ClientError(
                f"the server at {url} closed the connection at once ({_reason(error)})"
            ) from error
        if not isinstance(answer, dict) or answer.get("type") != "session.created":
            await connection.close()
            is_event = isinstance(answer, dict)
            reason = answer.get("text", answer) if is_event else "it sent audio first"
            raise ClientError(f"the server at {url} did not open a session: {reason}")
        return cls(connection, url, headers, answer.get("resume"), placed)

    async def push(self, samples: np.ndarray) -> None:
        """User audio, float32 [N]; dropped when the connection has closed: `get` tells."""
        await self._send(native.encode_audio(samples))

    async def played(self, played_ms: int) -> None:
        """Tell how much of the audio that came the user has heard."""
        await self.send(SetPlaybackPosition(played_ms))

    async def send(self, command: AgentCommand) -> None:
        """What the user does beside speaking; dropped when the connection has closed."""
        if isinstance(command, SetPlaybackPosition):
            command = SetPlaybackPosition(command.ms + self.lost_ms)
        await self._send(native_commands.encode_command(command))

    async def get(self) -> tuple[np.ndarray, list[dict]] | None:
        """The next message: audio without events, or one event without audio.

        Returns None when the connection has closed.
        """
        try:
            message = native.decode_server(await self._connection.recv())
        except ConnectionClosed as error:
            if self._ended:
                return None
            # Not closed, or closed by a proxy that is restarted: the server tells of its own end.
            is_broken = error.rcvd is None or error.rcvd.code in native.PROXY_CLOSE_CODES
            if is_broken and await self._resume():
                return await self.get()
            message = _error("lost", "the connection to the server was lost")
        except ProtocolError as error:
            message = _error("bad_message", f"the server sent what no duplex server sends: {error}")
        if not isinstance(message, dict):
            self._ticks += 1
            return message, []
        if "tick" in message:
            # An event follows the audio of its tick, so what is not there then has been lost.
            self._lost_ticks = max(self._lost_ticks, message["tick"] + 1 - self._ticks)
        self._received += 1
        self._ended |= message.get("type") == "session.ended" or message.get("code") == "lost"
        return np.zeros(0, np.float32), [message]

    @property
    def lost_ms(self) -> int:
        """Of the agent's sound, what never came: by so much the session's clock is ahead of it."""
        return self._lost_ticks * TICK_MS

    async def close(self) -> None:
        """Ask for the end; `get` goes on until the server has said its last."""
        await self._send(native.encode_end())

    def drop(self) -> None:
        """As if the cable were pulled; `get` takes the session up again."""
        self._connection.transport.abort()

    async def _send(self, message: bytes | str) -> None:
        try:
            await self._connection.send(message)
        except ConnectionClosed:
            pass

    async def _resume(self, waits_s: tuple[float, ...] = (0.25, 0.5, 1, 2, 4, 8, 8)) -> bool:
        """Connect again and go on where the connection broke; False when the session is lost.

        waits_s: after each attempt that fails; all lie within the server's half minute.
        """
        self.is_cut = True
        for wait_s in waits_s if self._token else ():
            try:
                connection = await _connect(self._url, self._headers)
                await connection.send(native.encode_resume(self._token, self._received))
                answer = native.decode_server(await connection.recv())
            except (OSError, WebSocketException, ProtocolError):
                if self._placed and await directed.is_gone(self._placed, self._headers):
                    return False
                await asyncio.sleep(wait_s)
                continue
            self._connection = connection
            self.is_cut = False
            return isinstance(answer, dict) and answer.get("type") == "session.resumed"
        return False


async def _connect_first(url: str, headers: dict) -> ClientConnection | None:
    """Connect, and say what is wrong where that cannot be; None: a director is there.

    Raises ClientError.
    """
    try:
        return await _connect(url, headers)
    except (OSError, WebSocketException, ImportError, ValueError) as error:
        # A server has answered, or what stands before it.
        response = getattr(error, "response", None)
        if response is not None and response.status_code == HTTPStatus.MISDIRECTED_REQUEST:
            return None
        proxy = address.proxy_to(url)
        if proxy and (response is None or isinstance(error, ProxyError)):
            sentence = f"cannot reach {url} ({_reason(error)}); {address.proxy_advice(proxy)}"
        elif response is None:
            start = "start one with: duplex serve"
            sentence = f"no duplex server answers at {url} ({_reason(error)}); {start}"
        elif response.status_code == 401:
            sentence = f"the server at {url} wants a key; give the right one with --api-key"
        else:
            text = (response.body or b"").decode(errors="replace").strip().partition("\n")[0]
            is_sentence = text and "<" not in text
            told = f": {text[:300]}" if is_sentence else ""
            sentence = f"{url} opens no session (HTTP {response.status_code}{told})"
        raise ClientError(sentence) from error


async def _connect(url: str, headers: dict, open_s: float = 10) -> ClientConnection:
    """open_s: seconds in which the server must answer."""
    return await connect(
        url,
        additional_headers=headers,
        open_timeout=open_s,
        max_size=ClientTerms.max_message_bytes,
        compression=None,
        proxy=address.proxy_to(url),
    )


def _error(code: str, text: str) -> dict:
    return {"type": "error", "code": code, "text": text}


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).splitlines()[0] if str(error) else type(error).__name__
