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
|        |                 | system)                   | speech                                    |
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

from duplex import voice_print, voices
from duplex.audio import SAMPLE_RATE, TICK_MS
from duplex.errors import ProtocolError
from duplex.events import Ended, Ending, Error, Event, Lag, ToolCall
from duplex.serving.commands import (
    AgentCommand,
    Answer,
    Audio,
    Configure,
    End,
    Enroll,
    GiveResult,
    Heed,
    NameSpeaker,
    Resume,
    SetPlaybackPosition,
    SetTools,
    SetVoice,
    Start,
    Stop,
    Write,
)
from duplex.serving.tools import read_choice, read_tools

PATH = "/v1/duplex"
SUBPROTOCOL = "duplex"
# Samples a second that PCM16 may have.
RATES = (8_000, 16_000, 24_000, 48_000)
# Bytes of a message: 21 s of audio, far more than one message needs.
MAX_MESSAGE_BYTES = 1 << 20
# Characters of instructions.
MAX_INSTRUCTIONS = 4_000
# Words that are likely, and the characters of one.
MAX_HINTS = 50
MAX_HINT = 60
# Characters of a text message for the conversation: it is read at the pace of ticks.
MAX_TEXT = 1_000

# Characters of the result of a call.
MAX_OUTPUT = 100_000

# Commands that need an open session.
ForSession = (
    SetPlaybackPosition
    | Stop
    | Answer
    | Configure
    | SetVoice
    | SetTools
    | GiveResult
    | Write
    | Heed
    | Enroll
    | NameSpeaker
)
ClientCommand = Audio | Start | Resume | ForSession | End


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


def encode_command(command: AgentCommand) -> str:
    """What a client asks for while the session goes on. Raises ProtocolError."""
    match command:
        case SetPlaybackPosition(ms):
            fields = {"type": "playback", "played_ms": ms}
        case Write(role, text):
            fields = {"type": "text", "text": text, **({} if role == "user" else {"role": role})}
        case Stop():
            fields = {"type": "agent.stop"}
        case Answer():
            fields = {"type": "agent.answer"}
        case Configure(instructions, False):
            fields = {"type": "agent.instruct", "instructions": instructions}
        case SetVoice(voice, speed):
            fields = {"type": "agent.voice", "voice": voice, "speed": speed}
        case Heed(whom, print_text):
            known = {} if print_text is None else {"voice_print": print_text}
            fields = {"type": "speaker.heed", "heeds": whom, **known}
        case Enroll():
            fields = {"type": "speaker.enroll"}
        case NameSpeaker(speaker, name):
            fields = {"type": "speaker.name", "speaker": speaker, "name": name}
        case SetTools(tools, choice, notice):
            fields = {"type": "agent.tools", "tools": list(tools), "choice": choice}
            fields |= {"notice": notice} if notice else {}
        case GiveResult(call_id, output, True):
            fields = {"type": "tool", "call_id": call_id, "output": output}
        case _:
            raise TypeError(f"{command!r} is no message of this dialect")
    message = encode_object(fields)
    decode_client(message)
    return message


def decode_server(message: bytes | str) -> np.ndarray | dict:
    """What a server sent: a tick of audio or an event object. Raises ProtocolError."""
    if isinstance(message, bytes):
        return decode_audio(message)
    return json_object(message)


def decode_client(message: bytes | str) -> ClientCommand:
    """What a client sent, binary messages as PCM16. Raises ProtocolError."""
    if isinstance(message, bytes):
        return Audio(decode_audio(message))
    fields = json_object(message)
    match fields.get("type"):
        case "session.start":
            return to_start(fields)
        case "session.resume":
            return _resume(fields)
        case "playback":
            return _playback(fields)
        case "text":
            return _text(fields)
        case "speaker.heed":
            return _heed(fields)
        case "speaker.enroll":
            return Enroll()
        case "speaker.name":
            return _name_speaker(fields)
        case "agent.stop":
            return Stop()
        case "agent.answer":
            return Answer()
        case "agent.instruct":
            return _instruct(fields)
        case "agent.voice":
            return _voice(fields)
        case "agent.tools":
            return _tools(fields)
        case "tool":
            return _result(fields)
        case "session.end":
            return End()
        case other:
            raise ProtocolError(
                f"a client sends binary audio or one of the types in the table, not {other!r:.80}"
            )


def json_object(message: str) -> dict:
    """The object in a text message. Raises ProtocolError."""
    try:
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


def to_start(fields: dict) -> Start:
    """How a session shall begin, by the fields of session.start. Raises ProtocolError."""
    names = [field.name for field in dataclasses.fields(Start)]
    _only(fields, *names)
    start = Start(**{name: value for name, value in fields.items() if name != "type"})
    if not isinstance(start.hints, list | tuple) or len(start.hints) > MAX_HINTS:
        raise ProtocolError(f"hints is a list of at most {MAX_HINTS} words")
    if not all(_is_text(word, 1, MAX_HINT) for word in start.hints):
        raise ProtocolError(f"a hint is a text of 1 to {MAX_HINT} characters")
    start = dataclasses.replace(start, hints=tuple(start.hints))
    if start.instructions is not None:
        _check_instructions(start.instructions)
    if start.seed is not None and not _is_whole(start.seed):
        raise ProtocolError("seed is a whole number from 0 to 2147483647")
    if start.temperature is not None and not _is_number(start.temperature, 0, 2):
        raise ProtocolError("temperature is a number from 0 to 2")
    voice = voices.DEFAULT if start.voice is None else start.voice
    _check_voice(voice, 1.0 if start.speed is None else start.speed)
    if start.audio not in ("pcm16", "opus", "opus_packets"):
        raise ProtocolError("audio is pcm16, opus or opus_packets")
    if start.rate not in RATES or type(start.rate) is not int:
        raise ProtocolError(f"rate is one of {', '.join(map(str, RATES))}")
    if start.audio != "pcm16" and start.rate != SAMPLE_RATE:
        raise ProtocolError("rate is for pcm16; Opus is decoded at any rate")
    _check_heeded(start.heeds, start.voice_print)
    return start


