"""What a client of the OpenAI Realtime API may configure: read, held, and reported as it is.

A field that is known is either in force or refused by name; what this server has no use for is
passed over, and the report says what is in force instead. The names of the beta API are taken too.
"""

import re
from dataclasses import dataclass, replace

from duplex import voices
from duplex.audio import SAMPLE_RATE
from duplex.events import TurnTaking
from duplex.serving.commands import SetTools
from duplex.serving.openai import audio as openai_audio
from duplex.serving.openai import turn_detection
from duplex.serving.openai.events import Refused, is_whole, object_at
from duplex.serving.tools import CHOICES, read_choice, read_tools

# Characters of instructions, and of one item.
MAX_TEXT = 16_000


@dataclass(frozen=True)
class Config:
    """What is in force in one session."""

    # "realtime", or "transcription": then the agent only listens.
    kind: str = "realtime"
    instructions: str = ""
    # "audio" or "text".
    modality: str = "audio"
    voice: str = voices.DEFAULT
    speed: float = 1.0
    # One of openai_audio.KINDS each.
    input_format: str = openai_audio.PCM
    output_format: str = openai_audio.PCM
    # As the API writes it; None: push to talk.
    turn_detection: dict | None = None
    # Pieces of words in one response; None: as many as the agent likes.
    max_output_tokens: int | None = None
    # Functions that the agent may have called, as serving.tools reads them; and which of them.
    tools: tuple[dict, ...] = ()
    tool_choice: str = "auto"
    # Words that are likely, as the client writes them.
    transcription_prompt: str = ""

    @property
    def finds_turns(self) -> bool:
        """Whether the agent hears when the user's turns begin and end."""
        return self.turn_detection is not None


def initial(is_transcription: bool) -> Config:
    """The configuration of a session that has just been opened."""
    kind = "transcription" if is_transcription else "realtime"
    return Config(kind=kind, turn_detection=turn_detection.SEMANTIC)


def turn_taking(config: Config) -> TurnTaking:
    """What the configuration means to the agent."""
    detection = config.turn_detection or {}
    eagerness = detection.get("eagerness", "auto")
    is_realtime = config.kind == "realtime"
    return TurnTaking(
        ends_turns=config.finds_turns,
        answers=is_realtime and detection.get("create_response", False),
        yields=detection.get("interrupt_response", False),
        # All of its voice belongs to a response.
        backchannels=False,
        eagerness="auto" if eagerness == "medium" else eagerness,
        silence_ms=detection.get("silence_duration_ms", 0),
        speaks=config.modality == "audio",
        max_tokens=config.max_output_tokens,
    )


def updated(config: Config, session: dict) -> Config:
    """The configuration after a session.update. Raises Refused, and then nothing has changed."""
    session = modern(session, "session")
    kind = session.get("type", config.kind)
    if kind not in ("realtime", "transcription"):
        raise Refused("invalid_value", "type is realtime or transcription", "session.type")
    if session.get("prompt") is not None:
        raise Refused("unsupported", "there are no stored prompts here", "session.prompt")
    instructions = session.get("instructions")
    if instructions is None:
        instructions = config.instructions
    if not isinstance(instructions, str) or len(instructions) > MAX_TEXT:
        text = f"instructions is a text of at most {MAX_TEXT} characters"
        raise Refused("invalid_value", text, "session.instructions")
    hearing = object_at(session, "audio.input")
    return replace(
        config,
        kind=kind,
        instructions=instructions,
        modality=modality(session, config.modality, "session"),
        voice=voice(object_at(session, "audio.output"), config.voice),
        speed=_speed(object_at(session, "audio.output"), config.speed),
        input_format=_format(hearing, config.input_format, "input"),
        output_format=_format(object_at(session, "audio.output"), config.output_format, "output"),
        turn_detection=turn_detection.read(hearing, config.turn_detection),
        max_output_tokens=max_tokens(session, config.max_output_tokens, "session"),
        tools=tools(session, config.tools, "session"),
        tool_choice=tool_choice(session, config, "session"),
        transcription_prompt=_transcription_prompt(hearing, config.transcription_prompt),
    )


def _transcription_prompt(hearing: dict, usual: str) -> str:
    """What transcription.prompt asks for. Raises Refused."""
    wanted = object_at(hearing, "transcription").get("prompt", usual) or ""
    if not isinstance(wanted, str) or len(wanted) > MAX_TEXT:
        text = f"prompt is a text of at most {MAX_TEXT} characters"
        raise Refused("invalid_value", text, "session.audio.input.transcription.prompt")
    return wanted


def hints(config: Config) -> tuple[str, ...]:
    """The words of a prompt that are a list of words; a sentence in it is passed over."""
    longest = 4  # Words of one entry: a name, a title.
    parts = (part.strip(" .") for part in re.split(r"[,;\n]", config.transcription_prompt))
    return tuple(part for part in parts if part and len(part.split()) <= longest)[:50]


def modality(fields: dict, usual: str, where: str) -> str:
    """What output_modalities asks for. Raises Refused."""
    wanted = fields.get("output_modalities")
    if wanted is None:
        return usual
    if wanted not in (["audio"], ["text"]):
        text = 'output_modalities is ["audio"] or ["text"]'
        raise Refused("invalid_value", text, f"{where}.output_modalities")
    return wanted[0]


