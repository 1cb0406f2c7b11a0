"""The clients' sides of other dialects, without I/O: messages to events by our names and to audio.

A dialect has the path of its servers and four functions: what a client says when the session is
open, whether a message says that it is, a tick of audio as a message, and what a message means.
"""

import base64
import json

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.serving import moshi
from duplex.serving.native import messages as native
from duplex.serving.openai import realtime as openai_realtime
from duplex.serving.sound import opus

# An event by our names, or audio, float32 [N].
Item = dict | np.ndarray


class RealtimeClient:
    """OpenAI Realtime: pcm16 at 24 kHz, GA event names; the server takes the turns.

    Of an answer whose sound has come in full only the client knows that it is still being played.
    """

    path = openai_realtime.PATH

    def __init__(self):
        self.is_answering = False  # between response.created and response.done
        self._transcribed: set[str] = set()  # items whose words came in pieces

    def first(self) -> list[str]:
        """What the client says when the session is open."""
        pcm = {"type": "audio/pcm", "rate": SAMPLE_RATE}
        audio = {"input": {"format": pcm}, "output": {"format": pcm}}
        session = {"type": "realtime", "output_modalities": ["audio"], "audio": audio}
        return [json.dumps({"type": "session.update", "session": session})]

    def audio(self, samples: np.ndarray) -> str:
        """User audio, float32 [N], as a message."""
        pcm = base64.b64encode(native.encode_audio(samples)).decode()
        return json.dumps({"type": "input_audio_buffer.append", "audio": pcm})

    def opened(self, message: bytes | str) -> bool:
        """Whether the message says that the session is open. ValueError: it says something else."""
        fields = _object(message)
        if fields.get("type") == "error":
            raise ValueError(_error_text(fields.get("error")))
        if fields.get("type") != "session.created":
            raise ValueError(f"it sent {fields.get('type')!r:.80} first")
        return True

    def received(self, message: bytes | str) -> list[Item]:
        """Audio and events in order. ValueError: no such server sends this."""
        fields = _object(message)
        match fields.get("type"):
            case "input_audio_buffer.speech_started":
                # An answer that is being made is cancelled by the server, or not; one that has been
                # sent in full is cut by the client.
                stopped = {"type": "agent_stopped", "text": ""}
                return [{"type": "user_started"}] + ([] if self.is_answering else [stopped])
            case "input_audio_buffer.speech_stopped":
                return [{"type": "user_ended"}]
            case "conversation.item.input_audio_transcription.delta":
                self._transcribed.add(str(fields.get("item_id")))
                return [{"type": "heard", "text": str(fields.get("delta", ""))}]
            case "conversation.item.input_audio_transcription.completed":
                if str(fields.get("item_id")) in self._transcribed:
                    return []
                return [{"type": "heard", "text": str(fields.get("transcript", ""))}]
            case "response.created":
                self.is_answering = True
                return [{"type": "agent_started"}]
            case "response.output_audio_transcript.delta":
                return [{"type": "said", "text": str(fields.get("delta", ""))}]
            case "response.output_audio.delta":
                delta = fields.get("delta")
                if not isinstance(delta, str):
                    raise ValueError("an audio delta is base64")
                return [native.decode_audio(base64.b64decode(delta, validate=True))]
            case "response.done":
                self.is_answering = False
                return [_ending(fields.get("response"))]
            case "error":
                return [_server_error(_error_text(fields.get("error")))]
        return []


class MoshiClient:
    """Moshi's bytes, see duplex/serving/moshi.py: Ogg-Opus both ways, silence included.

    It tells words, but not when turns begin.
    """

    path = moshi.PATH

    def __init__(self):
        self._encoder = opus.Encoder()
        self._decoder = opus.Decoder()

    def first(self) -> list[bytes]:
        """Nothing."""
        return []

    def audio(self, samples: np.ndarray) -> bytes:
        """User audio, float32 [N] of whole ticks, as a message."""
        return moshi.Kind.AUDIO + self._encoder.encode(samples)

    def opened(self, message: bytes | str) -> bool:
        """Whether the message says that the session is open. ValueError: it says something else."""
        if isinstance(message, str):
            raise ValueError("it sent text, not bytes")
        if message[:1] in (moshi.Kind.AUDIO, moshi.Kind.TEXT):
            raise ValueError("it sent no handshake")
        if message[:1] == moshi.Kind.ERROR:
            raise ValueError(sentence(message[1:].decode(errors="replace")))
        return message[:1] == moshi.Kind.HANDSHAKE  # metadata may come before

    def received(self, message: bytes | str) -> list[Item]:
        """Audio and events in order. ValueError: no such server sends this."""
        if isinstance(message, str):
            raise ValueError("messages are bytes")
        kind = message[:1]
        rest = message[1:]
        if kind == moshi.Kind.AUDIO:
            return [self._decoder.decode(rest)]
        if kind == moshi.Kind.TEXT:
            return [{"type": "said", "text": rest.decode()}]
        if kind == moshi.Kind.ERROR:
            return [_server_error(sentence(rest.decode(errors="replace")))]
        return []


def sentence(text: str) -> str:
    """The first line of a text, if it is not too long."""
    return text.strip().split("\n")[0][:200]


def _ending(response: object) -> dict:
    """What a response.done means."""
    response = response if isinstance(response, dict) else {}
    if response.get("status") == "failed":
        details = response.get("status_details")
        error = details.get("error") if isinstance(details, dict) else None
        return _server_error(_error_text(error))
    if response.get("status") == "cancelled":
        return {"type": "agent_stopped", "text": "", "cancelled": True}
    return {"type": "agent_ended"}


def _server_error(text: str) -> dict:
    return {"type": "error", "code": "server", "text": text}


def _object(message: bytes | str) -> dict:
    """The fields of a message."""
    if isinstance(message, bytes):
        raise ValueError("messages are JSON text")
    fields = json.loads(message)
    if not isinstance(fields, dict):
        raise ValueError("a message is a JSON object")
    return fields


def _error_text(error: object) -> str:
    """The sentence in an error of OpenAI's form."""
    return (
        sentence(str(error.get("message", "an error"))) if isinstance(error, dict) else "an error"
    )
