"""The OpenAI Realtime dialect at /v1/realtime, GA event names, without any I/O: existing clients connect unchanged.

    AsyncOpenAI(base_url="http://HOST:PORT/v1", api_key=KEY).realtime.connect(model="duplex")

What differs from a turn-based server, and stays within the protocol's events:

- The model itself decides when a turn begins and ends: turn_detection is always reported as semantic_vad, whatever was asked.
- `response.create` has the agent speak at once, `response.cancel` silences it; `commit` only names what was heard so far.
- Audio may be appended as fast as a client likes, at most 30 s ahead; it is heard at the pace of real time.
- New instructions are read from the beginning while nothing was heard, later as a note to the model.
- Tools, input images and the deletion of items are refused with an error; the session goes on.

Key: `Authorization: Bearer KEY`, or the subprotocols `realtime` and `openai-insecure-api-key.KEY` of browsers.
"""

import base64
import binascii
import json
import secrets

import numpy as np

from duplex import voices
from duplex.audio import SAMPLE_RATE, TICK_MS, TICK_SAMPLES
from duplex.errors import ProtocolError
from duplex.events import Error
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
    json_object,
)

PATH = "/v1/realtime"
SUBPROTOCOL = "realtime"
EARLY_TICKS = 375  # 30 s of audio may be appended ahead
MODEL = "duplex"
MENS_VOICES = (
    "ash",
    "ballad",
    "cedar",
    "echo",
    "verse",
)  # names that clients of the API know; the others are women's
MAX_ITEMS = 1_000  # remembered for retrieve and truncate; older ones are unknown
TEXT_KINDS = ("input_text", "text", "output_text")


def _id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(10)}"


class Refused(Exception):
    """A client event that cannot be carried out: code for programs, one sentence for people, the field at fault."""

    def __init__(self, code: str, text: str, param: str | None = None):
        super().__init__(text)
        self.code, self.param = code, param


class Pcm:
    """PCM16 at 24 kHz, the default format; g711 has the same two methods."""

    decode, encode = staticmethod(decode_audio), staticmethod(encode_audio)


