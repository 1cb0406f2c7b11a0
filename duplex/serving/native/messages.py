"""The native dialect of the wire at /v1/duplex, protocol version 1: messages to values and back.

Audio, both ways, is PCM16 little endian, 24 kHz, mono, in binary messages: from the client of any
length, at the pace of real time; from the server 80 ms each, 1920 samples. In session.start `rate`
asks for PCM16 at 8000, 16000 or 48000 instead, `audio` for "opus", pages of Ogg-Opus, or for
"opus_packets", one packet of Opus a message, 40 ms each from the server. Everything else is a JSON
object in a text message; `tick`, `start_ms`, `end_ms` are on the session's clock. No I/O here.

| from   | message         | fields                    | meaning                                   |
|--------|-----------------|---------------------------|-------------------------------------------|
| client | binary          |                           | user audio; opens the session when it     |
|        |                 |                           | comes first                               |
| client | session.start   | instructions?, seed?,     | opens the session; only as the first      |
|        |                 | temperature?, voice?,     | message; voice is one of those in         |
|        |                 | speed?, audio?, rate?,    | session.created, speed 0.5 to 1.5, hints  |
|        |                 | hints?, heeds?,           | words that the user may well say; heeds   |
|        |                 | voice_print?              | as in speaker.heed                        |
| client | session.resume  | token, received           | goes on with a session after a lost       |
|        |                 |                           | connection                                |
| client | session.end     |                           | the client has finished; session.ended    |
|        |                 |                           | answers                                   |
| client | playback        | played_ms                 | the agent's voice was heard up to this    |
|        |                 |                           | time                                      |
| client | agent.stop      |                           | the agent shall fall silent               |
| client | agent.answer    |                           | the agent shall speak now                 |
| client | agent.instruct  | instructions              | other instructions from now on            |
| client | agent.voice     | voice, speed?             | another voice from the next word on       |
| client | agent.tools     | tools, choice?, notice?   | functions that it may have called, see    |
|        |                 |                           | below                                     |
| client | tool            | call_id, output           | the result of a call, a text              |
| client | text            | text, role? (user,        | text for the conversation, instead of     |
|        |                 | system, event)            | speech; of an event a large mind may      |
|        |                 |                           | speak unasked, when nobody does           |
| client | speaker.heed    | heeds (anyone, first,     | the others are written down, and neither  |
|        |                 | enrolled), voice_print?   | interrupt nor are answered                |
| client | speaker.enroll  |                           | who speaks next gives a voice print: 5 s  |
|        |                 |                           | of speech                                 |
| client | speaker.name    | speaker, name             | a speaker has this name                   |
| server | session.created | id, sample_rate, tick_ms, | the session is open; the first message    |
|        |                 | protocol, voices, resume  |                                           |
| server | session.resumed | id, missed                | so many events follow that the client has |
|        |                 |                           | missed                                    |
| server | binary          |                           | one tick of the agent's voice, silence    |
|        |                 |                           | included                                  |
| server | user_started    | tick                      | the user speaks                           |
| server | heard           | tick, text                | a piece of the user's words, to be        |
|        |                 |                           | appended                                  |
| server | partial         | tick, text                | this turn so far, while the user speaks:  |
|        |                 |                           | to be shown until the next partial or     |
|        |                 |                           | corrected, in place of the pieces         |
| server | corrected       | tick, text                | all of this turn as people write it, in   |
|        |                 |                           | place of its pieces                       |
| server | user_ended      | tick, to (agent, other)   | the user has finished; was it for the     |
|        |                 |                           | agent?                                    |
| server | speaker_        | tick, turn, speaker       | a turn of the user, counted from 0, was   |
|        | corrected       |                           | somebody else's than was told             |
| server | speaker_named   | tick, speaker, text       | a speaker said what his name is           |
| server | speaker_        | tick, speaker, text       | text is the voice print that was wanted   |
|        | enrolled        |                           |                                           |
| server | backchannel     | tick, text                | the agent says "mhm" while the user goes  |
|        |                 |                           | on; it is part of no turn                 |
| server | sound           | tick, text                | a sound is heard, by its name, see below  |
| server | agent_started   | tick                      | the agent begins a turn                   |
| server | said            | tick, text                | a piece of the agent's words, when        |
|        |                 |                           | decided                                   |
| server | spoken          | tick, text, start_ms,     | a word in the agent's voice               |
|        |                 | end_ms                    |                                           |
| server | agent_ended     | tick                      | the agent has finished its turn           |
| server | agent_stopped   | tick, text                | the agent yields; text was decided, not   |
|        |                 |                           | heard                                     |
| server | tool            | tick, call_id, name,      | the client shall call a function;         |
|        |                 | arguments                 | arguments is a JSON object as a text      |
| server | lag             | tick, COUNTS              | what went wrong with time since the last  |
|        |                 |                           | lag                                       |
| server | error           | code, text                | one sentence, see the codes below         |
| server | session.ending  | text, within_ms           | the server closes: it ends with the turn, |
|        |                 |                           | or then                                   |
| server | session.ended   | text, ticks, COUNTS       | why it ended; the last message            |

COUNTS are silence_ms (heard as silence, the audio came late), dropped_ms (user audio dropped, too
much of it waited), late_ticks (took longer than a tick), unread_ticks (agent audio dropped, nobody
fetched it); lag comes at most once a second. Events that say when something happened to words may
carry start_ms and end_ms too.

Speakers: the user's events have a field `speaker`, a small number from 1 on, once a second voice
was heard; so a session with one person is as it always was. A turn without it was speaker 1's, or
its speaker is not known yet; `heard` tells who speaks these words, the others whose turn it mostly
is. At most four are told apart. A voice print is all that is kept of a voice, and the client alone
keeps it; heeding the enrolled one without a voice_print means who enrolled last in this session.

Sounds: the agent knows a dog, rain, sea waves, a crying baby, a ticking clock, a sneeze, a
helicopter, a chainsaw, a rooster and a crackling fire. It tells each one and a half seconds after
it has begun, and again only after it was gone for 3 s. A large mind can be asked for them.

Tools: each has `name`, `description` and `parameters`, a JSON schema; choice is auto, none,
required, or a name. A large mind is needed, otherwise the answer is `refused`. While a call runs
the agent listens, answers and can be interrupted; after 1.5 s it says the `notice`, if there is
one. It speaks of the result when all are there, after 30 s of there being none, and of one that
comes later still.

Playback: a client that tells how much was heard (on the session's clock, where message k of agent
audio covers the 80 ms from k * 80 on) has the model remember, at an interruption, only that. A
client that never tells is taken to hear all it is sent.

Resume: a session whose connection breaks lives on for 30 s. `token` is the value of `resume`,
`received` the number of text messages that came after session.created or session.resumed, over all
connections. The missed ones come in order, then the session goes on; of the audio that was missed
only what waits, at most two seconds, is sent.

Key: `Authorization: Bearer KEY`; browsers offer the subprotocols `duplex` and `bearer.KEY`.

Error codes: bad_message (the message is ignored, the session goes on), refused (what was asked for
cannot be; the session goes on), full, idle, model, stopped, gone (nothing to resume). Close codes:
1000 ended, 1001 the server shuts down, 1008 abuse or nothing sent, 1009 message too large, 1011 the
model failed, 1013 all places are taken.
"""

