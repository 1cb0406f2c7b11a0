"""What a client of the GPT-Live API may configure: read once, at the start, and reported as it is.

As in the API a name that is not known is refused; what this server has no use for is passed over,
and the report says what is in force instead.
"""

from collections.abc import Callable
from dataclasses import dataclass

from duplex import voices
from duplex.audio import SAMPLE_RATE
from duplex.serving.commands import Write
from duplex.serving.openai import audio as openai_audio
from duplex.serving.openai import config as openai_config
from duplex.serving.openai.events import Refused, is_text, object_at
from duplex.serving.sound import g711

# Texts of a conversation before this one.
MAX_HISTORY = 128
# Pieces of words of what is appended at once.
MAX_APPEND_TOKENS = 500


@dataclass(frozen=True)
class Config:
    """What is in force in one session, from its beginning to its end."""

    model: str
    instructions: str | None = None
    voice: str = voices.DEFAULT
    # One of openai_audio.KINDS, both ways, and its samples a second.
    audio_format: str = openai_audio.PCM
    rate: int = SAMPLE_RATE
    # The conversation before, and the items as the client wrote them.
    history: tuple[Write, ...] = ()
    items: tuple[dict, ...] = ()


def read(session: dict, count_tokens: Callable[[str], int], max_instruction_tokens: int) -> Config:
    """The session of a session.start. Raises Refused."""
    names = "model instructions audio delegation input store safety_identifier triggers client"
    only(session, names, "session")
    model = session.get("model")
    if not is_text(model, 1, 200):
        raise Refused("missing_required_parameter", "model is a name", "session.model")
    instructions = session.get("instructions")
    if instructions is not None:
        if not is_text(instructions, 0, openai_config.MAX_TEXT):
            text = f"instructions is a text of at most {openai_config.MAX_TEXT} characters"
            raise Refused("invalid_value", text, "session.instructions")
        tokens = count_tokens(instructions)
        if tokens > max_instruction_tokens:
            text = f"{tokens} pieces of words; {max_instruction_tokens} can be kept in mind"
            raise Refused("invalid_value", f"instructions are {text}", "session.instructions")
    audio = object_at(session, "audio")
    only(audio, "format output", "session.audio")
    only(object_at(audio, "output"), "voice", "session.audio.output")
    items = session.get("input")
    if items is None:
        items = []
    if not isinstance(items, list) or len(items) > MAX_HISTORY:
        text = f"input is a list of at most {MAX_HISTORY} messages"
        raise Refused("invalid_value", text, "session.input")
    kind, rate = _format(object_at(audio, "format"))
    return Config(
        model=model,
        instructions=(instructions or "").strip() or None,
        voice=openai_config.voice(object_at(audio, "output"), voices.DEFAULT),
        audio_format=kind,
        rate=rate,
        history=tuple(_message(item, number) for number, item in enumerate(items)),
        items=tuple(items),
    )


def only(fields: dict, names: str, where: str) -> None:
    """Raises Refused where there is a field that is none of these."""
    unknown = sorted(fields.keys() - names.split())
    if unknown:
        text = f"there is no field {unknown[0]!r:.80} in {where}"
        raise Refused("unknown_parameter", text, f"{where}.{unknown[0]:.80}")


def _format(wanted: dict) -> tuple[str, int]:
    """The kind of audio and its samples a second. Raises Refused."""
    kind = wanted.get("type", openai_audio.PCM)
    rates = (SAMPLE_RATE, 16_000) if kind == openai_audio.PCM else (g711.TELEPHONE_RATE,)
    rate = wanted.get("rate", rates[0])
    if kind not in openai_audio.KINDS or rate not in rates:
        text = "formats are audio/pcm at 24000 or 16000 Hz, audio/pcmu and audio/pcma at 8000 Hz"
        raise Refused("invalid_value", text, "session.audio.format")
    return kind, int(rate)


def _message(item, number: int) -> Write:
    """One message of the conversation before. Raises Refused."""
    where = f"session.input[{number}]"
    roles = {"developer": "system", "user": "user", "assistant": "assistant"}
    role = item.get("role") if isinstance(item, dict) else None
    if not isinstance(role, str) or role not in roles:
        text = f"a message has a role of {', '.join(roles)}"
        raise Refused("invalid_value", text, f"{where}.role")
    content = item.get("content")
    part = content[0] if isinstance(content, list) and len(content) == 1 else None
    text = part.get("text") if isinstance(part, dict) else None
    if not is_text(text, 1, openai_config.MAX_TEXT):
        message = f"content is one part with a text of 1 to {openai_config.MAX_TEXT} characters"
        raise Refused("invalid_value", message, f"{where}.content")
    return Write(roles[role], text, is_answered=False)


def report(config: Config, session_id: str, expires_at: int) -> dict:
    """The session as clients see it: nothing stands in it that is not in force."""
    return {
        "id": session_id,
        "model": config.model,
        "status": "active",
        "expires_at": expires_at,
        "instructions": config.instructions,
        "input": list(config.items),
        "audio": {
            "format": {"type": config.audio_format, "rate": config.rate},
            "output": {"voice": config.voice},
        },
        "store": False,
    }
