"""The agent's answers as responses of the OpenAI Realtime API, one at a time.

A response that a client asked for is created at once and begins when the agent does; one that the
agent begins by itself is created then.
"""

from dataclasses import dataclass

from duplex.audio import TICK_MS
from duplex.events import Event
from duplex.serving.openai.audio import Encoder
from duplex.serving.openai.config import MAX_TEXT, Config, max_tokens, modality
from duplex.serving.openai.events import Refused, event, is_text, is_whole, new_id, object_at
from duplex.serving.openai.items import Conversation, message


@dataclass(frozen=True)
class Request:
    """What one response.create asks for."""

    modality: str
    max_output_tokens: int | None
    instructions: str | None = None
    metadata: dict | None = None


@dataclass
class Usage:
    """What was read and said; a piece of a word, or a tick of sound (80 ms), is a token."""

    input_text: int = 0
    input_audio: int = 0
    output_text: int = 0
    output_audio: int = 0

    def report(self) -> dict:
        """As the API writes it."""
        read = self.input_text + self.input_audio
        said = self.output_text + self.output_audio
        return {
            "total_tokens": read + said,
            "input_tokens": read,
            "output_tokens": said,
            "input_token_details": {
                "text_tokens": self.input_text,
                "audio_tokens": self.input_audio,
                "cached_tokens": 0,
            },
            "output_token_details": {
                "text_tokens": self.output_text,
                "audio_tokens": self.output_audio,
            },
        }


@dataclass
class Spoken:
    """The sound of an answer on the session's clock, in ms."""

    first_ms: int
    last_ms: int


def read_request(fields: dict, config: Config) -> Request:
    """What a response.create asks for. Raises Refused."""
    wanted = object_at(fields, "response")
    if wanted.get("conversation") not in (None, "auto"):
        text = "responses outside of the conversation are not offered"
        raise Refused("unsupported", text, "response.conversation")
    if wanted.get("input") is not None:
        text = "a response answers the conversation; add items to it instead"
        raise Refused("unsupported", text, "response.input")
    if wanted.get("tool_choice") not in (None, "auto", "none"):
        raise Refused("unsupported", "this agent has no tools", "response.tool_choice")
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
    )


def _is_metadata(value) -> bool:
    if not isinstance(value, dict) or len(value) > 16:
        return False
    return all(is_text(key, 1, 64) and is_text(text, 0, 512) for key, text in value.items())