def tools(fields: dict, usual: tuple[dict, ...], where: str) -> tuple[dict, ...]:
    """The functions that are offered. Raises Refused."""
    if fields.get("tools") is None:
        return usual
    try:
        return read_tools(fields["tools"])
    except ValueError as error:
        raise Refused("invalid_value", str(error), f"{where}.tools") from None


def tool_choice(fields: dict, config: Config, where: str) -> str:
    """What tool_choice asks for. Raises Refused."""
    offered = tools(fields, config.tools, where)
    wanted = fields.get("tool_choice")
    if wanted is None:
        is_there = config.tool_choice in (*CHOICES, *(tool["name"] for tool in offered))
        return config.tool_choice if is_there else "auto"
    try:
        return read_choice(wanted, offered)
    except ValueError as error:
        raise Refused("invalid_value", str(error), f"{where}.tool_choice") from None


def set_tools(config: Config) -> SetTools:
    """The command that has the functions of a configuration offered."""
    return SetTools(config.tools, config.tool_choice)


def max_tokens(fields: dict, usual: int | None, where: str) -> int | None:
    """What max_output_tokens asks for. Raises Refused."""
    if "max_output_tokens" not in fields:
        return usual
    wanted = fields["max_output_tokens"]
    if wanted in ("inf", None):
        return None
    if not is_whole(wanted, 1, 4096):
        text = 'max_output_tokens is a whole number from 1 to 4096, or "inf"'
        raise Refused("invalid_value", text, f"{where}.max_output_tokens")
    return int(wanted)


def voice(output: dict, usual: str, param: str = "session.audio.output.voice") -> str:
    """One of ours for a name of the API, or for an object with an id. Raises Refused."""
    name = output.get("voice")
    if isinstance(name, dict):
        name = name.get("id")
    if name is None:
        return usual
    if not isinstance(name, str) or not name:
        raise Refused("invalid_value", "voice is a name", param)
    if name in voices.VOICES:
        return name
    # The others that clients of the API know are women's.
    mens = ("ash", "ballad", "cedar", "echo", "verse")
    return "oak" if name in mens else voices.DEFAULT


def _speed(output: dict, usual: float) -> float:
    speed = output.get("speed")
    if speed is None:
        return usual
    lowest, highest = voices.SPEEDS
    if type(speed) not in (int, float) or not lowest <= speed <= highest:
        text = f"speed is a number from {lowest} to {highest}"
        raise Refused("invalid_value", text, "session.audio.output.speed")
    return speed


def _format(side: dict, usual: str, name: str) -> str:
    wanted = object_at(side, "format")
    kind = wanted.get("type", usual)
    is_known = kind in openai_audio.KINDS
    if not is_known or kind == openai_audio.PCM and wanted.get("rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise Refused(
            "invalid_value",
            f"formats are audio/pcm at {SAMPLE_RATE} Hz, audio/pcmu and audio/pcma",
            f"session.audio.{name}.format",
        )
    return kind


def modern(fields: dict, where: str) -> dict:
    """A session or a response with the beta's fields where and as they are now. Raises Refused."""
    audio = object_at(fields, "audio")
    hearing = dict(object_at(audio, "input"))
    voice = dict(object_at(audio, "output"))
    result = dict(fields)
    names = {"pcm16": openai_audio.PCM, "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
    for old, side in (("input_audio_format", hearing), ("output_audio_format", voice)):
        if result.get(old) is not None:
            if result[old] not in tuple(names):
                text = f"{old} is one of {', '.join(names)}"
                raise Refused("invalid_value", text, f"{where}.{old}")
            side.setdefault("format", {"type": names[result[old]]})
    for old, side in (("turn_detection", hearing), ("voice", voice), ("speed", voice)):
        if old in result:
            side.setdefault(old, result[old])
    if "input_audio_transcription" in result:
        hearing.setdefault("transcription", result["input_audio_transcription"])
    if isinstance(result.get("modalities"), list):
        wanted = ["audio"] if "audio" in result["modalities"] else result["modalities"]
        result.setdefault("output_modalities", wanted)
    if "max_response_output_tokens" in result:
        result.setdefault("max_output_tokens", result["max_response_output_tokens"])
    return result | {"audio": {"input": hearing, "output": voice}}


def _reported_choice(choice: str) -> str | dict:
    return choice if choice in CHOICES else {"type": "function", "name": choice}


def report(config: Config, session_id: str) -> dict:
    """The session as clients see it: nothing stands in it that is not in force."""
    transcription = {"model": "duplex", "language": "en"}
    if config.transcription_prompt:
        transcription["prompt"] = config.transcription_prompt
    hearing = {
        "format": openai_audio.form(config.input_format),
        # Every turn is transcribed, by the agent's own ears.
        "transcription": transcription,
        "noise_reduction": None,
        "turn_detection": config.turn_detection,
    }
    if config.kind == "transcription":
        return {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": session_id,
            "audio": {"input": hearing},
        }
    output = {
        "format": openai_audio.form(config.output_format),
        "voice": config.voice,
        "speed": config.speed,
    }
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": "duplex",
        "instructions": config.instructions,
        "output_modalities": [config.modality],
        "tools": [{"type": "function", **tool} for tool in config.tools],
        "tool_choice": _reported_choice(config.tool_choice),
        "audio": {"input": hearing, "output": output},
        "max_output_tokens": config.max_output_tokens or "inf",
        "tracing": None,
        "truncation": "auto",
    }
