"""The native dialect of the wire, without any I/O: websocket messages to values and back.

Address: ws://HOST:PORT/v1/duplex, protocol version 1. Audio, both ways, is PCM16 little endian, 24 kHz, mono, in
binary messages: from the client of any length, at the pace of real time; from the server 1920 samples every 80 ms.
Everything else is a JSON object in a text message; `tick`, `start_ms`, `end_ms` are on the session's clock.

| from   | message         | fields                             | meaning                                           |
|--------|-----------------|------------------------------------|---------------------------------------------------|
| client | binary          |                                    | user audio; opens the session when it comes first |
| client | session.start   | instructions?, seed?               | opens the session; only as the first message      |
| client | session.end     |                                    | the client has finished; session.ended answers    |
| server | session.created | id, sample_rate, tick_ms, protocol | the session is open; the first message            |
| server | binary          |                                    | one tick of the agent's voice, silence included   |
| server | user_started    | tick                               | the user speaks                                   |
| server | heard           | tick, text                         | a piece of the user's words, to be appended       |
| server | user_ended      | tick                               | the user has finished                             |
| server | agent_started   | tick                               | the agent begins a turn                           |
| server | said            | tick, text                         | a piece of the agent's words, when decided        |
| server | spoken          | tick, text, start_ms, end_ms       | a word in the agent's voice                       |
| server | agent_ended     | tick                               | the agent has finished its turn                   |
| server | agent_stopped   | tick, text                         | the agent yields; text was decided, not said      |
| server | lag             | tick, COUNTS                       | what went wrong with time since the last lag      |
| server | error           | code, text                         | one sentence, see the codes below                 |
| server | session.ended   | text, ticks, COUNTS                | why it ended; the last message                    |

COUNTS are silence_ms (heard as silence, the audio came late), dropped_ms (user audio dropped, too much of it waited),
late_ticks (took longer than a tick), unread_ticks (agent audio dropped, nobody fetched it); lag comes at most once a
second. Events that say when something happened to words may carry start_ms and end_ms too. Error codes: bad_message
(the message is ignored, the session goes on), full, idle, model, stopped (the session does not exist or is over).
Close codes: 1000 ended, 1001 the server shuts down, 1008 abuse or nothing sent, 1009 message too large,
1011 the model failed, 1013 all places are taken.
"""

import dataclasses
import json
from dataclasses import dataclass

import numpy as np

from duplex.audio import SAMPLE_RATE, TICK_MS

PATH = "/v1/duplex"
VERSION = 1
MAX_MESSAGE_BYTES = 1 << 20  # 21 s of audio, far more than one message needs
MAX_INSTRUCTIONS = 4_000  # characters
MAX_BAD_MESSAGES = 20  # then the connection is closed as abuse

CLOSE_ENDED, CLOSE_GOING_AWAY, CLOSE_ABUSE, CLOSE_FAILED, CLOSE_FULL = 1000, 1001, 1008, 1011, 1013


class ProtocolError(ValueError):
    """A message outside the table; the text is one sentence for the sender."""


@dataclass(frozen=True)
class Audio:
    samples: np.ndarray  # float32 [N] in [-1, 1)


@dataclass(frozen=True)
class Start:
    instructions: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class End:
    pass


def encode_audio(samples: np.ndarray) -> bytes:
    """float [N] -> PCM16 little endian; beyond full scale is clipped, what is not a number is silence."""
    scaled = np.rint(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0) * 32768.0)
    return np.clip(scaled, -32768, 32767).astype("<i2").tobytes()


def decode_audio(message: bytes) -> np.ndarray:
    """PCM16 little endian -> float32 [N]."""
    if len(message) % 2:
        raise ProtocolError(f"audio is 16 bit, so {len(message)} bytes cannot be a whole number of samples")
    return np.frombuffer(message, "<i2").astype(np.float32) / 32768.0


def event_fields(event) -> dict:
    """An event record as the object that goes over the wire: `kind` becomes `type`, empty fields are left out."""
    fields = dataclasses.asdict(event)
    return {"type": fields.pop("kind"), **{name: value for name, value in fields.items() if value not in (None, "")}}


def encode_event(event) -> str:
    return encode_object(event_fields(event))


def encode_object(fields: dict) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def created(session_id: str) -> dict:
    return {
        "type": "session.created",
        "id": session_id,
        "sample_rate": SAMPLE_RATE,
        "tick_ms": TICK_MS,
        "protocol": VERSION,
    }


def encode_start(instructions: str | None = None, seed: int | None = None) -> str:
    options = {"instructions": instructions, "seed": seed}
    return encode_object({"type": "session.start", **{k: v for k, v in options.items() if v is not None}})


def encode_end() -> str:
    return encode_object({"type": "session.end"})


def decode_client(message: bytes | str) -> Audio | Start | End:
    """What a client sent, or ProtocolError."""
    if isinstance(message, bytes):
        return Audio(decode_audio(message))
    fields = _json_object(message)
    match fields.get("type"):
        case "session.start":
            return _start(fields)
        case "session.end":
            return End()
        case other:
            raise ProtocolError(f"a client sends session.start, session.end or binary audio, not type {other!r:.80}")


def decode_server(message: bytes | str) -> np.ndarray | dict:
    """What a server sent: a tick of audio or an event object."""
    if isinstance(message, bytes):
        return decode_audio(message)
    return _json_object(message)


def _json_object(message: str) -> dict:
    try:
        fields = json.loads(message)
    except (ValueError, RecursionError):
        raise ProtocolError("a text message is a JSON object; this one is not JSON") from None
    if not isinstance(fields, dict):
        raise ProtocolError(f"a text message is a JSON object, not a {type(fields).__name__}")
    return fields


def _start(fields: dict) -> Start:
    instructions, seed = fields.get("instructions"), fields.get("seed")
    if unknown := sorted(fields.keys() - {"type", "instructions", "seed"}):
        raise ProtocolError(f"session.start has instructions and seed, not {unknown[0]!r:.80}")
    if instructions is not None and not (isinstance(instructions, str) and len(instructions) <= MAX_INSTRUCTIONS):
        raise ProtocolError(f"instructions is a text of at most {MAX_INSTRUCTIONS} characters")
    if seed is not None and not (type(seed) is int and 0 <= seed < 2**31):
        raise ProtocolError("seed is a whole number from 0 to 2147483647")
    return Start(instructions, seed)
