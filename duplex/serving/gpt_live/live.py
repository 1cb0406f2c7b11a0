"""The GPT-Live dialect at /v1/live/sessions: audio goes both ways all the time, and nobody asks.

    AsyncOpenAI(base_url="http://HOST:PORT/v1", api_key=KEY).live.connect()

No event of a client creates, cancels or shortens an answer: the agent takes the turns. What its
clients may rely on, feature by feature, stands in LIVE.md beside this file. No I/O here.
"""

import time
from collections.abc import Callable

import numpy as np

from duplex.audio import TICK_MS
from duplex.events import Error, Event, ToolCall
from duplex.serving.commands import Audio, End, Start, Write
from duplex.serving.gpt_live import config as live_config
from duplex.serving.gpt_live.commentary import Commentary
from duplex.serving.gpt_live.delegation import Delegation
from duplex.serving.gpt_live.transcripts import Pieces, Transcripts
from duplex.serving.native.messages import json_object
from duplex.serving.openai.audio import Decoder, Encoder
from duplex.serving.openai.events import Refused, event, is_text
from duplex.serving.openai.realtime import TERMS

PATH = "/v1/live/sessions"
# What most messages are: a tick of audio.
AUDIO = "session.output_audio.delta"
# Ticks from one report of the usage to the next: ten seconds.
USAGE_TICKS = 125
UNTOLD = "this agent answers by itself: nothing is delegated, and no tools are called"