class Responses:
    """The response that is going on, and what is known of the last one's sound."""

    def __init__(self, conversation: Conversation, conversation_id: str):
        self._conversation = conversation
        self._conversation_id = conversation_id
        # The response as clients see it, what asked for it, and its item once the agent speaks.
        self._response: dict | None = None
        self._request: Request | None = None
        self._item: dict | None = None
        self._cancelled_by = "turn_detected"
        # The last item of the agent, and its sound if it had any.
        self._last_item: dict | None = None
        self._spoken: Spoken | None = None
        # The words in it, and the ms in which they ended.
        self._words: list[tuple[str, int]] = []
        self._said = 0
        # Turns that the agent has begun.
        self._begun = 0
        self.usage = Usage()

    @property
    def is_active(self) -> bool:
        """Whether a response was created and is not done."""
        return self._response is not None

    @property
    def is_begun(self) -> bool:
        """Whether the agent speaks in it."""
        return self._item is not None

    def is_open(self, item: dict) -> bool:
        """Whether words of an item are still to come."""
        return item is self._item

    @property
    def request(self) -> Request | None:
        """What the client asked for, if it asked for the response that is going on."""
        return self._request if self._response else None

    def create(self, modality: str, limit: int | None, request: Request | None = None) -> list[str]:
        """A response begins; limit: of its output's tokens."""
        self._request = request
        self._cancelled_by = "turn_detected"
        self._said = 0
        self._response = {
            "object": "realtime.response",
            "id": new_id("resp"),
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "output_modalities": [modality],
            "conversation_id": self._conversation_id,
            "max_output_tokens": limit or "inf",
            "metadata": request.metadata if request else None,
            "usage": None,
        }
        return [event("response.created", response=self._response)]

    def begin(self) -> list[str]:
        """The agent begins to speak."""
        if self._response["output_modalities"] == ["audio"]:
            part = {"type": "output_audio", "transcript": ""}
        else:
            part = {"type": "output_text", "text": ""}
        self._item = self._last_item = message("assistant", part)
        self._conversation.know(self._item, "agent", self._begun)
        self._begun += 1
        self._spoken = None
        self._words = []
        shown = {**self._item, "content": []}
        where = {"response_id": self._response["id"], "output_index": 0}
        return [
            event("response.output_item.added", **where, item=shown),
            *self._conversation.add(self._item, done=False, shown=shown),
            self._event("response.content_part.added", part=_shown(part)),
        ]

    def said(self, told: Event) -> list[str]:
        """A piece of the agent's words."""
        if not self._item:
            return []
        self._said += 1
        self.usage.output_text += 1
        part = self._item["content"][0]
        name, kind = _text_field(part)
        part[name] += told.text
        return [self._event(f"response.{kind}.delta", delta=told.text)]

    def voice(self, samples, encoder: Encoder, now_ms: int) -> list[str]:
        """A tick of the agent's voice, which begins at now_ms."""
        if not self._item or self._response["output_modalities"] != ["audio"]:
            return []
        self._spoken = self._spoken or Spoken(now_ms, now_ms)
        self._spoken.last_ms = now_ms + TICK_MS
        self.usage.output_audio += 1
        delta = encoder.encode(samples)
        return [self._event("response.output_audio.delta", delta=delta)] if delta else []

    def spoken(self, told: Event) -> list[str]:
        """A word was spoken."""
        if self._item and told.end_ms is not None:
            self._words.append((told.text.strip(), told.end_ms))
        return []

    def cancel(self, fields: dict) -> None:
        """The client wants no more of the response. Raises Refused."""
        wanted = fields.get("response_id")
        if not self._response or wanted not in (None, self._response["id"]):
            # Clients pass over this error by its first words.
            text = "Cancellation failed: no active response found"
            raise Refused("response_cancel_not_active", text)
        self._cancelled_by = "client_cancelled"

    def truncate(self, fields: dict) -> tuple[int | None, bool, list[str]]:
        """The client's user has not heard all.

        Returns the time on the session's clock up to which it was (None: there was no sound), and
        whether the answer is still going on. Raises Refused.
        """
        item = self._conversation.find(fields, "item_truncate_invalid_item_id")
        end_ms = fields.get("audio_end_ms")
        if item is not self._last_item or item["content"][0]["type"] != "output_audio":
            text = "only the agent's last answer can be truncated"
            raise Refused("invalid_value", text, "item_id")
        length = self._spoken.last_ms - self._spoken.first_ms if self._spoken else 0
        if not is_whole(end_ms, 0, length):
            raise Refused("invalid_value", f"audio_end_ms is from 0 to {length}", "audio_end_ms")
        end_ms = int(end_ms)
        fields = {"item_id": item["id"], "content_index": 0, "audio_end_ms": end_ms}
        told = [event("conversation.item.truncated", **fields)]
        is_going_on = self._item is item
        if self._spoken is None:
            return None, is_going_on, told
        heard_ms = self._spoken.first_ms + end_ms
        if not is_going_on:
            self._forget_unheard(heard_ms)
        return heard_ms, is_going_on, told

    def _forget_unheard(self, heard_ms: int) -> None:
        """Take the words out of the transcript that sound after this time."""
        part = self._last_item["content"][0]
        place = 0
        for word, end_ms in self._words:
            begin = part["transcript"].find(word, place)
            if begin >= 0 and end_ms > heard_ms:
                part["transcript"] = part["transcript"][:begin].rstrip()
                return
            place = max(place, begin + len(word))

    def end(self, told: Event | None) -> list[str]:
        """The agent has ended or stopped; None: the response was cancelled before it spoke."""
        response = self._response
        if response is None:
            return []
        is_stopped = told is None or told.kind == "agent_stopped"
        limit = response["max_output_tokens"]
        is_cut = not is_stopped and limit != "inf" and self._said >= limit
        messages = []
        if self._item:
            messages = self._end_item(told, "incomplete" if is_stopped or is_cut else "completed")
            response["output"] = [self._item]
        response["status"] = "completed"
        if is_stopped:
            response["status"] = "cancelled"
            response["status_details"] = {"type": "cancelled", "reason": self._cancelled_by}
        elif is_cut:
            response["status"] = "incomplete"
            response["status_details"] = {"type": "incomplete", "reason": "max_output_tokens"}
        response["usage"] = self.usage.report()
        self.usage = Usage()
        self._response = None
        self._item = None
        return [*messages, event("response.done", response=response)]

    def _end_item(self, told: Event, status: str) -> list[str]:
        """The content is complete, and so is the item."""
        part = self._item["content"][0]
        name, kind = _text_field(part)
        if told.kind == "agent_stopped" and told.text:
            part[name] = part[name].removesuffix(told.text)
        self._item["status"] = status
        messages = []
        if name == "transcript":
            messages.append(self._event("response.output_audio.done"))
        return [
            *messages,
            self._event(f"response.{kind}.done", **{name: part[name]}),
            self._event("response.content_part.done", part=_shown(part)),
            event(
                "response.output_item.done",
                response_id=self._response["id"],
                output_index=0,
                item=self._item,
            ),
            self._conversation.done(self._item),
        ]

    def _event(self, kind: str, **fields) -> str:
        """An event about the content of the response that is going on."""
        return event(
            kind,
            response_id=self._response["id"],
            item_id=self._item["id"],
            output_index=0,
            content_index=0,
            **fields,
        )


def _text_field(part: dict) -> tuple[str, str]:
    """The field of a part's text, and the name that its events have."""
    if part["type"] == "output_audio":
        return "transcript", "output_audio_transcript"
    return "text", "output_text"


def _shown(part: dict) -> dict:
    """A part as content_part events name it."""
    return {**part, "type": part["type"].removeprefix("output_")}