class OpenAIRealtime:
    """One client: its events to commands, the session's ticks to events."""

    opens_at_once = True
    is_resumable = False
    early_ticks = EARLY_TICKS
    start = Start()

    def __init__(self):
        self._session_id = ""
        self._instructions = ""
        self._voice, self._speed = voices.DEFAULT, 1.0
        self._modality = "audio"
        self._formats = {"input": "audio/pcm", "output": "audio/pcm"}
        self._decoder, self._encoder = Pcm, Pcm
        self._items: dict[str, dict] = {}
        self._last_item: str | None = None
        self._appended = False  # audio since the last commit
        self._ms = 0  # the session's clock
        self._user: dict | None = None  # the item of the user's turn going on
        self._agent: dict | None = None  # the item of the response going on
        self._response: dict | None = None
        self._spoken: dict[
            str, tuple[int, int]
        ] = {}  # of the last response's item: first and last ms of its audio
        self._cancelled_by = "turn_detected"

    # From the client

    def receive(self, message: bytes | str) -> tuple[list, list]:
        """-> commands, events to answer with; what cannot be done is answered with an error event."""
        if isinstance(message, bytes):
            raise ProtocolError("messages are JSON here; binary audio is spoken at /v1/duplex")
        fields = json_object(message)
        event_id = fields.get("event_id")
        handlers = {
            "session.update": self._update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": lambda fields: (
                [Clear()],
                [self._event("input_audio_buffer.cleared")],
            ),
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
            return [], [
                self._error(
                    error.code,
                    str(error),
                    error.param,
                    event_id if isinstance(event_id, str) else None,
                )
            ]

    def _update(self, fields: dict) -> tuple[list, list]:
        session = _object(fields, "session")
        if session.get("type", "realtime") != "realtime":
            raise Refused("invalid_value", "session.type is realtime", "session.type")
        if session.get("tools"):
            raise Refused("unsupported", "this agent has no tools", "session.tools")
        instructions = session.get("instructions")
        if instructions is not None and not (
            isinstance(instructions, str) and len(instructions) <= MAX_INSTRUCTIONS
        ):
            text = f"instructions is a text of at most {MAX_INSTRUCTIONS} characters"
            raise Refused("invalid_value", text, "session.instructions")
        modalities = session.get("output_modalities", [self._modality])
        if modalities not in (["audio"], ["text"]):
            raise Refused(
                "invalid_value",
                'output_modalities is ["audio"] or ["text"]',
                "session.output_modalities",
            )
        audio, formats = _object(session, "audio", {}), dict(self._formats)
        for side in formats:
            wanted = _object(_object(audio, side, {}), "format", {"type": formats[side]})
            rate = wanted.get("rate", SAMPLE_RATE)
            if (
                wanted.get("type") not in ("audio/pcm", *g711.LEVELS)
                or wanted["type"] == "audio/pcm"
                and rate != SAMPLE_RATE
            ):
                raise Refused("invalid_value", f"formats are audio/pcm at {SAMPLE_RATE} Hz, audio/pcmu and audio/pcma",
                              f"session.audio.{side}.format")  # fmt: skip
            formats[side] = wanted["type"]
        output = _object(audio, "output", {})
        voice, speed = output.get("voice", self._voice), output.get("speed", self._speed)
        if not isinstance(voice, str) or not voice:
            raise Refused("invalid_value", "voice is a name", "session.audio.output.voice")
        if type(speed) not in (int, float) or not voices.SPEEDS[0] <= speed <= voices.SPEEDS[1]:
            text = f"speed is a number from {voices.SPEEDS[0]} to {voices.SPEEDS[1]}"
            raise Refused("invalid_value", text, "session.audio.output.speed")
        if formats["input"] != self._formats["input"]:
            self._decoder = (
                g711.Decoder(formats["input"]) if formats["input"] in g711.LEVELS else Pcm
            )
        if formats["output"] != self._formats["output"]:
            self._encoder = (
                g711.Encoder(formats["output"]) if formats["output"] in g711.LEVELS else Pcm
            )
        self._formats, self._modality = formats, modalities[0]
        commands = []
        if instructions is not None and instructions != self._instructions:
            self._instructions = instructions
            commands = [Configure(instructions)]
        if (voice, speed) != (self._voice, self._speed):
            self._voice, self._speed = voice, speed
            commands.append(SetVoice(_known_voice(voice), speed))
        return commands, [self._event("session.updated", session=self._session())]

    def _append(self, fields: dict) -> tuple[list, list]:
        samples = self._samples(fields.get("audio"), "audio")
        self._appended |= len(samples) > 0
        return [Audio(samples)], []

    def _samples(self, text, param: str) -> np.ndarray:
        try:
            return self._decoder.decode(base64.b64decode(text, validate=True))
        except (TypeError, ValueError, binascii.Error) as error:
            raise Refused(
                "invalid_value",
                f"audio is base64 of {self._formats['input']} ({error})"[:200],
                param,
            ) from None

    def _commit(self, fields: dict) -> tuple[list, list]:
        if not self._appended:
            raise Refused(
                "input_audio_buffer_commit_empty", "no audio was appended since the last commit"
            )
        self._appended = False
        if self._user is None:
            self._user = self._new_item("user", {"type": "input_audio", "transcript": None})
        return [], self._committed()

    def _create_item(self, fields: dict) -> tuple[list, list]:
        wanted = _object(fields, "item")
        role, content = wanted.get("role"), wanted.get("content")
        if (
            wanted.get("type") != "message"
            or role not in ("user", "system", "assistant")
            or not isinstance(content, list)
        ):
            raise Refused(
                "unsupported", "items are messages of the roles user, system or assistant", "item"
            )
        if role == "assistant" and self._response:
            raise Refused(
                "unsupported", "the agent speaks; give its earlier words before", "item.role"
            )
        commands = []
        for number, part in enumerate(content):
            param = f"item.content[{number}]"
            if not isinstance(part, dict):
                raise Refused("invalid_value", "content is a list of objects", param)
            text = part.get("text")
            if (
                part.get("type") in TEXT_KINDS
                and isinstance(text, str)
                and 0 < len(text) <= MAX_TEXT
            ):
                commands.append(Write(role, text))
            elif part.get("type") == "input_audio" and role == "user":
                commands.append(Audio(self._samples(part.get("audio"), param)))
            else:
                raise Refused(
                    "invalid_value",
                    f"content is input_audio, or text of 1 to {MAX_TEXT} characters",
                    param,
                )
        item_id = wanted.get("id")
        if (
            item_id is not None
            and not (isinstance(item_id, str) and 0 < len(item_id) <= 64)
            or item_id in self._items
        ):
            raise Refused(
                "invalid_value", "item.id is a new text of at most 64 characters", "item.id"
            )
        kept = [{name: part[name] for name in ("type", "text") if name in part} for part in content]
        item = self._new_item(role, *kept, status="completed", item_id=item_id)
        return commands, self._added(item, done=True)

    def _retrieve(self, fields: dict) -> tuple[list, list]:
        return [], [self._event("conversation.item.retrieved", item=self._known(fields))]

    def _delete(self, fields: dict) -> tuple[list, list]:
        self._known(fields)
        raise Refused(
            "unsupported",
            "what was heard and said cannot be deleted; conversation.item.truncate shortens an answer",
        )

    def _truncate(self, fields: dict) -> tuple[list, list]:
        item, end_ms = self._known(fields), fields.get("audio_end_ms")
        if item["id"] not in self._spoken:
            raise Refused(
                "invalid_value", "only the agent's last answer can be truncated", "item_id"
            )
        first, last = self._spoken[item["id"]]
        if type(end_ms) is not int or not 0 <= end_ms <= last - first:
            raise Refused(
                "invalid_value", f"audio_end_ms is from 0 to {last - first}", "audio_end_ms"
            )
        answer = self._event(
            "conversation.item.truncated", item_id=item["id"], content_index=0, audio_end_ms=end_ms
        )
        if (
            self._response and self._agent is item
        ):  # still speaking: it yields, and keeps what was heard
            return [SetPlaybackPosition(first + end_ms), Stop()], [answer]
        return [Truncate(first + end_ms)], [answer]

    def _create_response(self, fields: dict) -> tuple[list, list]:
        if self._response:
            raise Refused(
                "conversation_already_has_active_response",
                "a response is going on; cancel it first",
            )
        instructions = _object(fields, "response", {}).get("instructions")
        if instructions is None:
            return [Answer()], []
        if not (isinstance(instructions, str) and 0 < len(instructions) <= MAX_TEXT):
            raise Refused(
                "invalid_value",
                f"instructions of a response have 1 to {MAX_TEXT} characters",
                "response.instructions",
            )
        return [Write("system", instructions), Answer()], []

    def _cancel(self, fields: dict) -> tuple[list, list]:
        wanted = fields.get("response_id")
        if not self._response or wanted not in (None, self._response["id"]):
            raise Refused("response_cancel_not_active", "there is no such response going on")
        self._cancelled_by = "client_cancelled"
        return [Stop()], []

    def _known(self, fields: dict) -> dict:
        item = (
            self._items.get(fields["item_id"]) if isinstance(fields.get("item_id"), str) else None
        )
        if item is None:
            raise Refused(
                "item_not_found", f"there is no item {fields.get('item_id')!r:.80}", "item_id"
            )
        return item

    # To the client

    def opened(self, session_id: str) -> list:
        self._session_id = f"sess_{session_id}"
        return [self._event("session.created", session=self._session())]

    def tick(self, audio: np.ndarray, events: list) -> list:
        tells = {
            "user_started": self._user_started,
            "heard": self._heard,
            "corrected": self._corrected,
            "user_ended": self._user_ended,
            "agent_started": self._agent_started,
            "said": self._said,
            "error": lambda event: self.refused(event),
        }
        messages, endings = [], []
        for event in events:
            if event.kind in ("agent_ended", "agent_stopped"):
                endings.append(event)
            elif event.kind in tells:
                if event.kind == "agent_started" and endings:  # the turn before ends first
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
        codes = {
            "full": "session_limit_exceeded",
            "idle": "session_expired",
            "model": "server_error",
        }
        return [self._error(codes.get(error.code, error.code), error.text)]

    def _user_started(self, event) -> list:
        self._user = self._user or self._new_item(
            "user", {"type": "input_audio", "transcript": None}
        )
        start_ms = event.start_ms if event.start_ms is not None else event.tick * TICK_MS
        return [
            self._event(
                "input_audio_buffer.speech_started",
                audio_start_ms=start_ms,
                item_id=self._user["id"],
            )
        ]

    def _heard(self, event) -> list:
        if self._user is None:
            return []
        content = self._user["content"][0]
        content["transcript"] = (content["transcript"] or "") + event.text
        kind = "conversation.item.input_audio_transcription.delta"
        return [self._event(kind, item_id=self._user["id"], content_index=0, delta=event.text)]

    def _corrected(self, event) -> list:
        """There is no message that takes deltas back; the transcript that is complete has the words as they are understood now."""
        if self._user:
            self._user["content"][0]["transcript"] = event.text
        return []

    def _user_ended(self, event) -> list:
        if self._user is None:
            return []
        item, end_ms = (
            self._user,
            event.end_ms if event.end_ms is not None else event.tick * TICK_MS,
        )
        messages = [
            self._event(
                "input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id=item["id"]
            )
        ]
        messages += self._committed()
        transcript = (item["content"][0]["transcript"] or "").strip()
        item["content"][0]["transcript"], self._user, self._appended = transcript, None, False
        usage = {"type": "duration", "seconds": 0}
        kind = "conversation.item.input_audio_transcription.completed"
        return [
            *messages,
            self._event(
                kind, item_id=item["id"], content_index=0, transcript=transcript, usage=usage
            ),
        ]

    def _committed(self) -> list:
        """The user's item enters the conversation; once only."""
        item = self._user
        if item["status"] == "completed":
            return []
        item["status"] = "completed"
        before = self._last_item
        committed = self._event(
            "input_audio_buffer.committed", previous_item_id=before, item_id=item["id"]
        )
        return [committed, *self._added(item, done=True)]

    def _agent_started(self, event) -> list:
        part = (
            {"type": "output_audio", "transcript": ""}
            if self._modality == "audio"
            else {"type": "output_text", "text": ""}
        )
        self._agent = self._new_item("assistant", part)
        self._spoken, self._cancelled_by = {}, "turn_detected"
        self._response = {
            "object": "realtime.response", "id": _id("resp"), "status": "in_progress", "status_details": None, "output": [],
            "output_modalities": [self._modality], "conversation_id": self._session_id.replace("sess", "conv"),
            "max_output_tokens": "inf", "metadata": None, "usage": None,
        }  # fmt: skip
        item = {**self._agent, "content": []}
        part_type = "audio" if self._modality == "audio" else "text"
        return [
            self._event("response.created", response=self._response),
            self._event(
                "response.output_item.added",
                response_id=self._response["id"],
                output_index=0,
                item=item,
            ),
            *self._added(self._agent, done=False, shown=item),
            self._part("response.content_part.added", part={**part, "type": part_type}),
        ]

    def _said(self, event) -> list:
        if not self._response:
            return []
        part = self._agent["content"][0]
        name = "transcript" if part["type"] == "output_audio" else "text"
        part[name] += event.text
        kind = (
            "response.output_audio_transcript.delta"
            if name == "transcript"
            else "response.output_text.delta"
        )
        return [self._part(kind, delta=event.text)]

    def _agent_ended(self, event) -> list:
        if not self._response:
            return []
        item, stopped = self._agent, event.kind == "agent_stopped"
        part = item["content"][0]
        name = "transcript" if part["type"] == "output_audio" else "text"
        part[name] = part[name].removesuffix(event.text) if stopped and event.text else part[name]
        item["status"] = "incomplete" if stopped else "completed"
        details = {"type": "cancelled", "reason": self._cancelled_by} if stopped else None
        messages = []
        if name == "transcript":
            messages.append(self._part("response.output_audio.done"))
            messages.append(
                self._part("response.output_audio_transcript.done", transcript=part[name])
            )
        else:
            messages.append(self._part("response.output_text.done", text=part[name]))
        shown = {**part, "type": "audio" if name == "transcript" else "text"}
        messages.append(self._part("response.content_part.done", part=shown))
        response, self._response = self._response, None
        response |= {
            "status": "cancelled" if stopped else "completed",
            "status_details": details,
            "output": [item],
        }
        return [
            *messages,
            self._event(
                "response.output_item.done", response_id=response["id"], output_index=0, item=item
            ),
            self._event("conversation.item.done", previous_item_id=item["previous"], item=item),
            self._event("response.done", response=response),
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
        }
        item |= {"content": list(content), "previous": None}
        self._items[item["id"]] = item
        if len(self._items) > MAX_ITEMS:
            del self._items[next(iter(self._items))]
        return item

    def _added(self, item: dict, done: bool, shown: dict | None = None) -> list:
        item["previous"], self._last_item = self._last_item, item["id"]
        kinds = ["conversation.item.added"] + ["conversation.item.done"] * done
        return [
            self._event(kind, previous_item_id=item["previous"], item=shown or item)
            for kind in kinds
        ]

    def _part(self, kind: str, **fields) -> str:
        where = {
            "response_id": self._response["id"],
            "item_id": self._agent["id"],
            "output_index": 0,
            "content_index": 0,
        }
        return self._event(kind, **where, **fields)

    def _session(self) -> dict:
        formats = {side: {"type": kind} | ({"rate": SAMPLE_RATE} if kind == "audio/pcm" else {})
                   for side, kind in self._formats.items()}  # fmt: skip
        turns = {
            "type": "semantic_vad",
            "eagerness": "auto",
            "create_response": True,
            "interrupt_response": True,
        }
        hearing = {
            "format": formats["input"],
            "transcription": None,
            "noise_reduction": None,
            "turn_detection": turns,
        }
        return {
            "type": "realtime", "object": "realtime.session", "id": self._session_id, "model": MODEL,
            "instructions": self._instructions, "output_modalities": [self._modality], "tools": [], "tool_choice": "auto",
            "audio": {"input": hearing, "output": {"format": formats["output"], "voice": self._voice, "speed": self._speed}},
            "max_output_tokens": "inf", "tracing": None, "truncation": "auto",
        }  # fmt: skip

    def _event(self, kind: str, **fields) -> str:
        fields = {name: _public(value) for name, value in fields.items()}
        return json.dumps(
            {"type": kind, "event_id": _id("event"), **fields},
            ensure_ascii=False,
            separators=(",", ":"),
        )

    def _error(
        self, code: str, text: str, param: str | None = None, event_id: str | None = None
    ) -> str:
        kind = "server_error" if code == "server_error" else "invalid_request_error"
        return self._event(
            "error",
            error={
                "type": kind,
                "code": code,
                "message": text,
                "param": param,
                "event_id": event_id,
            },
        )


def _public(value):
    """Without what only this module knows of an item."""
    if isinstance(value, dict):
        return {name: _public(part) for name, part in value.items() if name != "previous"}
    return [_public(part) for part in value] if isinstance(value, list) else value


def _object(fields: dict, name: str, default: dict | None = None) -> dict:
    value = fields.get(name)
    value = default if value is None else value
    if not isinstance(value, dict):
        raise Refused("invalid_value", f"{name} is an object", name)
    return value


def _known_voice(name: str) -> str:
    if name in voices.VOICES:
        return name
    return "oak" if name in MENS_VOICES else voices.DEFAULT
