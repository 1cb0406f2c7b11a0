"""Server events by the names that they had in the beta of the OpenAI Realtime API.

Clients that were written for it ask with a header, a subprotocol, or the fields of their sessions.
"""

import json
from collections.abc import Iterable

from duplex.serving.native.messages import encode_object

SUBPROTOCOL = "openai-beta.realtime-v1"
# Beginnings of the types of events, and what they were.
RENAMED = {
    "response.output_audio.": "response.audio.",
    "response.output_audio_transcript.": "response.audio_transcript.",
    "response.output_text.": "response.text.",
    "conversation.item.added": "conversation.item.created",
}
# Of a session, and nowhere in one of today.
FIELDS = """
    input_audio_format output_audio_format modalities max_response_output_tokens
    input_audio_transcription
""".split()
FORMATS = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}


def is_asked_for(header: str, subprotocols: Iterable[str]) -> bool:
    """Whether a client's request wants it. header: its OpenAI-Beta."""
    return "realtime=v1" in header or SUBPROTOCOL in subprotocols


def is_session(session) -> bool:
    """Whether a client's session is written as it was then."""
    return isinstance(session, dict) and "type" not in session and bool(session.keys() & FIELDS)


def renamed(messages: list[str]) -> list[str]:
    """The same events as clients of the beta know them."""
    found = [_renamed(message) for message in messages]
    return [message for message in found if message is not None]


def _renamed(message: str) -> str | None:
    begin = '{"type":"'
    kind = message.removeprefix(begin).partition('"')[0]
    if kind == "conversation.item.done":
        # The item was created, complete or not.
        return None
    for name, before in RENAMED.items():
        if kind.startswith(name):
            message = begin + before + message[len(begin) + len(name) :]
    holder = next(
        (name for name in ("item", "response", "session") if f'"{name}":{{' in message), None
    )
    if holder is None:
        return message
    fields = json.loads(message)
    change = {"item": _item, "response": _response, "session": session}[holder]
    fields[holder] = change(fields[holder])
    return encode_object(fields)


def _item(item: dict) -> dict:
    """Kinds of content lost the prefix that they have now."""
    content = [
        {**part, "type": part["type"].removeprefix("output_")} for part in item.get("content", [])
    ]
    return {**item, "content": content} if "content" in item else item


def _response(response: dict) -> dict:
    """What had one name for both ways, and the items in it."""
    response = dict(response)
    response["modalities"] = _modalities(response.pop("output_modalities"))
    response["output"] = [_item(item) for item in response["output"]]
    return response


def session(found: dict) -> dict:
    """A session without its levels."""
    hearing = found["audio"]["input"]
    result = {
        "id": found["id"],
        "object": found["object"],
        "input_audio_format": FORMATS[hearing["format"]["type"]],
        "input_audio_transcription": hearing["transcription"],
        "turn_detection": hearing["turn_detection"],
    }
    if "output" not in found["audio"]:
        return result
    voice = found["audio"]["output"]
    names = "model instructions tools tool_choice tracing".split()
    return result | {
        **{name: found[name] for name in names},
        "modalities": _modalities(found["output_modalities"]),
        "voice": voice["voice"],
        "speed": voice["speed"],
        "output_audio_format": FORMATS[voice["format"]["type"]],
        "max_response_output_tokens": found["max_output_tokens"],
    }


def _modalities(wanted: list[str]) -> list[str]:
    return ["audio", "text"] if wanted == ["audio"] else wanted
