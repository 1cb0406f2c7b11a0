"""Sessions on servers of other dialects, as the bench plays scenes to them: push audio, get audio and events, close.

| dialect  | path         | is spoken by                                                                 |
|----------|--------------|------------------------------------------------------------------------------|
| duplex   | /v1/duplex   | our server: client.remote.RemoteSession                                      |
| realtime | /v1/realtime | OpenAI Realtime (GA event names), pcm16 at 24 kHz, the server takes the turns |
| moshi    | /api/chat    | Moshi's servers: Ogg-Opus both ways; tells words, but not when turns begin   |

A dialect without I/O turns messages into events by our names and audio. A response may come faster than real time: then the session
hands it out at the pace of real time and drops the rest when the user interrupts, as a client with a loudspeaker would.
"""

import asyncio
import base64
import json
import time
from collections import deque
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.client.remote import RemoteSession
from duplex.errors import ClientError
from duplex.serving import moshi, opus
from duplex.serving import native as protocol
from duplex.serving import openai_realtime as realtime

OPEN_S = 20  # Moshi's server answers when the one before has left
LONGEST_MESSAGE = 1 << 24  # a delta may hold many seconds
NOTHING = np.zeros(0, np.float32)


class Realtime:
    """OpenAI's events to ours. Of an answer whose sound has come in full only the client knows that it is still being played."""

    path = realtime.PATH

    def __init__(self):
        self.answering = False  # between response.created and response.done
        self._transcribed: set[str] = set()  # items whose words came in pieces

    def first(self) -> list[str]:
        """What the client says when the session is open."""
        pcm = {"type": "audio/pcm", "rate": SAMPLE_RATE}
        audio = {"input": {"format": pcm}, "output": {"format": pcm}}
        session = {"type": "realtime", "output_modalities": ["audio"], "audio": audio}
        return [json.dumps({"type": "session.update", "session": session})]

    def audio(self, samples: np.ndarray) -> str:
        pcm = base64.b64encode(protocol.encode_audio(samples)).decode()
        return json.dumps({"type": "input_audio_buffer.append", "audio": pcm})

    def opened(self, message: bytes | str) -> bool:
        """Whether this is the word that the session is open; ValueError: it says something else."""
        fields = _object(message)
        if fields.get("type") == "error":
            raise ValueError(_told(fields.get("error")))
        if fields.get("type") != "session.created":
            raise ValueError(f"it sent {fields.get('type')!r:.80} first")
        return True

    def received(self, message: bytes | str) -> list[np.ndarray | dict]:
        """Audio and events in order. ValueError: no such server sends this."""
        fields = _object(message)
        match fields.get("type"):
            case "input_audio_buffer.speech_started":
                # an answer being made is cancelled by the server, or not; one already sent in full is cut by the client
                return [{"type": "user_started"}] + [{"type": "agent_stopped", "text": ""}] * (
                    not self.answering
                )
            case "input_audio_buffer.speech_stopped":
                return [{"type": "user_ended"}]
            case "conversation.item.input_audio_transcription.delta":
                self._transcribed.add(str(fields.get("item_id")))
                return [{"type": "heard", "text": str(fields.get("delta", ""))}]
            case "conversation.item.input_audio_transcription.completed":
                known = str(fields.get("item_id")) in self._transcribed
                return (
                    [] if known else [{"type": "heard", "text": str(fields.get("transcript", ""))}]
                )
            case "response.created":
                self.answering = True
                return [{"type": "agent_started"}]
            case "response.output_audio_transcript.delta":
                return [{"type": "said", "text": str(fields.get("delta", ""))}]
            case "response.output_audio.delta":
                delta = fields.get("delta")
                if not isinstance(delta, str):
                    raise ValueError("an audio delta is base64")
                return [protocol.decode_audio(base64.b64decode(delta, validate=True))]
            case "response.done":
                self.answering = False
                return [_ending(fields.get("response"))]
            case "error":
                return [{"type": "error", "code": "server", "text": _told(fields.get("error"))}]
        return []


class Moshi:
    """Moshi's bytes; see duplex/serving/moshi.py. Its sound is continuous, silence included."""

    path = moshi.PATH

    def __init__(self):
        self._encoder, self._decoder = opus.Encoder(), opus.Decoder()

    def first(self) -> list[bytes]:
        return []

    def audio(self, samples: np.ndarray) -> bytes:
        """Of whole ticks."""
        return moshi.AUDIO + self._encoder.encode(samples)

    def opened(self, message: bytes | str) -> bool:
        if isinstance(message, str):
            raise ValueError("it sent text, not bytes")
        if message[:1] in (moshi.AUDIO, moshi.TEXT):
            raise ValueError("it sent no handshake")
        if message[:1] == moshi.ERROR:
            raise ValueError(_sentence(message[1:].decode(errors="replace")))
        return message[:1] == moshi.HANDSHAKE  # metadata may come before

    def received(self, message: bytes | str) -> list[np.ndarray | dict]:
        if isinstance(message, str):
            raise ValueError("messages are bytes")
        kind, rest = message[:1], message[1:]
        if kind == moshi.AUDIO:
            return [self._decoder.decode(rest)]
        if kind == moshi.TEXT:
            return [{"type": "said", "text": rest.decode()}]
        if kind == moshi.ERROR:
            return [
                {
                    "type": "error",
                    "code": "server",
                    "text": _sentence(rest.decode(errors="replace")),
                }
            ]
        return []


