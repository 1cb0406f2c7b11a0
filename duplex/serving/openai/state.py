"""What one session of the OpenAI Realtime API is now, and what changes how its turns are taken."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from duplex.events import TurnTaking
from duplex.serving.commands import AfterInput, Answer, Configure, SetVoice, TakeTurns
from duplex.serving.openai import config as openai_config
from duplex.serving.openai.audio import Decoder, Encoder
from duplex.serving.openai.config import Config
from duplex.serving.openai.events import Refused
from duplex.serving.openai.items import Conversation
from duplex.serving.openai.requests import OutOfBand, Request
from duplex.serving.openai.responses import Responses
from duplex.serving.openai.turns import UserTurns


@dataclass
class State:
    """Of one session; client_events.py and realtime.py change it."""

    config: Config
    # What the agent knows of texts: pieces of words in one, and how many instructions may have.
    count_tokens: Callable[[str], int]
    max_instruction_tokens: int
    decoder: Decoder
    encoder: Encoder
    conversation: Conversation
    turns: UserTurns
    responses: Responses
    session_id: str = ""
    # Whether the agent can have functions called, and the calls whose results are to come.
    takes_tools: bool = False
    calls: set[str] = field(default_factory=set)
    out_of_band: OutOfBand = field(default_factory=OutOfBand)
    # Whether audio was appended since the last commit.
    has_appended: bool = False
    # Milliseconds on the session's clock: of what was heard, and of the voice.
    heard_ms: int = 0
    now_ms: int = 0
    # When the last response ended, while nobody has spoken since.
    quiet_since_ms: int | None = None
    # How turns are taken now, which a response may want otherwise for as long as it lasts.
    taking: TurnTaking = field(default_factory=TurnTaking)
    # Commands that ticks have brought about, and those that wait for the end of the response.
    due: list = field(default_factory=list)
    after_response: list = field(default_factory=list)


def initial(
    is_transcription: bool, count_tokens: Callable[[str], int], max_instruction_tokens: int
) -> State:
    """A session that is not open yet."""
    config = openai_config.initial(is_transcription)
    conversation = Conversation()
    state = State(
        config,
        count_tokens,
        max_instruction_tokens,
        Decoder(config.input_format),
        Encoder(config.output_format),
        conversation,
        UserTurns(conversation),
        Responses(conversation, ""),
    )
    state.due = take(state, usual_taking(state))
    return state


def tokens_of(state: State, instructions: str, param: str) -> int:
    """Pieces of words in instructions. Raises Refused where they are too many."""
    tokens = state.count_tokens(instructions)
    if tokens > state.max_instruction_tokens:
        text = f"{tokens} pieces of words; {state.max_instruction_tokens} can be kept in mind"
        raise Refused("invalid_value", f"instructions are {text}", param)
    return tokens


def usual_taking(state: State) -> TurnTaking:
    """How turns are taken while no response wants it otherwise."""
    return openai_config.turn_taking(state.config)


def take(state: State, wanted: TurnTaking) -> list:
    """The command that has turns taken so, where they are not."""
    if wanted == state.taking:
        return []
    state.taking = wanted
    return [TakeTurns(wanted)]


def begin_response(state: State, request: Request) -> tuple[list, list]:
    """A response that was asked for: the commands that have the agent answer, what tells of it."""
    commands = take(state, replace(state.taking, answers=False))
    later = list(state.out_of_band.begin(request)) if request.is_out_of_band else []
    texts = [text.text for text in later]
    if request.instructions:
        later.append(Configure(request.instructions, is_for_turn=True))
        texts.append(request.instructions)
    messages = state.responses.create(request.modality, request.max_output_tokens, request)
    state.responses.usage.input_text += sum(map(state.count_tokens, texts))
    usual = usual_taking(state)
    wanted = replace(
        usual,
        speaks=request.modality == "audio",
        max_tokens=request.max_output_tokens,
        yields=usual.yields and not request.is_out_of_band,
    )
    if request.tools is not None and state.takes_tools:
        later.append(request.tools)
        state.after_response.append(openai_config.set_tools(state.config))
    if request.voice:
        later.append(SetVoice(request.voice, state.config.speed))
        state.after_response.append(SetVoice(state.config.voice, state.config.speed))
    later += [*take(state, wanted), Answer(hears_out=True)]
    return [*commands, *map(AfterInput, later)], messages


def begin_out_of_band(state: State) -> tuple[list, list]:
    """The next response outside of the conversation begins, if it may."""
    request = None if state.responses.is_active else state.out_of_band.next()
    return ([], []) if request is None else begin_response(state, request)


def break_silence(state: State) -> tuple[list, list]:
    """The agent speaks again where nobody has for as long as the client waits behind an answer."""
    wait_ms = (state.config.turn_detection or {}).get("idle_timeout_ms")
    begin_ms = state.quiet_since_ms
    if not wait_ms or begin_ms is None or state.heard_ms - begin_ms < wait_ms:
        return [], []
    state.quiet_since_ms = None
    if state.responses.is_active or not state.taking.answers:
        return [], []
    told = state.turns.silence(begin_ms, state.heard_ms)
    request = Request(state.config.modality, state.config.max_output_tokens)
    commands, created = begin_response(state, request)
    return commands, told + created


def end_response(state: State, told) -> list:
    """The response is done; what waited for that comes now. told: None if it never began."""
    aside = state.responses.out_of_band_turn
    is_aside = bool(state.responses.request and state.responses.request.is_out_of_band)
    messages = state.responses.end(told)
    later = take(state, usual_taking(state)) + state.after_response
    if is_aside:
        later += state.out_of_band.end(aside)
    state.after_response = []
    state.quiet_since_ms = state.heard_ms
    state.due += map(AfterInput, later)
    return messages + state.turns.release(told is None or told.kind == "agent_stopped")


def report(state: State) -> dict:
    """The session as clients see it."""
    return openai_config.report(state.config, state.session_id)