def _check_instructions(instructions) -> None:
    if not _is_text(instructions, 0, MAX_INSTRUCTIONS):
        raise ProtocolError(f"instructions is a text of at most {MAX_INSTRUCTIONS} characters")


def _check_voice(voice, speed) -> None:
    if voice not in list(voices.VOICES):
        raise ProtocolError(f"voice is one of {', '.join(voices.VOICES)}")
    lowest, highest = voices.SPEEDS
    if not _is_number(speed, lowest, highest):
        raise ProtocolError(f"speed is a number from {lowest} to {highest}")


def _instruct(fields: dict) -> Configure:
    _only(fields, "instructions")
    _check_instructions(fields.get("instructions"))
    return Configure(fields["instructions"])


def _voice(fields: dict) -> SetVoice:
    _only(fields, "voice", "speed")
    speed = fields.get("speed", 1.0)
    _check_voice(fields.get("voice"), speed)
    return SetVoice(fields["voice"], speed)


def _tools(fields: dict) -> SetTools:
    _only(fields, "tools", "choice", "notice")
    notice = fields.get("notice", "")
    if not _is_text(notice, 0, MAX_TEXT):
        raise ProtocolError(f"notice is a text of at most {MAX_TEXT} characters")
    try:
        tools = read_tools(fields.get("tools"))
        return SetTools(tools, read_choice(fields.get("choice", "auto"), tools), notice)
    except ValueError as error:
        raise ProtocolError(str(error)) from None


def _result(fields: dict) -> GiveResult:
    _only(fields, "call_id", "output")
    call_id = fields.get("call_id")
    output = fields.get("output")
    if not _is_text(call_id, 1, 64) or not _is_text(output, 0, MAX_OUTPUT):
        raise ProtocolError(f"tool has a call_id and an output of at most {MAX_OUTPUT} characters")
    return GiveResult(call_id, output)


def _resume(fields: dict) -> Resume:
    _only(fields, "token", "received")
    token = fields.get("token")
    received = fields.get("received")
    if not isinstance(token, str) or type(received) is not int or received < 0:
        raise ProtocolError("session.resume has a token and the whole number of events received")
    return Resume(token, received)


def _playback(fields: dict) -> SetPlaybackPosition:
    _only(fields, "played_ms")
    played_ms = fields.get("played_ms")
    if not _is_whole(played_ms):
        raise ProtocolError("played_ms is a whole number of milliseconds from 0 on")
    return SetPlaybackPosition(played_ms)


def _text(fields: dict) -> Write:
    _only(fields, "text", "role")
    text = fields.get("text")
    role = fields.get("role", "user")
    if not _is_text(text, 1, MAX_TEXT) or role not in ("user", "system"):
        raise ProtocolError(f"text has 1 to {MAX_TEXT} characters and the role user or system")
    return Write(role, text)


def _heed(fields: dict) -> Heed:
    _only(fields, "heeds", "voice_print")
    _check_heeded(fields.get("heeds"), fields.get("voice_print"))
    return Heed(fields["heeds"], fields.get("voice_print"))


def _check_heeded(whom, print_text) -> None:
    if whom not in ("anyone", "first", "enrolled"):
        raise ProtocolError("heeds is anyone, first or enrolled")
    if print_text is None:
        return
    if not isinstance(print_text, str):
        raise ProtocolError("voice_print is the text of a speaker_enrolled event")
    try:
        voice_print.decode(print_text)
    except ValueError as error:
        raise ProtocolError(str(error)) from None


def _name_speaker(fields: dict) -> NameSpeaker:
    _only(fields, "speaker", "name")
    speaker = fields.get("speaker")
    name = fields.get("name")
    if not _is_whole(speaker) or speaker == 0 or not _is_text(name, 1, MAX_HINT):
        raise ProtocolError(f"speaker.name has a speaker from 1 on and 1 to {MAX_HINT} characters")
    return NameSpeaker(speaker, name)


def _only(fields: dict, *names: str) -> None:
    if unknown := sorted(fields.keys() - {"type", *names}):
        kind = fields.get("type", "session.start")
        raise ProtocolError(f"{kind} has {' and '.join(names)}, not {unknown[0]!r:.80}")


def _is_text(value, shortest: int, longest: int) -> bool:
    return isinstance(value, str) and shortest <= len(value) <= longest


def _is_whole(value) -> bool:
    """Whether it is an integer from 0 to 2**31 - 1; a truth value is none."""
    return type(value) is int and 0 <= value < 2**31


def _is_number(value, lowest: float, highest: float) -> bool:
    return type(value) in (int, float) and lowest <= value <= highest
