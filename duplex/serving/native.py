"""The native dialect of the wire, without any I/O: websocket messages to values and back.

Address: ws://HOST:PORT/v1/duplex, protocol version 1. Audio, both ways, is PCM16 little endian, 24 kHz, mono, in
binary messages: from the client of any length, at the pace of real time; from the server 1920 samples every 80 ms.
With `audio: "opus"` in session.start binary messages are pages of Ogg-Opus instead, both ways. Everything else is a JSON
object in a text message; `tick`, `start_ms`, `end_ms` are on the session's clock.

| from   | message         | fields                             | meaning                                           |
|--------|-----------------|------------------------------------|---------------------------------------------------|
| client | binary          |                                    | user audio; opens the session when it comes first |
| client | session.start   | instructions?, seed?, temperature?,| opens the session; only as the first message;     |
|        |                 | voice?, speed?,                    | voice is one of those in session.created, speed   |
|        |                 | audio? (pcm16, opus)               | 0.5 to 1.5                                        |
| client | session.resume  | token, received                    | goes on with a session after a lost connection    |
| client | session.end     |                                    | the client has finished; session.ended answers    |
| client | playback        | played_ms                          | the agent's voice was heard up to this time       |
| client | agent.stop      |                                    | the agent shall fall silent                       |
| client | agent.answer    |                                    | the agent shall speak now                         |
| client | text            | text, role? (user, system)         | text for the conversation, instead of speech      |
| server | session.created | id, sample_rate, tick_ms,          | the session is open; the first message            |
|        |                 | protocol, voices, resume           |                                                   |
| server | session.resumed | id, missed                         | so many events follow that the client has missed  |
| server | binary          |                                    | one tick of the agent's voice, silence included   |
| server | user_started    | tick                               | the user speaks                                   |
| server | heard           | tick, text                         | a piece of the user's words, to be appended       |
| server | corrected       | tick, text                         | all words of this turn, in place of its pieces    |
| server | user_ended      | tick, to (agent, other)            | the user has finished; was it for the agent?      |
| server | agent_started   | tick                               | the agent begins a turn                           |
| server | said            | tick, text                         | a piece of the agent's words, when decided        |
| server | spoken          | tick, text, start_ms, end_ms       | a word in the agent's voice                       |
| server | agent_ended     | tick                               | the agent has finished its turn                   |
| server | agent_stopped   | tick, text                         | the agent yields; text was decided, not heard     |
| server | lag             | tick, COUNTS                       | what went wrong with time since the last lag      |
| server | error           | code, text                         | one sentence, see the codes below                 |
| server | session.ending  | text, within_ms                    | the server closes: it ends with the turn, or then |
| server | session.ended   | text, ticks, COUNTS                | why it ended; the last message                    |

COUNTS are silence_ms (heard as silence, the audio came late), dropped_ms (user audio dropped, too much of it waited),
late_ticks (took longer than a tick), unread_ticks (agent audio dropped, nobody fetched it); lag comes at most once a
second. Events that say when something happened to words may carry start_ms and end_ms too.

Playback: a client that tells how much was heard (on the session's clock, where message k of agent audio covers the
80 ms from k * 80 on) has the model remember, at an interruption, only that. A client that never tells is taken to hear
all it is sent.

Resume: a session whose connection breaks lives on for 30 s. `token` is the value of `resume`, `received` the number of text
messages that came after session.created or session.resumed, over all connections. The missed ones come in order, then the
session goes on; of the audio that was missed only what waits, at most two seconds, is sent.

Key: `Authorization: Bearer KEY`; browsers offer the subprotocols `duplex` and `bearer.KEY`.

Error codes: bad_message (the message is ignored, the session goes on), refused (what was asked for cannot be; the session
goes on), full, idle, model, stopped, gone (nothing to resume). Close codes: 1000 ended, 1001 the server shuts down, 1008 abuse
or nothing sent, 1009 message too large, 1011 the model failed, 1013 all places are taken.
"""

import dataclasses
import json
from collections import deque

import numpy as np

from duplex import voices
from duplex.audio import SAMPLE_RATE, TICK_MS
from duplex.errors import ProtocolError
from duplex.events import Error
from duplex.serving import opus
from duplex.serving.commands import (
    Answer,
    Audio,
    End,
    Resume,
    SetPlaybackPosition,
    Start,
    Stop,
    Write,
)

