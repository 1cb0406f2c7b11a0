"""What response.create of the OpenAI Realtime API asks for, and those that have to wait.

A response outside of the conversation waits until it is nobody's turn. What is asked and answered
is in the agent's mind as long as the response lasts, behind the conversation; nothing of it stands
in the conversation's items, and the agent forgets it with the end.
"""

from collections import deque
from dataclasses import dataclass

from duplex.serving.commands import Forget, SetTools, Write
from duplex.serving.floor import Floor
from duplex.serving.openai import config as openai_config
from duplex.serving.openai import items as openai_items
from duplex.serving.openai.config import MAX_TEXT, Config, max_tokens, modality
from duplex.serving.openai.events import Refused, is_text, new_id, object_at


@dataclass(frozen=True)
class Request:
    """One response, in the conversation or outside of it."""

    modality: str
    max_output_tokens: int | None
    instructions: str | None = None
    metadata: dict | None = None
    is_out_of_band: bool = False
    # Outside of the conversation: the texts that it answers, with names to forget them by.
    input: tuple[Write, ...] = ()
    # Functions for this response alone; None: those of the session.
    tools: SetTools | None = None
    # A voice of ours for this response alone; None: that of the session.
    voice: str | None = None


class OutOfBand:
    """The responses outside of the conversation, of one session; at most `max_waiting` wait."""

    def __init__(self, max_waiting: int = 16):
        self.floor = Floor()
        self._max_waiting = max_waiting
        self._waiting: deque[Request] = deque()
        # Names of the texts in the agent's mind that belong to the response that is going on.
        self._names: list[str] = []

    def enqueue(self, request: Request) -> None:
        """One more response. Raises Refused where too many wait."""
        if len(self._waiting) >= self._max_waiting:
            text = f"{self._max_waiting} responses outside of the conversation wait already"
            raise Refused("conversation_already_has_active_response", text)
        self._waiting.append(request)

    def next(self) -> Request | None:
        """The response that may begin now."""
        if not self._waiting or not self.floor.is_free:
            return None
        self.floor.claim()
        return self._waiting.popleft()

    def begin(self, request: Request) -> list[Write]:
        """What is put into the agent's mind for a response."""
        self._names = [text.name for text in request.input]
        return list(request.input)

    def end(self, turn: int | None) -> list[Forget]:
        """What the agent is to forget. turn: the number of its own, if it spoke."""
        forgotten = [Forget("text", name) for name in self._names]
        self._names = []
        return forgotten + ([] if turn is None else [Forget("agent", turn)])


def read_request(fields: dict, config: Config) -> Request:
    """What a response.create asks for. Raises Refused."""
    wanted = openai_config.modern(object_at(fields, "response"), "response")
    conversation = wanted.get("conversation")
    if conversation not in (None, "auto", "none"):
        raise Refused("invalid_value", "conversation is auto or none", "response.conversation")
    if wanted.get("input") is not None and conversation != "none":
        text = "a response in the conversation answers the conversation; add items to it instead"
        raise Refused("unsupported", text, "response.input")
    if wanted.get("prompt") is not None:
        raise Refused("unsupported", "there are no stored prompts here", "response.prompt")
    instructions = wanted.get("instructions")
    if instructions is not None and not is_text(instructions, 0, MAX_TEXT):
        text = f"instructions is a text of at most {MAX_TEXT} characters"
        raise Refused("invalid_value", text, "response.instructions")
    metadata = wanted.get("metadata")
    if metadata is not None and not _is_metadata(metadata):
        text = "metadata has at most 16 texts by names of at most 64 characters"
        raise Refused("invalid_value", text, "response.metadata")
    return Request(
        modality(wanted, config.modality, "response"),
        max_tokens(wanted, config.max_output_tokens, "response"),
        instructions or None,
        metadata,
        conversation == "none",
        _input(wanted.get("input"), config),
        _tools(wanted, config),
        _voice(wanted, config),
    )


def _voice(wanted: dict, config: Config) -> str | None:
    """The voice of a response, if it is another one. Raises Refused."""
    output = object_at(wanted, "audio.output")
    form = object_at(output, "format").get("type", config.output_format)
    if form != config.output_format:
        text = f"all of a session's sound has one format; this one has {config.output_format}"
        raise Refused("unsupported", text, "response.audio.output.format")
    voice = openai_config.voice(output, config.voice, "response.audio.output.voice")
    return None if voice == config.voice else voice


def _tools(wanted: dict, config: Config) -> SetTools | None:
    """The functions of a response. Raises Refused."""
    if wanted.get("tools") is None and wanted.get("tool_choice") is None:
        return None
    offered = openai_config.tools(wanted, config.tools, "response")
    choice = openai_config.tool_choice(wanted, config, "response")
    return SetTools(offered, choice)


def _input(items, config: Config) -> tuple[Write, ...]:
    """The texts of a response's own items. Raises Refused."""
    if items is None:
        return ()
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Refused("invalid_value", "input is a list of items", "response.input")
    texts = []
    for number, item in enumerate(items):
        if item.get("type") == "item_reference":
            # It stands in the conversation, which the agent knows.
            continue
        _, commands = openai_items.read(item, new_id("item"), config.input_format)
        if not all(isinstance(command, Write) for command in commands):
            text = "the items of a response are texts; recordings are added to the conversation"
            raise Refused("unsupported", text, f"response.input[{number}]")
        texts += commands
    return tuple(texts)


def _is_metadata(value) -> bool:
    if not isinstance(value, dict) or len(value) > 16:
        return False
    return all(is_text(key, 1, 64) and is_text(text, 0, 512) for key, text in value.items())