class GPTLive:
    """One client of this dialect; see dialect.Dialect."""

    start = None
    # As in the Realtime dialect: what is too much is refused, and nothing is lost unheard.
    terms = TERMS

    def __init__(
        self,
        count_tokens: Callable[[str], int] = lambda text: len(text.split()),
        max_instruction_tokens: int = 1_000,
        max_session_s: float = 0.0,
        takes_tools: bool = False,
    ):
        """What the agent knows of its texts, and whether it can have functions called.

        max_session_s: how long a session may last; 0 is for ever.
        """
        self._count_tokens = count_tokens
        self._max_instruction_tokens = max_instruction_tokens
        self._max_session_s = max_session_s
        self._expires_at = 0
        self._config: live_config.Config | None = None
        self._session_id = ""
        self._is_muted = False
        self._delegation = Delegation(takes_tools)
        # Whether the client counts on a delegation that there is not.
        self._misses_delegation = False
        self._decoder = self._encoder = None
        self._transcripts = Transcripts()
        self._ticks = 0
        self._commentary = Commentary()
        # Ids of client events: of the last one, of the start, and of the wish to end.
        self._event_id: str | None = None
        self._start_id: str | None = None
        self._close_id: str | None = None

    # From the client

    def receive(self, message: bytes | str) -> tuple[list, list]:
        """The commands in an event, and events to answer it with.

        What cannot be done is answered with an error event. Raises ProtocolError.
        """
        self._event_id = None
        fields = json_object(message)
        event_id = fields.pop("event_id", None)
        self._event_id = event_id if isinstance(event_id, str) else None
        handlers = {
            "session.start": self._begin,
            "session.update": self._update,
            "session.input_audio.append": self._append_audio,
            "session.input_audio.mute": self._mute,
            "session.input_audio.unmute": self._mute,
            "session.instructions.append": self._append_text,
            "session.thinking.append": self._append_text,
            "session.commentary.append": self._append_text,
            "response.item.create": self._queue_result,
            "response.create": self._go_on,
            "session.close": self._close,
        }
        kind = fields.get("type")
        try:
            self._check(kind, handlers)
            return handlers[kind](fields)
        except Refused as refused:
            return [], [self._error(refused.code, str(refused), refused.param)]

    def _check(self, kind, handlers: dict) -> None:
        """Whether there is such an event and it may come now. Raises Refused."""
        elsewhere = ("decision.", "session.output_audio.", "transport.")
        if isinstance(kind, str) and kind.startswith(elsewhere):
            raise Refused("unsupported", f"{kind!r:.80} is not offered here", "type")
        if not isinstance(kind, str) or kind not in handlers:
            text = f"there is no client event of the type {kind!r:.80}"
            raise Refused("unknown_event", text, "type")
        if kind == "session.start" and self._config:
            raise Refused("session_already_started", "a session is started once", "type")
        if kind != "session.start" and not self._config:
            raise Refused("session_not_started", "the first event is session.start", "type")

    def take_due(self) -> list:
        """Commands that ticks have brought about since the last call."""
        return self._commentary.take_due()

    def _begin(self, fields: dict) -> tuple[list, list]:
        session = _session(fields)
        config = live_config.read(session, self._count_tokens, self._max_instruction_tokens)
        tools = self._delegation.read(session)
        self._config = config
        self._start_id = self._event_id
        self._misses_delegation = self._delegation.is_missed(session)
        self._decoder = Decoder(self._config.audio_format, self._config.rate)
        self._encoder = Encoder(self._config.audio_format, self._config.rate)
        start = Start(instructions=self._config.instructions, voice=self._config.voice)
        return [start, *self._config.history, *([tools] if tools else [])], []

    def _update(self, fields: dict) -> tuple[list, list]:
        session = _session(fields)
        fixed = sorted(session.keys() & {"model", "instructions", "audio", "input", "store"})
        if fixed:
            text = f"{fixed[0]} cannot change once the session has started"
            raise Refused("immutable_parameter", text, f"session.{fixed[0]}")
        live_config.only(session, "delegation triggers", "session")
        tools = self._delegation.read(session)
        messages = [self._event("session.updated", session=self._report())]
        if self._delegation.is_missed(session):
            messages.append(self._untold())
        return [tools] if tools else [], messages

    def _append_audio(self, fields: dict) -> tuple[list, list]:
        samples = self._decoder.decode(fields.get("audio"), "audio")
        return [Audio(np.zeros_like(samples) if self._is_muted else samples)], []

    def _mute(self, fields: dict) -> tuple[list, list]:
        self._is_muted = fields["type"] == "session.input_audio.mute"
        return [], [self._event(f"{fields['type']}d")]

    def _append_text(self, fields: dict) -> tuple[list, list]:
        """Something to follow, to know, or to say."""
        live_config.only(fields, "type content delegation_id", "the event")
        if fields.get("delegation_id") is not None:
            text = "there is no such delegation: nothing is delegated here"
            raise Refused("delegation_not_found", text, "delegation_id")
        content = fields.get("content")
        if not is_text(content, 1, 1 << 14) or not content.strip():
            raise Refused("invalid_value", "content is a text", "content")
        tokens = self._count_tokens(content)
        if tokens > live_config.MAX_APPEND_TOKENS:
            text = f"content has {tokens} pieces of words; at most {live_config.MAX_APPEND_TOKENS}"
            raise Refused("invalid_value", text, "content")
        now_ms = self._ticks * TICK_MS
        told = self._event(f"{fields['type']}ed", start_ms=now_ms, end_ms=now_ms)
        if fields["type"] != "session.commentary.append":
            return [Write("system", content, is_answered=False)], [told]
        self._commentary.append(content)
        return self._commentary.take_due(), [told]

    def _queue_result(self, fields: dict) -> tuple[list, list]:
        self._delegation.queue(fields)
        return [], []

    def _go_on(self, fields: dict) -> tuple[list, list]:
        return self._delegation.go_on()

    def _close(self, fields: dict) -> tuple[list, list]:
        self._close_id = self._event_id
        return [End()], []

    # To the client

    def opened(self, session_id: str) -> list:
        """session.started."""
        self._session_id = f"sess_{session_id}"
        year_s = 365 * 24 * 3600
        self._expires_at = int(time.time() + (self._max_session_s or year_s))
        self._event_id = self._start_id
        messages = [self._event("session.started", session=self._report())]
        return messages + ([self._untold()] if self._misses_delegation else [])

    def tick(self, audio: np.ndarray, events: list) -> list:
        """The tick's audio, silence included, then what was heard and said in it."""
        messages = []
        if len(audio):
            delta = self._encoder.encode(audio)
            messages += [event(AUDIO, delta=delta)] if delta else []
        for told in events:
            if isinstance(told, Event):
                self._ticks = max(self._ticks, told.tick)
                self._commentary.read(told)
            messages += self._tell(told)
        calls = [told for told in events if isinstance(told, ToolCall)]
        messages += self._delegation.called(calls)
        if len(audio):
            self._ticks += 1
            self._commentary.tick()
            if self._ticks % USAGE_TICKS == 0:
                messages.append(event("session.usage.updated", usage=self._usage()))
        return messages

    def _tell(self, told) -> list:
        """Messages for one event."""
        match told.kind:
            case "error":
                self._event_id = None
                return self.refused(told)
            case "session.ended":
                rest = self._transcripts.end_turn(self._ticks * TICK_MS)
                return [*_transcribed(rest), *self._ended(told)]
        return _transcribed(self._transcripts.read(told))

    def refused(self, error: Error) -> list:
        """An error event, about the message that was received last."""
        codes = {
            "full": "session_limit_exceeded",
            "idle": "session_expired",
            "model": "server_error",
            "too_much": "input_audio_buffer_full",
        }
        return [self._error(codes.get(error.code, error.code), error.text)]

    def _ended(self, told) -> list:
        """session.closed, the last event, with the reason."""
        self._event_id = self._close_id
        closed = {"session": self._report(), "usage": self._usage()}
        if self._close_id or told.text == "closed by the client":
            return [self._event("session.closed", reason="close_requested", **closed)]
        is_over = "lasts at most" in told.text
        reason = "expired" if is_over else "connection_lost"
        code = "session_expired" if is_over else "server_shutting_down"
        messages = [self._error(code, f"the session is over: {told.text}")]
        return [*messages, self._event("session.closed", reason=reason, **closed)]

    def _report(self) -> dict:
        report = live_config.report(self._config, self._session_id, self._expires_at)
        return report | {"delegation": self._delegation.report()}

    def _usage(self) -> dict:
        return {"seconds": self._ticks * TICK_MS / 1000}

    def _untold(self) -> str:
        return self._event("info", code="delegation_unsupported", message=UNTOLD)

    def _event(self, kind: str, **fields) -> str:
        """A server event about the client's last one, if it has a name."""
        about = {"client_event_id": self._event_id} if self._event_id else {}
        return event(kind, **fields, **about)

    def _error(self, code: str, text: str, param: str | None = None) -> str:
        is_ours = code in ("server_error", "server_shutting_down")
        error = {
            "type": "server_error" if is_ours else "invalid_request_error",
            "code": code,
            "message": text,
            "param": param,
            "client_event_id": self._event_id,
        }
        return self._event("error", error=error)


def _transcribed(pieces: Pieces) -> list:
    return [event(kind, **fields) for kind, fields in pieces]


def _session(fields: dict) -> dict:
    """The session that an event carries. Raises Refused."""
    live_config.only(fields, "type session", "the event")
    if not isinstance(fields.get("session"), dict):
        raise Refused("invalid_value", "session is an object", "session")
    return fields["session"]
