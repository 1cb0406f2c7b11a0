"""A session on a server, over a websocket: push audio, get audio and events, close. A lost connection is taken up again."""

import asyncio

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from duplex.audio import TICK_MS
from duplex.errors import ClientError, ProtocolError
from duplex.serving import native as protocol

OPEN_S = 10
RETRY_S = (
    0.25,
    0.5,
    1,
    2,
    4,
    8,
    8,
)  # waits between attempts to come back, within the server's 30 s


class RemoteSession:
    def __init__(self, connection: ClientConnection, url: str, headers: dict, token: str | None):
        self._connection = connection
        self._url, self._headers = url, headers
        self._token = token  # to come back with
        self._received = 0  # events since the session was created
        self._ticks = self._lost_ticks = 0  # of audio: that came, and that were lost on the way
        self._ended = False  # whether the server, or the loss of it, has ended the session

    @classmethod
    async def open(
        cls,
        url: str,
        seed=None,
        instructions: str | None = None,
        voice=None,
        speed=None,
        api_key: str | None = None,
    ) -> "RemoteSession":
        """Connects, starts a session and waits until the server has opened it."""
        if url.count("/") == 2:  # only ws://host:port
            url += protocol.PATH
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            connection = await _connect(url, headers)
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI, ValueError) as error:
            if getattr(getattr(error, "response", None), "status_code", None) == 401:
                raise ClientError(
                    f"the server at {url} wants a key; give the right one with --api-key"
                ) from error
            reason = _reason(error)
            raise ClientError(
                f"no duplex server answers at {url} ({reason}); start one with: duplex serve"
            ) from error
        try:
            await connection.send(
                protocol.encode_start(instructions, seed, voice=voice, speed=speed)
            )
            answer = protocol.decode_server(await connection.recv())
        except (ConnectionClosed, ProtocolError) as error:
            raise ClientError(
                f"the server at {url} closed the connection at once ({_reason(error)})"
            ) from error
        if not isinstance(answer, dict) or answer.get("type") != "session.created":
            await connection.close()
            reason = (
                answer.get("text", answer) if isinstance(answer, dict) else "it sent audio first"
            )
            raise ClientError(f"the server at {url} did not open a session: {reason}")
        return cls(connection, url, headers, answer.get("resume"))

    async def push(self, samples: np.ndarray) -> None:
        """User audio, float32 [N]; silently dropped when the connection has closed: `get` tells."""
        await self._send(protocol.encode_audio(samples))

    async def played(self, played_ms: int) -> None:
        """Tells how much of the audio that came the user has heard."""
        await self._send(protocol.encode_playback(played_ms + self._lost_ticks * TICK_MS))

    async def get(self) -> tuple[np.ndarray, list[dict]] | None:
        """The next message: audio without events or one event without audio; None when the connection has closed."""
        try:
            message = protocol.decode_server(await self._connection.recv())
        except ConnectionClosed as error:
            if self._ended:
                return None
            if error.rcvd is None and await self._resume():  # not closed by the server, but broken
                return await self.get()
            message = _error("lost", "the connection to the server was lost")
        except ProtocolError as error:
            message = _error("bad_message", f"the server sent what no duplex server sends: {error}")
        if not isinstance(message, dict):
            self._ticks += 1
            return message, []
        if (
            "tick" in message
        ):  # an event follows the audio of its tick, so what is not there then has been lost
            self._lost_ticks = max(self._lost_ticks, message["tick"] + 1 - self._ticks)
        self._received += 1
        self._ended |= message.get("type") == "session.ended" or message.get("code") == "lost"
        return np.zeros(0, np.float32), [message]

    async def close(self) -> None:
        """Asks for the end; `get` goes on until the server has said its last."""
        await self._send(protocol.encode_end())

    def drop(self) -> None:
        """As if the cable were pulled; `get` takes the session up again."""
        self._connection.transport.abort()

    async def _send(self, message: bytes | str) -> None:
        try:
            await self._connection.send(message)
        except ConnectionClosed:
            pass

    async def _resume(self) -> bool:
        """Connects again and goes on where the connection broke; False when the session is lost."""
        for wait_s in RETRY_S if self._token else ():
            try:
                connection = await _connect(self._url, self._headers)
                await connection.send(protocol.encode_resume(self._token, self._received))
                answer = protocol.decode_server(await connection.recv())
            except (
                OSError,
                TimeoutError,
                InvalidHandshake,
                ConnectionClosed,
                ProtocolError,
            ):
                await asyncio.sleep(wait_s)
                continue
            self._connection = connection
            return isinstance(answer, dict) and answer.get("type") == "session.resumed"
        return False


async def _connect(url: str, headers: dict) -> ClientConnection:
    return await connect(
        url,
        additional_headers=headers,
        open_timeout=OPEN_S,
        max_size=protocol.MAX_MESSAGE_BYTES,
        compression=None,
    )


def _error(code: str, text: str) -> dict:
    return {"type": "error", "code": code, "text": text}


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).splitlines()[0] if str(error) else type(error).__name__
