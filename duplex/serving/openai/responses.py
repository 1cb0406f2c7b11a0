"""The agent's answers as responses of the OpenAI Realtime API, one at a time.

A response that a client asked for is created at once and begins when the agent does; one that the
agent begins by itself is created then.
"""

from dataclasses import dataclass

from duplex.events import Event, ToolCall
from duplex.serving.commands import SetPlaybackPosition, Stop, Truncate
from duplex.serving.openai import items as openai_items
from duplex.serving.openai.audio import Encoder
from duplex.serving.openai.clocks import Sounds
from duplex.serving.openai.events import Refused, event, is_whole, new_id
from duplex.serving.openai.items import Conversation, message
from duplex.serving.openai.requests import Request


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
        self._sounds = Sounds()
        # The calls in the response.
        self._calls: list[dict] = []
        # Pieces of words in the response.
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

    @property
    def is_only_calls(self) -> bool:
        """Whether the response that is going on has calls and no words."""
        return bool(self._calls) and self._item is None

    def is_open(self, item: dict) -> bool:
        """Whether words of an item are still to come."""
        return item is self._item

    @property
    def request(self) -> Request | None:
        """What the client asked for, if it asked for the response that is going on."""
        return self._request if self._response else None

    @property
    def out_of_band_turn(self) -> int | None:
        """The number of the agent's turn, if it speaks outside of the conversation."""
        return self._begun - 1 if self._item and self._is_out_of_band else None

    @property
    def _is_out_of_band(self) -> bool:
        return self._request is not None and self._request.is_out_of_band

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
            "conversation_id": None if self._is_out_of_band else self._conversation_id,
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
        self._item = message("assistant", part)
        shown = {**self._item, "content": []}
        added = []
        if not self._is_out_of_band:
            self._conversation.know(self._item, "agent", self._begun)
            added = self._conversation.add(self._item, done=False, shown=shown)
        self._begun += 1
        where = {"response_id": self._response["id"], "output_index": 0}
        return [
            event("response.output_item.added", **where, item=shown),
            *added,
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
        self._sounds.add_tick(self._item, now_ms)
        self.usage.output_audio += 1
        delta = encoder.encode(samples)
        return [self._event("response.output_audio.delta", delta=delta)] if delta else []

    def spoken(self, told: Event) -> list[str]:
        """A word was spoken."""
        if self._item and told.end_ms is not None:
            self._sounds.add_word(self._item, told.text, told.end_ms)
        return []

    def call(self, told: ToolCall) -> list[str]:
        """The agent wants a function called, with all arguments at once."""
        item = openai_items.call(told.call_id, told.name, told.arguments)
        where = {
            "response_id": self._response["id"],
            "output_index": len(self._calls) + (self._item is not None),
        }
        self._calls.append(item)
        shown = {**item, "status": "in_progress", "arguments": ""}
        of_item = {**where, "item_id": item["id"], "call_id": told.call_id}
        kind = "response.function_call_arguments"
        added = []
        if not self._is_out_of_band:
            added = self._conversation.add(item, done=False, shown=shown)
        return [
            event("response.output_item.added", **where, item=shown),
            *added,
            event(f"{kind}.delta", **of_item, delta=told.arguments),
            event(f"{kind}.done", **of_item, name=told.name, arguments=told.arguments),
            event("response.output_item.done", **where, item=item),
            *([] if self._is_out_of_band else [self._conversation.done(item)]),
        ]

    def cancel(self, fields: dict) -> None:
        """The client wants no more of the response. Raises Refused."""
        wanted = fields.get("response_id")
        if not self._response or wanted not in (None, self._response["id"]):
            # Clients pass over this error by its first words.
            text = "Cancellation failed: no active response found"
            raise Refused("response_cancel_not_active", text)
        self._cancelled_by = "client_cancelled"

    def truncate(self, fields: dict) -> tuple[list, list[str]]:
        """The client's user has not heard all of an answer: its transcript ends there.

        Returns the commands that have the agent forget the rest, and what the client is told.
        Raises Refused.
        """
        item = self._conversation.find(fields, "item_truncate_invalid_item_id")
        end_ms = fields.get("audio_end_ms")
        if item.get("role") != "assistant" or item["content"][0]["type"] != "output_audio":
            text = "only an answer that was spoken can be truncated"
            raise Refused("invalid_value", text, "item_id")
        longest_ms = 24 * 3600 * 1000
        if not is_whole(end_ms, 0, longest_ms):
            text = "audio_end_ms is a whole number of milliseconds"
            raise Refused("invalid_value", text, "audio_end_ms")
        fields = {"item_id": item["id"], "content_index": 0, "audio_end_ms": int(end_ms)}
        told = [event("conversation.item.truncated", **fields)]
        sound = self._sounds.find(item)
        heard_ms = sound and min(sound.first_ms + int(end_ms), sound.last_ms)
        if item is self._item:
            # It still speaks: it yields, and keeps what was heard.
            where = [] if sound is None else [SetPlaybackPosition(heard_ms)]
            return [*where, Stop()], told
        if sound is None:
            return [], told
        self._sounds.cut(item, heard_ms)
        return [Truncate(heard_ms, turn) for turn in self._conversation.agent_turns(item)], told

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
        response["output"] = [*response["output"], *self._calls]
        self._calls = []
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
            *([] if self._is_out_of_band else [self._conversation.done(self._item)]),
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
