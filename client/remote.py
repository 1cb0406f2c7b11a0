"""A session on a server, over a websocket: push audio, get audio and events, close."""

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from client import ClientError
from duplex import protocol

OPEN_S = 10


class RemoteSession:
    def __init__(self, connection: ClientConnection):
        self._connection = connection
        self._ended = False  # whether the server, or the loss of it, has ended the session

    @classmethod
    async def open(cls, url: str, seed: int | None = None, instructions: str | None = None) -> "RemoteSession":
        """Connects, starts a session and waits until the server has opened it."""
        if url.count("/") == 2:  # only ws://host:port
            url += protocol.PATH
        try:
            connection = await connect(url, open_timeout=OPEN_S, max_size=protocol.MAX_MESSAGE_BYTES, compression=None)
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI, ValueError) as error:
            reason = _reason(error)
            raise ClientError(f"no duplex server answers at {url} ({reason}); start one with: duplex serve") from error
        try:
            await connection.send(protocol.encode_start(instructions, seed))
            answer = protocol.decode_server(await connection.recv())
        except (ConnectionClosed, protocol.ProtocolError) as error:
            raise ClientError(f"the server at {url} closed the connection at once ({_reason(error)})") from error
        if not isinstance(answer, dict) or answer.get("type") != "session.created":
            await connection.close()
            reason = answer.get("text", answer) if isinstance(answer, dict) else "it sent audio first"
            raise ClientError(f"the server at {url} did not open a session: {reason}")
        return cls(connection)

    async def push(self, samples: np.ndarray) -> None:
        """User audio, float32 [N]; silently dropped when the connection has closed: `get` tells."""
        try:
            await self._connection.send(protocol.encode_audio(samples))
        except ConnectionClosed:
            pass

    async def get(self) -> tuple[np.ndarray, list[dict]] | None:
        """The next message: audio without events or one event without audio; None when the connection has closed."""
        try:
            message = protocol.decode_server(await self._connection.recv())
        except ConnectionClosed:
            if self._ended:
                return None
            message = _error("lost", "the connection to the server was lost")
        except protocol.ProtocolError as error:
            message = _error("bad_message", f"the server sent what no duplex server sends: {error}")
        if not isinstance(message, dict):
            return message, []
        self._ended |= message.get("type") == "session.ended" or message.get("code") == "lost"
        return np.zeros(0, np.float32), [message]

    async def close(self) -> None:
        """Asks for the end; `get` goes on until the server has said its last."""
        try:
            await self._connection.send(protocol.encode_end())
        except ConnectionClosed:
            pass


def _error(code: str, text: str) -> dict:
    return {"type": "error", "code": code, "text": text}


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).splitlines()[0] if str(error) else type(error).__name__
