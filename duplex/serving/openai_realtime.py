"""The OpenAI Realtime dialect at /v1/realtime, GA event names: existing clients connect unchanged.

    AsyncOpenAI(base_url="http://HOST:PORT/v1", api_key=KEY).realtime.connect(model="duplex")

What differs from a turn-based server, and stays within the protocol's events:

- The model itself decides when a turn begins and ends: turn_detection is always reported as
  semantic_vad, whatever was asked.
- `response.create` has the agent speak at once, `response.cancel` silences it; `commit` only names
  what was heard so far.
- Audio may be appended as fast as a client likes, at most 30 s ahead; it is heard at the pace of
  real time.
- New instructions are read from the beginning while nothing was heard, later as a note.
- Tools, input images and the deletion of items are refused with an error; the session goes on.

Key: `Authorization: Bearer KEY`, or the subprotocols `realtime` and `openai-insecure-api-key.KEY`
of browsers. No I/O here.
"""

import base64
import binascii
import secrets

import numpy as np

from duplex import voices
from duplex.audio import SAMPLE_RATE, TICK_MS, TICK_SAMPLES
from duplex.errors import ProtocolError
from duplex.events import Error, Event
from duplex.serving import g711
from duplex.serving.commands import (
    Answer,
    Audio,
    Clear,
    Configure,
    SetPlaybackPosition,
    SetVoice,
    Start,
    Stop,
    Truncate,
    Write,
)
from duplex.serving.native import (
    MAX_INSTRUCTIONS,
    MAX_TEXT,
    decode_audio,
    encode_audio,
    encode_object,
    json_object,
)

PATH = "/v1/realtime"
SUBPROTOCOL = "realtime"


class Refused(Exception):
    """A client event that cannot be carried out.

    code: for programs. text: one sentence for people. param: the field at fault.
    """

    def __init__(self, code: str, text: str, param: str | None = None):
        super().__init__(text)
        self.code = code
        self.param = param


class Pcm:
    """PCM16 at 24 kHz, the default format; g711's coders have the same methods."""

    decode = staticmethod(decode_audio)
    encode = staticmethod(encode_audio)