PATH = "/v1/duplex"
VERSION = 1
MAX_MESSAGE_BYTES = 1 << 20  # 21 s of audio, far more than one message needs
MAX_INSTRUCTIONS = 4_000  # characters
MAX_TEXT = 1_000  # characters of a text message for the conversation: read at the pace of ticks
MAX_BAD_MESSAGES = 20  # then the connection is closed as abuse
MISSED_EVENTS = 2_000  # kept for a client that may come back
SUBPROTOCOL = "duplex"

CLOSE_ENDED, CLOSE_GOING_AWAY, CLOSE_ABUSE, CLOSE_FAILED, CLOSE_FULL = 1000, 1001, 1008, 1011, 1013


def encode_audio(samples: np.ndarray) -> bytes:
    """float [N] -> PCM16 little endian; beyond full scale is clipped, what is not a number is silence."""
    scaled = np.rint(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0) * 32768.0)
    return np.clip(scaled, -32768, 32767).astype("<i2").tobytes()


def decode_audio(message: bytes) -> np.ndarray:
    """PCM16 little endian -> float32 [N]."""
    if len(message) % 2:
        raise ProtocolError(
            f"audio is 16 bit, so {len(message)} bytes cannot be a whole number of samples"
        )
    return np.frombuffer(message, "<i2").astype(np.float32) / 32768.0


def event_fields(event) -> dict:
    """An event record as the object that goes over the wire: `kind` becomes `type`, empty fields are left out."""
    fields = dataclasses.asdict(event)
    return {
        "type": fields.pop("kind"),
        **{name: value for name, value in fields.items() if value not in (None, "")},
    }


def encode_event(event) -> str:
    return encode_object(event_fields(event))


def encode_object(fields: dict) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def created(session_id: str, resume: str | None = None) -> dict:
    return {
        "type": "session.created",
        "id": session_id,
        "sample_rate": SAMPLE_RATE,
        "tick_ms": TICK_MS,
        "protocol": VERSION,
        "voices": list(voices.VOICES),
        **({"resume": resume} if resume else {}),
    }


def encode_start(start: Start | None = None) -> str:
    """The client's first message; what is as usual is left out."""
    usual, wanted = (dataclasses.asdict(one) for one in (Start(), start or Start()))
    chosen = {name: value for name, value in wanted.items() if value != usual[name]}
    return encode_object({"type": "session.start", **chosen})


def encode_end() -> str:
    return encode_object({"type": "session.end"})


def encode_resume(token: str, received: int) -> str:
    return encode_object({"type": "session.resume", "token": token, "received": received})


def encode_playback(played_ms: int) -> str:
    return encode_object({"type": "playback", "played_ms": played_ms})


def decode_client(
    message: bytes | str,
) -> Audio | Start | Resume | SetPlaybackPosition | Stop | Answer | Write | End:
    """What a client sent, binary messages as PCM16, or ProtocolError."""
    if isinstance(message, bytes):
        return Audio(decode_audio(message))
    fields = json_object(message)
    match fields.get("type"):
        case "session.start":
            return _start(fields)
        case "session.resume":
            _only(fields, "token", "received")
            token, received = fields.get("token"), fields.get("received")
            if not isinstance(token, str) or type(received) is not int or received < 0:
                raise ProtocolError(
                    "session.resume has a token and the whole number of events received"
                )
            return Resume(token, received)
        case "playback":
            _only(fields, "played_ms")
            played_ms = fields.get("played_ms")
            if type(played_ms) is not int or not 0 <= played_ms < 2**31:
                raise ProtocolError("played_ms is a whole number of milliseconds from 0 on")
            return SetPlaybackPosition(played_ms)
        case "text":
            _only(fields, "text", "role")
            text, role = fields.get("text"), fields.get("role", "user")
            if not (isinstance(text, str) and 0 < len(text) <= MAX_TEXT) or role not in (
                "user",
                "system",
            ):
                raise ProtocolError(
                    f"text has 1 to {MAX_TEXT} characters and the role user or system"
                )
            return Write(role, text)
        case "agent.stop":
            return Stop()
        case "agent.answer":
            return Answer()
        case "session.end":
            return End()
        case other:
            raise ProtocolError(
                f"a client sends binary audio or one of the types in the table, not {other!r:.80}"
            )