import dataclasses
import json
from enum import IntEnum

import numpy as np

from duplex import voices
from duplex.audio import SAMPLE_RATE, TICK_MS
from duplex.errors import ProtocolError
from duplex.events import Ended, Ending, Error, Event, Lag, ToolCall
from duplex.serving.commands import Start

PATH = "/v1/duplex"
# Where a session opens is asked for here, in HTTP.
SESSIONS = "/v1/sessions"
SUBPROTOCOL = "duplex"


class CloseCode(IntEnum):
    """Why the server closes a connection."""

    ENDED = 1000
    GOING_AWAY = 1001
    ABUSE = 1008
    FAILED = 1011
    FULL = 1013


# With which a proxy that is restarted closes: the session waits for its client.
PROXY_CLOSE_CODES = (CloseCode.GOING_AWAY, 1012)


def encode_audio(samples: np.ndarray) -> bytes:
    """PCM16 little endian of float [N].

    Beyond full scale is clipped, what is not a number is silence.
    """
    scaled = np.rint(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0) * 32768.0)
    return np.clip(scaled, -32768, 32767).astype("<i2").tobytes()


def decode_audio(message: bytes) -> np.ndarray:
    """float32 [N] of PCM16 little endian. Raises ProtocolError."""
    if len(message) % 2:
        raise ProtocolError(
            f"audio is 16 bit, so {len(message)} bytes cannot be a whole number of samples"
        )
    return np.frombuffer(message, "<i2").astype(np.float32) / 32768.0