class OpenAIRealtime:
    """One client of this dialect; see dialect.Dialect."""

    opens_at_once = True
    start = Start()
    # Of audio that may be appended ahead: 30 s.
    early_ticks = 375
    is_resumable = False

    def __init__(self, max_items: int = 1_000):
        """max_items: remembered for retrieve and truncate; older ones are unknown."""
        self._max_items = max_items
        self._session_id = ""
        # What the client has chosen.
        self._instructions = ""
        self._voice = voices.DEFAULT
        self._speed = 1.0
        self._modality = "audio"
        self._formats = {"input": "audio/pcm", "output": "audio/pcm"}
        self._decoder = Pcm
        self._encoder = Pcm
        # The conversation: items by id, and the last of them.
        self._items: dict[str, dict] = {}
        self._last_item: str | None = None
        # Whether audio was appended since the last commit.
        self._appended = False
        # Milliseconds on the session's clock.
        self._ms = 0
        # The item of the user's turn that is going on.
        self._user: dict | None = None
        # The response that is going on, and its item.
        self._response: dict | None = None
        self._agent: dict | None = None
        # By the last response's item: first and last ms of its audio.
        self._spoken: dict[str, tuple[int, int]] = {}
        self._cancelled_by = "turn_detected"

    # From the client

    def receive(self, message: bytes | str) -> tuple[list, list]:
        """The commands in an event, and events to answer it with.

        What cannot be done is answered with an error event. Raises ProtocolError.
        """
        if isinstance(message, bytes):
            raise ProtocolError("messages are JSON here; binary audio is spoken at /v1/duplex")
        fields = json_object(message)
        handlers = {
            "session.update": self._update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "conversation.item.create": self._create_item,
            "conversation.item.retrieve": self._retrieve,
            "conversation.item.delete": self._delete,
            "conversation.item.truncate": self._truncate,
            "response.create": self._create_response,
            "response.cancel": self._cancel,
        }
        kind = fields.get("type")
        try:
            if not isinstance(kind, str) or kind not in handlers:
                raise Refused(
                    "unknown_event", f"there is no client event of the type {kind!r:.80}", "type"
                )
            return handlers[kind](fields)
        except Refused as error:
            event_id = fields.get("event_id")
            event_id = event_id if isinstance(event_id, str) else None
            return [], [_error(error.code, str(error), error.param, event_id)]

    def _update(self, fields: dict) -> tuple[list, list]:
        session = _object(fields, "session")
        if session.get("type", "realtime") != "realtime":
            raise Refused("invalid_value", "session.type is realtime", "session.type")
        if session.get("tools"):
            raise Refused("unsupported", "this agent has no tools", "session.tools")
        instructions = session.get("instructions")
        if instructions is not None and not _is_text(instructions, 0, MAX_INSTRUCTIONS):
            text = f"instructions is a text of at most {MAX_INSTRUCTIONS} characters"
            raise Refused("invalid_value", text, "session.instructions")
        modalities = session.get("output_modalities", [self._modality])
        if modalities not in (["audio"], ["text"]):
            text = 'output_modalities is ["audio"] or ["text"]'
            raise Refused("invalid_value", text, "session.output_modalities")
        audio = _object(session, "audio", {})
        formats = self._wanted_formats(audio)
        voice, speed = self._wanted_voice(_object(audio, "output", {}))

        # All of it can be: from here on it is so.
        self._set_formats(formats)
        self._modality = modalities[0]
        commands = []
        if instructions is not None and instructions != self._instructions:
            self._instructions = instructions
            commands.append(Configure(instructions))
        if (voice, speed) != (self._voice, self._speed):
            self._voice = voice
            self._speed = speed
            commands.append(SetVoice(_known_voice(voice), speed))
        return commands, [_event("session.updated", session=self._session())]

    def _wanted_formats(self, audio: dict) -> dict[str, str]:
        formats = dict(self._formats)
        for side in formats:
            wanted = _object(_object(audio, side, {}), "format", {"type": formats[side]})
            kind = wanted.get("type")
            is_telephone = kind in tuple(g711.LEVELS)
            is_pcm = kind == "audio/pcm" and wanted.get("rate", SAMPLE_RATE) == SAMPLE_RATE
            if not (is_telephone or is_pcm):
                raise Refused(
                    "invalid_value",
                    f"formats are audio/pcm at {SAMPLE_RATE} Hz, audio/pcmu and audio/pcma",
                    f"session.audio.{side}.format",
                )
            formats[side] = kind
        return formats

    def _wanted_voice(self, output: dict) -> tuple[str, float]:
        voice = output.get("voice", self._voice)
        speed = output.get("speed", self._speed)
        if not isinstance(voice, str) or not voice:
            raise Refused("invalid_value", "voice is a name", "session.audio.output.voice")
        lowest, highest = voices.SPEEDS
        if type(speed) not in (int, float) or not lowest <= speed <= highest:
            text = f"speed is a number from {lowest} to {highest}"
            raise Refused("invalid_value", text, "session.audio.output.speed")
        return voice, speed

    def _set_formats(self, formats: dict[str, str]) -> None:
        """New coders where a format has changed: those in use are in the middle of a stream."""
        kind = formats["input"]
        if kind != self._formats["input"]:
            self._decoder = g711.Decoder(kind) if kind in g711.LEVELS else Pcm
        kind = formats["output"]
        if kind != self._formats["output"]:
            self._encoder = g711.Encoder(kind) if kind in g711.LEVELS else Pcm
        self._formats = formats

    def _clear(self, fields: dict) -> tuple[list, list]:
        return [Clear()], [_event("input_audio_buffer.cleared")]

    def _append(self, fields: dict) -> tuple[list, list]:
        samples = self._samples(fields.get("audio"), "audio")
        self._appended |= len(samples) > 0
        return [Audio(samples)], []

    def _samples(self, text, param: str) -> np.ndarray:
        try:
            return self._decoder.decode(base64.b64decode(text, validate=True))
        except (TypeError, ValueError, binascii.Error) as error:
            text = f"audio is base64 of {self._formats['input']} ({error})"[:200]
            raise Refused("invalid_value", text, param) from None

    def _commit(self, fields: dict) -> tuple[list, list]:
        if not self._appended:
            text = "no audio was appended since the last commit"
            raise Refused("input_audio_buffer_commit_empty", text)
        self._appended = False
        if self._user is None:
            self._user = self._new_item("user", {"type": "input_audio", "transcript": None})
        return [], self._committed()

    def _create_item(self, fields: dict) -> tuple[list, list]:
        wanted = _object(fields, "item")
        role = wanted.get("role")
        content = wanted.get("content")
        is_message = wanted.get("type") == "message" and isinstance(content, list)
        if not is_message or role not in ("user", "system", "assistant"):
            text = "items are messages of the roles user, system or assistant"
            raise Refused("unsupported", text, "item")
        if role == "assistant" and self._response:
            text = "the agent speaks; give its earlier words before"
            raise Refused("unsupported", text, "item.role")
        commands = [self._content(role, part, number) for number, part in enumerate(content)]
        item_id = wanted.get("id")
        is_new = item_id is None or _is_text(item_id, 1, 64) and item_id not in self._items
        if not is_new:
            text = "item.id is a new text of at most 64 characters"
            raise Refused("invalid_value", text, "item.id")
        kept = [{name: part[name] for name in ("type", "text") if name in part} for part in content]
        item = self._new_item(role, *kept, status="completed", item_id=item_id)
        return commands, self._added(item, done=True)

    def _content(self, role: str, part, number: int) -> Write | Audio:
        """The command that part `number` of a new item's content means."""
        param = f"item.content[{number}]"
        if not isinstance(part, dict):
            raise Refused("invalid_value", "content is a list of objects", param)
        kind = part.get("type")
        text = part.get("text")
        if kind in ("input_text", "text", "output_text") and _is_text(text, 1, MAX_TEXT):
            return Write(role, text)
        if kind == "input_audio" and role == "user":
            return Audio(self._samples(part.get("audio"), param))
        told = f"content is input_audio, or text of 1 to {MAX_TEXT} characters"
        raise Refused("invalid_value", told, param)

    def _retrieve(self, fields: dict) -> tuple[list, list]:
        return [], [_event("conversation.item.retrieved", item=self._known(fields))]

    def _delete(self, fields: dict) -> tuple[list, list]:
        self._known(fields)
        text = "what was heard and said cannot be deleted"
        raise Refused("unsupported", f"{text}; conversation.item.truncate shortens an answer")

    def _truncate(self, fields: dict) -> tuple[list, list]:
        item = self._known(fields)
        end_ms = fields.get("audio_end_ms")
        if item["id"] not in self._spoken:
            text = "only the agent's last answer can be truncated"
            raise Refused("invalid_value", text, "item_id")
        first, last = self._spoken[item["id"]]
        if type(end_ms) is not int or not 0 <= end_ms <= last - first:
            text = f"audio_end_ms is from 0 to {last - first}"
            raise Refused("invalid_value", text, "audio_end_ms")
        answer = _event(
            "conversation.item.truncated", item_id=item["id"], content_index=0, audio_end_ms=end_ms
        )
        if self._response and self._agent is item:
            # It still speaks: it yields, and keeps what was heard.
            return [SetPlaybackPosition(first + end_ms), Stop()], [answer]
        return [Truncate(first + end_ms)], [answer]

    def _create_response(self, fields: dict) -> tuple[list, list]:
        if self._response:
            text = "a response is going on; cancel it first"
            raise Refused("conversation_already_has_active_response", text)
        instructions = _object(fields, "response", {}).get("instructions")
        if instructions is None:
            return [Answer()], []
        if not _is_text(instructions, 1, MAX_TEXT):
            text = f"instructions of a response have 1 to {MAX_TEXT} characters"
            raise Refused("invalid_value", text, "response.instructions")
        return [Write("system", instructions), Answer()], []

    def _cancel(self, fields: dict) -> tuple[list, list]:
        wanted = fields.get("response_id")
        if not self._response or wanted not in (None, self._response["id"]):
            raise Refused("response_cancel_not_active", "there is no such response going on")
        self._cancelled_by = "client_cancelled"
        return [Stop()], []

    def _known(self, fields: dict) -> dict:
        """The item that an event names."""
        item_id = fields.get("item_id")
        item = self._items.get(item_id) if isinstance(item_id, str) else None
        if item is None:
            raise Refused("item_not_found", f"there is no item {item_id!r:.80}", "item_id")
        return item

    # To the client

    def opened(self, session_id: str) -> list:
        """session.created."""
        self._session_id = f"sess_{session_id}"
        return [_event("session.created", session=self._session())]

    def tick(self, audio: np.ndarray, events: list) -> list:
        """Events of the tick, its audio as a delta, then the end of the response."""
        tells = {
            "user_started": self._user_started,
            "heard": self._heard,
            "corrected": self._corrected,
            "user_ended": self._user_ended,
            "agent_started": self._agent_started,
            "said": self._said,
            "error": self.refused,
        }
        messages = []
        endings = []
        for event in events:
            if event.kind in ("agent_ended", "agent_stopped"):
                endings.append(event)
            elif event.kind in tells:
                if event.kind == "agent_started" and endings:
                    # The turn before ends first.
                    messages += self._agent_ended(endings.pop(0))
                messages += tells[event.kind](event)
        if len(audio):
            if self._response and self._modality == "audio":
                delta = base64.b64encode(self._encoder.encode(audio)).decode()
                messages.append(self._part("response.output_audio.delta", delta=delta))
                first, _ = self._spoken.setdefault(self._agent["id"], (self._ms, self._ms))
                self._spoken[self._agent["id"]] = first, self._ms + TICK_MS
            self._ms += TICK_MS * len(audio) // TICK_SAMPLES
        for event in endings:
            messages += self._agent_ended(event)
        return messages

    def refused(self, error: Error) -> list:
        """An error event."""
        codes = {
            "full": "session_limit_exceeded",
            "idle": "session_expired",
            "model": "server_error",
        }
        return [_error(codes.get(error.code, error.code), error.text)]

    def _user_started(self, event: Event) -> list:
        if self._user is None:
            self._user = self._new_item("user", {"type": "input_audio", "transcript": None})
        start_ms = event.tick * TICK_MS if event.start_ms is None else event.start_ms
        kind = "input_audio_buffer.speech_started"
        return [_event(kind, audio_start_ms=start_ms, item_id=self._user["id"])]

    def _heard(self, event: Event) -> list:
        if self._user is None:
            return []
        content = self._user["content"][0]
        content["transcript"] = (content["transcript"] or "") + event.text
        kind = "conversation.item.input_audio_transcription.delta"
        return [_event(kind, item_id=self._user["id"], content_index=0, delta=event.text)]

    def _corrected(self, event: Event) -> list:
        """No message takes deltas back; the transcript that comes at the end is the right one."""
        if self._user:
            self._user["content"][0]["transcript"] = event.text
        return []

    def _user_ended(self, event: Event) -> list:
        if self._user is None:
            return []
        item = self._user
        end_ms = event.tick * TICK_MS if event.end_ms is None else event.end_ms
        kind = "input_audio_buffer.speech_stopped"
        messages = [_event(kind, audio_end_ms=end_ms, item_id=item["id"]), *self._committed()]
        transcript = (item["content"][0]["transcript"] or "").strip()
        item["content"][0]["transcript"] = transcript
        self._user = None
        self._appended = False
        completed = _event(
            "conversation.item.input_audio_transcription.completed",
            item_id=item["id"],
            content_index=0,
            transcript=transcript,
            usage={"type": "duration", "seconds": 0},
        )
        return [*messages, completed]

    def _committed(self) -> list:
        """The user's item enters the conversation; once only."""
        item = self._user
        if item["status"] == "completed":
            return []
        item["status"] = "completed"
        committed = _event(
            "input_audio_buffer.committed", previous_item_id=self._last_item, item_id=item["id"]
        )
        return [committed, *self._added(item, done=True)]

    def _agent_started(self, event: Event) -> list:
        if self._modality == "audio":
            part = {"type": "output_audio", "transcript": ""}
        else:
            part = {"type": "output_text", "text": ""}
        self._agent = self._new_item("assistant", part)
        self._spoken = {}
        self._cancelled_by = "turn_detected"
        self._response = {
            "object": "realtime.response",
            "id": _id("resp"),
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "output_modalities": [self._modality],
            "conversation_id": self._session_id.replace("sess", "conv"),
            "max_output_tokens": "inf",
            "metadata": None,
            "usage": None,
        }
        item = {**self._agent, "content": []}
        response_id = self._response["id"]
        return [
            _event("response.created", response=self._response),
            _event(
                "response.output_item.added", response_id=response_id, output_index=0, item=item
            ),
            *self._added(self._agent, done=False, shown=item),
            self._part("response.content_part.added", part={**part, "type": self._modality}),
        ]

    def _said(self, event: Event) -> list:
        if not self._response:
            return []
        part = self._agent["content"][0]
        if part["type"] == "output_audio":
            part["transcript"] += event.text
            return [self._part("response.output_audio_transcript.delta", delta=event.text)]
        part["text"] += event.text
        return [self._part("response.output_text.delta", delta=event.text)]

    def _agent_ended(self, event: Event) -> list:
        if not self._response:
            return []
        item = self._agent
        part = item["content"][0]
        is_audio = part["type"] == "output_audio"
        name = "transcript" if is_audio else "text"
        is_stopped = event.kind == "agent_stopped"
        if is_stopped and event.text:
            part[name] = part[name].removesuffix(event.text)
        item["status"] = "incomplete" if is_stopped else "completed"

        # 1. The content is complete.
        messages = []
        if is_audio:
            messages.append(self._part("response.output_audio.done"))
            kind = "response.output_audio_transcript.done"
            messages.append(self._part(kind, transcript=part[name]))
        else:
            messages.append(self._part("response.output_text.done", text=part[name]))
        shown = {**part, "type": "audio" if is_audio else "text"}
        messages.append(self._part("response.content_part.done", part=shown))

        # 2. So are the item and the response.
        response = self._response
        self._response = None
        cancelled = {"type": "cancelled", "reason": self._cancelled_by}
        response["status"] = "cancelled" if is_stopped else "completed"
        response["status_details"] = cancelled if is_stopped else None
        response["output"] = [item]
        done = {"response_id": response["id"], "output_index": 0, "item": item}
        return [
            *messages,
            _event("response.output_item.done", **done),
            _event("conversation.item.done", previous_item_id=item["previous"], item=item),
            _event("response.done", response=response),
        ]

    def _new_item(
        self, role: str, *content: dict, status: str = "in_progress", item_id: str | None = None
    ) -> dict:
        item = {
            "id": item_id or _id("item"),
            "object": "realtime.item",
            "type": "message",
            "status": status,
            "role": role,
            "content": list(content),
            # The item before it in the conversation; nobody else sees this field.
            "previous": None,
        }
        self._items[item["id"]] = item
        if len(self._items) > self._max_items:
            del self._items[next(iter(self._items))]
        return item

    def _added(self, item: dict, done: bool, shown: dict | None = None) -> list:
        """An item enters the conversation; shown: how it looks, if not as it is."""
        item["previous"] = self._last_item
        self._last_item = item["id"]
        kinds = ["conversation.item.added"] + ["conversation.item.done"] * done
        shown = shown or item
        return [_event(kind, previous_item_id=item["previous"], item=shown) for kind in kinds]

    def _part(self, kind: str, **fields) -> str:
        """An event about the content of the response that is going on."""
        return _event(
            kind,
            response_id=self._response["id"],
            item_id=self._agent["id"],
            output_index=0,
            content_index=0,
            **fields,
        )

    def _session(self) -> dict:
        """The session as clients see it."""
        formats = {side: {"type": kind} for side, kind in self._formats.items()}
        for form in formats.values():
            if form["type"] == "audio/pcm":
                form["rate"] = SAMPLE_RATE
        # How turns are found, whatever a client asks for.
        turn_detection = {
            "type": "semantic_vad",
            "eagerness": "auto",
            "create_response": True,
            "interrupt_response": True,
        }
        hearing = {
            "format": formats["input"],
            "transcription": None,
            "noise_reduction": None,
            "turn_detection": turn_detection,
        }
        voice = {"format": formats["output"], "voice": self._voice, "speed": self._speed}
        return {
            "type": "realtime",
            "object": "realtime.session",
            "id": self._session_id,
            "model": "duplex",
            "instructions": self._instructions,
            "output_modalities": [self._modality],
            "tools": [],
            "tool_choice": "auto",
            "audio": {"input": hearing, "output": voice},
            "max_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
        }


