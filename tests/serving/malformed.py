"""Messages that no client should send: what clients do send, with something broken in it."""

import json
from random import Random

from duplex.serving import moshi, twilio
from duplex.serving.gpt_live import live
from duplex.serving.native import messages as native
from duplex.serving.openai import realtime
from duplex.serving.sound import opus
from tests.helpers import tone

PCM = "AAABAAIAAwAEAAUA"
ITEM = {
    "id": "a",
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "x"}],
}
TOOL = {
    "type": "function",
    "name": "f",
    "description": "d",
    "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
}
# As the chat completions have them, one level deeper.
DEEP_TOOL = {"type": "function", "function": {"name": "g", "parameters": {"properties": {}}}}
CHOICE = {"type": "function", "function": {"name": "g"}}
SESSION = {
    "type": "realtime",
    "instructions": "Be kind.",
    "output_modalities": ["audio"],
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "transcription": {"prompt": "Ada, Bo"},
            "turn_detection": {
                "type": "server_vad",
                "silence_duration_ms": 500,
                "idle_timeout_ms": 5000,
                "create_response": True,
            },
        },
        "output": {"voice": {"id": "marin"}, "speed": 1.0},
    },
    "max_output_tokens": "inf",
    "tools": [TOOL, DEEP_TOOL],
    "tool_choice": CHOICE,
}
BETA = {
    "input_audio_format": "pcm16",
    "modalities": ["text", "audio"],
    "turn_detection": {"type": "semantic_vad", "eagerness": "low"},
    "input_audio_transcription": {"model": "m", "prompt": "Ada"},
    "max_response_output_tokens": 9,
    "voice": "ash",
}
RESPONSE = {
    "conversation": "none",
    "input": [ITEM, {"type": "item_reference", "id": "a"}],
    "metadata": {"a": "b"},
    "instructions": "x",
    "tools": [TOOL],
    "tool_choice": {"type": "function", "name": "f"},
    "audio": {"output": {"voice": "ash", "format": {"type": "audio/pcm"}}},
}
LIVE = {
    "model": "m",
    "instructions": "x",
    "audio": {"format": {"type": "audio/pcm", "rate": 24000}, "output": {"voice": "marin"}},
    "delegation": {
        "type": "responses",
        "responses": {"tools": [TOOL, DEEP_TOOL], "tool_choice": CHOICE},
    },
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}],
}
CALL = {
    "streamSid": "MZ",
    "mediaFormat": {"encoding": "audio/x-mulaw"},
    "customParameters": {"instructions": "x", "voice": "oak", "speed": "1.0", "hints": "a, b"},
}
# By path: the messages of its clients.
MESSAGES = {
    native.PATH: [
        {"type": "session.start", "instructions": "x", "seed": 1, "voice": "oak", "hints": ["a"]},
        {"type": "session.resume", "token": "x", "received": 0},
        {"type": "text", "text": "x", "role": "user"},
        {"type": "playback", "played_ms": 100},
        {"type": "agent.answer"},
        {"type": "agent.voice", "voice": "oak", "speed": 1.0},
        {"type": "agent.tools", "tools": [TOOL, DEEP_TOOL], "choice": CHOICE, "notice": "wait"},
        {"type": "tool", "call_id": "c", "output": "x"},
        {"type": "speaker.heed", "heeds": "enrolled", "voice_print": "x"},
        {"type": "speaker.name", "speaker": 1, "name": "Ada"},
    ],
    realtime.PATH: [
        {"type": "session.update", "session": SESSION},
        {"type": "session.update", "session": BETA},
        {"type": "transcription_session.update", "session": BETA},
        {"type": "input_audio_buffer.append", "audio": PCM},
        {"type": "input_audio_buffer.commit"},
        {"type": "conversation.item.create", "item": ITEM, "previous_item_id": "root"},
        {
            "type": "conversation.item.create",
            "item": {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        },
        {
            "type": "conversation.item.create",
            "item": {"type": "function_call_output", "call_id": "c", "output": "x"},
        },
        {"type": "conversation.item.retrieve", "item_id": "a"},
        {"type": "conversation.item.delete", "item_id": "a"},
        {"type": "conversation.item.truncate", "item_id": "a", "audio_end_ms": 1},
        {"type": "response.create", "response": RESPONSE},
        {"type": "response.cancel", "response_id": "r"},
    ],
    live.PATH: [
        {"type": "session.start", "session": LIVE},
        {"type": "session.update", "session": {"delegation": {"type": "client"}}},
        {"type": "session.input_audio.append", "audio": PCM},
        {"type": "session.commentary.append", "delegation_id": None, "content": "x"},
        {"type": "session.thinking.append", "delegation_id": None, "content": "x"},
        {"type": "session.input_audio.mute"},
        {
            "type": "response.item.create",
            "item": {"type": "function_call_output", "call_id": "c", "output": "x"},
        },
        {"type": "response.create"},
    ],
    moshi.PATH: [],
    twilio.PATH: [
        {"event": "connected", "protocol": "Call", "version": "1.0.0"},
        {"event": "start", "sequenceNumber": "1", "streamSid": "MZ", "start": CALL},
        {"event": "media", "streamSid": "MZ", "media": {"track": "inbound", "payload": PCM}},
        {"event": "dtmf", "streamSid": "MZ", "dtmf": {"digit": "1"}},
        {"event": "mark", "streamSid": "MZ", "mark": {"name": "m"}},
    ],
}
JUNK = [
    None,
    True,
    -1,
    2**70,
    1e308,
    float("nan"),
    "",
    "x" * 5_000,
    "\ud800",
    "\0",
    "session.start",
    [],
    {},
    [[[]]],
    {"type": {}},
    {"": None},
    ["audio", "text"],
]
OGG = opus.Encoder().encode(tone(1))


def message(random: Random, path: str) -> bytes | str:
    """One message for a path that is not as it should be, or not when it should be."""
    shapes = MESSAGES[path]
    if not shapes or random.random() < 0.15:
        return _noise(random)
    text = json.dumps(_broken(random, json.loads(json.dumps(random.choice(shapes)))))
    way = random.random()
    if way < 0.05:
        return text[: random.randrange(len(text))]
    if way < 0.1:
        return "[" * 3_000 + text
    if way < 0.2:
        return text.encode()
    return text


def _broken(random: Random, fields: dict) -> dict:
    """An object with a field somewhere that is gone, of another kind, or too many."""
    if random.random() < 0.1:
        return fields
    place = fields
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return fields
        key = random.choice(keys)
        if isinstance(place[key], dict | list) and random.random() < 0.7:
            place = place[key]
            continue
        if random.random() < 0.2:
            del place[key]
        elif random.random() < 0.2 and isinstance(place, dict):
            place[random.choice(["event_id", "unknown", "tools", "type"])] = random.choice(JUNK)
        else:
            place[key] = random.choice(JUNK)
        return fields


def _noise(random: Random) -> bytes | str:
    """Bytes of no meaning, some like Opus in Ogg."""
    noise = random.randbytes(random.randrange(60))
    begin = random.randrange(len(OGG))
    return random.choice(
        [noise, b"\x01" + noise, b"\x02" + noise, b"\x01" + OGG[begin:], noise.decode("latin-1")]
    )