class PacedSession:
    def __init__(self, connection: ClientConnection, dialect: Realtime | Moshi):
        self._connection, self._dialect = connection, dialect
        self._line: deque[np.ndarray | dict] = (
            deque()
        )  # the answer, in order, as it is to be played
        self._news: deque[dict] = deque()  # what does not wait for the sound before it
        self._due = 0.0  # when the sound handed out has been played
        self._over = False

    @classmethod
    async def open(
        cls, url: str, dialect: Realtime | Moshi, api_key: str | None = None
    ) -> "PacedSession":
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            connection = await connect(
                url,
                additional_headers=headers,
                open_timeout=OPEN_S,
                max_size=LONGEST_MESSAGE,
                compression=None,
            )
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI, ValueError) as error:
            refused = getattr(getattr(error, "response", None), "status_code", None) in (401, 403)
            hint = "; give the right key with --api-key" if refused else ""
            raise ClientError(
                f"no such server answers at {url} ({_sentence(str(error)) or type(error).__name__}){hint}"
            ) from error
        try:
            async with asyncio.timeout(OPEN_S):
                while not dialect.opened(await connection.recv()):
                    pass
                for message in dialect.first():
                    await connection.send(message)
        except (ConnectionClosed, TimeoutError, ValueError) as error:
            await connection.close()
            reason = _sentence(str(error)) or "it said nothing"
            raise ClientError(f"the server at {url} did not open a session: {reason}") from error
        return cls(connection, dialect)

    async def push(self, samples: np.ndarray) -> None:
        """User audio, a whole number of ticks; silently dropped when the connection has closed: `get` tells."""
        try:
            await self._connection.send(self._dialect.audio(samples))
        except ConnectionClosed:
            pass

    async def played(self, played_ms: int) -> None:
        """Nothing of the kind is said in these dialects."""

    async def close(self) -> None:
        self._over = True
        await self._connection.close()

    async def get(self) -> tuple[np.ndarray, list[dict]] | None:
        """The next audio, when it is time to play it, or the next event; None when the session is over."""
        while True:
            if self._news:
                return NOTHING, [self._news.popleft()]
            wait_s = None
            if self._line:
                wait_s = self._due - time.monotonic()
                if wait_s <= 0:
                    return self._next()
            if self._over:
                return None
            try:
                async with asyncio.timeout(wait_s):
                    message = await self._connection.recv()
                for item in self._dialect.received(message):
                    await self._take(item)
            except TimeoutError:
                continue
            except ConnectionClosed:
                if not self._over:
                    await self._break("lost", "the connection to the server was lost")
            except ValueError as error:
                await self._break(
                    "bad_message",
                    f"the server sent what no such server sends: {_sentence(str(error))}",
                )

    def _next(self) -> tuple[np.ndarray, list[dict]]:
        item = self._line.popleft()
        if isinstance(item, dict):
            return NOTHING, [item]
        if len(item) > TICK_SAMPLES:
            self._line.appendleft(item[TICK_SAMPLES:])
            item = item[:TICK_SAMPLES]
        self._due = (
            max(self._due, time.monotonic() - TICK_S) + len(item) / SAMPLE_RATE
        )  # a tick late is made up for
        return item, []

    async def _take(self, item: np.ndarray | dict) -> None:
        if not isinstance(item, dict):
            self._line.extend([item] * (len(item) > 0))
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
        """An error of any kind ends the session: figures measured after one would be of something else."""
        self._over = True
        self._line.clear()
        self._news.append({"type": "error", "code": code, "text": text})
        await self._connection.close()


def address(url: str, dialect: str) -> str:
    """With the dialect's own path where the url names only a server."""
    parts = urlsplit(url)
    path = {"duplex": protocol.PATH, "realtime": Realtime.path, "moshi": Moshi.path}[dialect]
    return url if parts.path not in ("", "/") else urlunsplit(parts._replace(path=path))


async def open_session(
    url: str, dialect: str, seed: int, api_key: str | None
) -> RemoteSession | PacedSession:
    """Raises ClientError. A seed is for the dialects that have one."""
    url = address(url, dialect)
    if dialect == "duplex":
        return await RemoteSession.open(url, seed=seed, api_key=api_key)
    if dialect == "realtime":
        return await PacedSession.open(url, Realtime(), api_key)
    if "text_seed=" not in url:
        url += f"{'&' if '?' in url else '?'}text_seed={seed}&audio_seed={seed}"
    return await PacedSession.open(url, Moshi(), api_key)


def _ending(response) -> dict:
    """Of a response.done."""
    response = response if isinstance(response, dict) else {}
    details = response.get("status_details")
    if response.get("status") == "failed":
        return {
            "type": "error",
            "code": "server",
            "text": _told(details.get("error") if isinstance(details, dict) else None),
        }
    if response.get("status") == "cancelled":
        return {"type": "agent_stopped", "text": "", "cancelled": True}
    return {"type": "agent_ended"}


def _object(message: bytes | str) -> dict:
    if isinstance(message, bytes):
        raise ValueError("messages are JSON text")
    fields = json.loads(message)
    if not isinstance(fields, dict):
        raise ValueError("a message is a JSON object")
    return fields


def _told(error) -> str:
    """The sentence in an error of OpenAI's form."""
    return (
        _sentence(str(error.get("message", "an error"))) if isinstance(error, dict) else "an error"
    )


def _sentence(text: str) -> str:
    return text.strip().split("\n")[0][:200]