def _id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(10)}"


def _event(kind: str, **fields) -> str:
    """A server event as a message."""
    public = {name: _public(value) for name, value in fields.items()}
    return encode_object({"type": kind, "event_id": _id("event"), **public})


def _error(code: str, text: str, param: str | None = None, event_id: str | None = None) -> str:
    """An error event; event_id: of the client's event that is at fault."""
    error = {
        "type": "server_error" if code == "server_error" else "invalid_request_error",
        "code": code,
        "message": text,
        "param": param,
        "event_id": event_id,
    }
    return _event("error", error=error)


def _public(value):
    """Without what only this module knows of an item."""
    if isinstance(value, dict):
        return {name: _public(part) for name, part in value.items() if name != "previous"}
    return [_public(part) for part in value] if isinstance(value, list) else value


def _is_text(value, shortest: int, longest: int) -> bool:
    return isinstance(value, str) and shortest <= len(value) <= longest


def _object(fields: dict, name: str, default: dict | None = None) -> dict:
    """An object among the fields, or the default where there is none. Raises Refused."""
    value = fields.get(name)
    value = default if value is None else value
    if not isinstance(value, dict):
        raise Refused("invalid_value", f"{name} is an object", name)
    return value


def _known_voice(name: str) -> str:
    """One of ours for a name of the API."""
    if name in voices.VOICES:
        return name
    # The others that clients of the API know are women's.
    mens = ("ash", "ballad", "cedar", "echo", "verse")
    return "oak" if name in mens else voices.DEFAULT
