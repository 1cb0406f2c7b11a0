"""What clients of the native dialect may ask for: messages to commands and back. No I/O.

The messages are listed in duplex/serving/native/messages.py; here is what each field may be.
"""

import dataclasses

from duplex import voice_print, voices
from duplex.audio import SAMPLE_RATE
from duplex.errors import ProtocolError
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
from duplex.serving.native import messages as native
from duplex.serving.tools import read_choice, read_tools

# Samples a second that PCM16 may have.
RATES = (8_000, 16_000, 24_000, 48_000)
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
    message = native.encode_object(fields)
    decode_client(message)
    return message


def decode_client(message: bytes | str) -> ClientCommand:
    """What a client sent, binary messages as PCM16. Raises ProtocolError."""
    if isinstance(message, bytes):
        return Audio(native.decode_audio(message))
    fields = native.json_object(message)
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
    if not _is_text(text, 1, MAX_TEXT) or role not in ("user", "system", "event"):
        roles = "user, system or event"
        raise ProtocolError(f"text has 1 to {MAX_TEXT} characters and the role {roles}")
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