class Native:
    """One client of this dialect: its messages to commands, the session's ticks to messages."""

    opens_at_once = False
    is_resumable = True
    early_ticks = None
    start = Start()

    def __init__(self):
        self.started = False
        self.token = ""
        self._opus: tuple[opus.Decoder, opus.Encoder] | None = None
        self._events: deque[str] = deque(maxlen=MISSED_EVENTS)  # the last ones sent or to be sent
        self._sent = 0

    def receive(self, message: bytes | str) -> tuple[list, list]:
        """-> commands, messages to answer with. Raises ProtocolError."""
        if isinstance(message, bytes) and self._opus:
            return [Audio(self._opus[0].decode(message))], []
        command = decode_client(message)
        if isinstance(command, Start | Resume) and self.started:
            raise ProtocolError(
                "session.start and session.resume come once, before everything else"
            )
        if isinstance(command, SetPlaybackPosition | Stop | Answer | Write) and not self.started:
            raise ProtocolError("the session is not open yet; session.start opens it")
        self.started = True
        if isinstance(command, Start) and command.audio == "opus":
            self._opus = opus.Decoder(), opus.Encoder()
        return [command], []

    def opened(self, session_id: str) -> list:
        return [encode_object(created(session_id, self.token))]

    def resumed(self, session_id: str, received: int) -> list | None:
        """What a client that comes back has missed; None when too much of it is gone."""
        missed = self._sent - received
        if not 0 <= missed <= len(self._events):
            return None
        if self._opus:
            self._opus = opus.Decoder(), opus.Encoder()  # a stream begins with its header pages
        answer = encode_object({"type": "session.resumed", "id": session_id, "missed": missed})
        return [answer, *list(self._events)[len(self._events) - missed :]]

    def tick(self, audio: np.ndarray, events: list) -> list:
        messages = [encode_event(event) for event in events]
        self._events += messages
        self._sent += len(messages)
        if not len(audio):
            return messages
        return [self._opus[1].encode(audio) if self._opus else encode_audio(audio), *messages]

    def refused(self, error: Error) -> list:
        return [encode_event(error)]


def decode_server(message: bytes | str) -> np.ndarray | dict:
    """What a server sent: a tick of audio or an event object."""
    if isinstance(message, bytes):
        return decode_audio(message)
    return json_object(message)


def json_object(message: str) -> dict:
    try:
        fields = json.loads(message)
    except (ValueError, RecursionError):
        raise ProtocolError("a text message is a JSON object; this one is not JSON") from None
    if not isinstance(fields, dict):
        raise ProtocolError(f"a text message is a JSON object, not a {type(fields).__name__}")
    return fields


def _start(fields: dict) -> Start:
    instructions, seed, temperature = (
        fields.get("instructions"),
        fields.get("seed"),
        fields.get("temperature"),
    )
    voice, speed = fields.get("voice"), fields.get("speed")
    _only(fields, "instructions", "seed", "temperature", "voice", "speed", "audio")
    if instructions is not None and not (
        isinstance(instructions, str) and len(instructions) <= MAX_INSTRUCTIONS
    ):
        raise ProtocolError(f"instructions is a text of at most {MAX_INSTRUCTIONS} characters")
    if seed is not None and not (type(seed) is int and 0 <= seed < 2**31):
        raise ProtocolError("seed is a whole number from 0 to 2147483647")
    if temperature is not None and not (
        type(temperature) in (int, float) and 0 <= temperature <= 2
    ):
        raise ProtocolError("temperature is a number from 0 to 2")
    if voice is not None and voice not in list(voices.VOICES):
        raise ProtocolError(f"voice is one of {', '.join(voices.VOICES)}")
    if speed is not None and not (
        type(speed) in (int, float) and voices.SPEEDS[0] <= speed <= voices.SPEEDS[1]
    ):
        raise ProtocolError(f"speed is a number from {voices.SPEEDS[0]} to {voices.SPEEDS[1]}")
    if fields.get("audio", "pcm16") not in ("pcm16", "opus"):
        raise ProtocolError("audio is pcm16 or opus")
    return Start(instructions, seed, temperature, voice, speed, fields.get("audio", "pcm16"))


def _only(fields: dict, *names: str) -> None:
    if unknown := sorted(fields.keys() - {"type", *names}):
        raise ProtocolError(f"{fields['type']} has {' and '.join(names)}, not {unknown[0]!r:.80}")