def event_fields(event) -> dict:
    """An event record as the object that goes over the wire.

    `kind` becomes `type`, empty fields are left out.
    """
    fields = dataclasses.asdict(event)
    kind = fields.pop("kind")
    told = {name: value for name, value in fields.items() if value not in (None, "")}
    return {"type": kind, **told}


def decode_event(fields: dict) -> Event | ToolCall | Lag | Error | Ending | Ended:
    """The record of an object that a server sent; fields of a later version are left out."""
    kind = fields.get("type", "")
    records = {
        "tool": ToolCall,
        "lag": Lag,
        "error": Error,
        "session.ending": Ending,
        "session.ended": Ended,
    }
    record = records.get(kind, Event)
    found = {}
    for wanted in dataclasses.fields(record):
        if wanted.name in fields:
            found[wanted.name] = fields[wanted.name]
        elif wanted.default is dataclasses.MISSING:
            found[wanted.name] = wanted.type()
    return record(**found | {"kind": kind})


def encode_event(event) -> str:
    """An event record as a message."""
    return encode_object(event_fields(event))


def encode_object(fields: dict) -> str:
    """A JSON object as a message, without spaces."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def created(session_id: str, resume: str | None = None, rate: int = SAMPLE_RATE) -> dict:
    """The server's first message; resume: the token to come back with; rate: of the audio."""
    fields = {
        "type": "session.created",
        "id": session_id,
        "sample_rate": rate,
        "tick_ms": TICK_MS,
        "protocol": 1,
        "voices": list(voices.VOICES),
    }
    return fields | ({"resume": resume} if resume else {})


def encode_start(start: Start | None = None) -> str:
    """The client's first message; what is as usual is left out."""
    usual = dataclasses.asdict(Start())
    wanted = dataclasses.asdict(start or Start())
    chosen = {name: value for name, value in wanted.items() if value != usual[name]}
    return encode_object({"type": "session.start", **chosen})


def encode_end() -> str:
    """The client has finished."""
    return encode_object({"type": "session.end"})


def encode_resume(token: str, received: int) -> str:
    """The first message of a client that comes back."""
    return encode_object({"type": "session.resume", "token": token, "received": received})


def decode_server(message: bytes | str) -> np.ndarray | dict:
    """What a server sent: a tick of audio or an event object. Raises ProtocolError."""
    if isinstance(message, bytes):
        return decode_audio(message)
    return json_object(message)


def json_object(message: bytes | str) -> dict:
    """The object in a message, as text or in UTF-8. Raises ProtocolError."""
    try:
        message = message if isinstance(message, str) else message.decode()
        fields = json.loads(message, parse_constant=_not_a_number)
        if "\\ud" in message.lower():
            # The half of a character cannot be told again: a question mark stands for it.
            text = json.dumps(fields, ensure_ascii=False)
            fields = json.loads(text.encode(errors="replace"))
    except (ValueError, RecursionError):
        raise ProtocolError("a text message is a JSON object; this one is not JSON") from None
    if not isinstance(fields, dict):
        raise ProtocolError(f"a text message is a JSON object, not a {type(fields).__name__}")
    return fields


def _not_a_number(name: str) -> float:
    """Python reads NaN and Infinity, which are not JSON."""
    raise ValueError(name)
