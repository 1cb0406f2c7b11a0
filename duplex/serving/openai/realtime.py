"""The OpenAI Realtime dialect at /v1/realtime, GA event names: existing clients connect unchanged.

    AsyncOpenAI(base_url="http://HOST:PORT/v1", api_key=KEY).realtime.connect(model="duplex")

What its clients may rely on, feature by feature, stands in REALTIME.md beside this file.
Key: `Authorization: Bearer KEY`, or the subprotocols `realtime` and `openai-insecure-api-key.KEY`
of browsers. No I/O here.
"""

from collections.abc import Callable

import numpy as np

from duplex.audio import TICK_MS, TICK_SAMPLES
from duplex.events import Error, Event, ToolCall
from duplex.serving.commands import Start
from duplex.serving.limits import ClientTerms
from duplex.serving.native.messages import json_object
from duplex.serving.openai import beta, client_events
from duplex.serving.openai import events as openai_events
from duplex.serving.openai import state as openai_state
from duplex.serving.openai.events import Refused, event
from duplex.serving.openai.responses import Responses

PATH = "/v1/realtime"
SUBPROTOCOL = "realtime"
# Six minutes of audio may be appended ahead, more than one event may carry. A message is base64 of
# 15 MiB of audio, as the API allows, and what is around it.
TERMS = ClientTerms(early_ticks=4_500, may_be_idle=True, max_message_bytes=21 << 20)


class OpenAIRealtime:
    """One client of this dialect; see dialect.Dialect."""

    start = Start()
    terms = TERMS

    def __init__(
        self,
        query: dict[str, str] | None = None,
        count_tokens: Callable[[str], int] = lambda text: len(text.split()),
        max_instruction_tokens: int = 1_000,
        takes_tools: bool = False,
    ):
        """query: the fields of the client's URL. The rest is what the agent knows of its texts."""
        is_transcription = (query or {}).get("intent") == "transcription"
        self._state = openai_state.initial(is_transcription, count_tokens, max_instruction_tokens)
        self._state.takes_tools = takes_tools
        self._event_id: str | None = None
        # Whether the client knows events by the names of the beta.
        self.is_beta = False

    def preset(self, session: dict) -> None:
        """Begin with what a client secret was made for; what cannot be is left out."""
        try:
            commands, _ = client_events.update(self._state, {"session": session})
        except Refused:
            return
        self._state.due += commands

    # From the client

    def receive(self, message: bytes | str) -> tuple[list, list]:
        """The commands in an event, and events to answer it with.

        What cannot be done is answered with an error event. Raises ProtocolError.
        """
        self._event_id = None
        fields = json_object(message)
        event_id = fields.get("event_id")
        self._event_id = event_id if isinstance(event_id, str) else None
        kind = fields.get("type")
        try:
            if not isinstance(kind, str) or kind not in client_events.HANDLERS:
                text = f"there is no client event of the type {kind!r:.80}"
                raise Refused("unknown_event", text, "type")
            commands, messages = client_events.HANDLERS[kind](self._state, fields)
            self.is_beta |= kind == "transcription_session.update"
            self.is_beta |= kind == "session.update" and beta.is_session(fields["session"])
            return commands, self._named(messages)
        except Refused as error:
            return [], [openai_events.error(error.code, str(error), error.param, self._event_id)]

    def _named(self, messages: list) -> list:
        """Events by the names that the client knows."""
        return beta.renamed(messages) if self.is_beta else messages

    def take_due(self) -> list:
        """Commands that ticks have brought about since the last call."""
        due, self._state.due = self._state.due, []
        return due

    # To the client

    def opened(self, session_id: str) -> list:
        """session.created."""
        self._state.session_id = f"sess_{session_id}"
        self._state.responses = Responses(self._state.conversation, f"conv_{session_id}")
        return self._named([event("session.created", session=openai_state.report(self._state))])

    def tick(self, audio: np.ndarray, events: list) -> list:
        """Events of the tick, its audio as a delta, then the end of the response."""
        messages = []
        endings = []
        for told in events:
            if isinstance(told, Event):
                self._note(told)
            if told.kind in ("agent_ended", "agent_stopped"):
                if told.kind == "agent_stopped":
                    messages += self._state.turns.release(is_interrupted=True)
                endings.append(told)
                continue
            if told.kind == "agent_started" and endings:
                # The turn before ends first.
                messages += openai_state.end_response(self._state, endings.pop(0))
            messages += self._tell(told)
        if len(audio):
            messages += self._voice(audio)
        for told in endings:
            messages += openai_state.end_response(self._state, told)
        if self._state.responses.is_only_calls:
            done = Event("agent_ended", self._state.heard_ms // TICK_MS)
            messages += openai_state.end_response(self._state, done)
        for begin in (openai_state.begin_out_of_band, openai_state.break_silence):
            commands, begun = begin(self._state)
            self._state.due += commands
            messages += begun
        return self._named(messages)

    def _note(self, told: Event) -> None:
        """What an event says of the time, and of whose turn it is."""
        state = self._state
        # Ticks without a voice are heard as well.
        state.heard_ms = told.tick * TICK_MS
        if told.kind == "user_started":
            state.quiet_since_ms = None
        state.out_of_band.floor.read(told, state.taking.answers)

    def _tell(self, told) -> list:
        """Messages for one event that ends no response."""
        state = self._state
        finds_turns = state.config.finds_turns
        match told.kind:
            case "marked":
                state.turns.marked(told.number)
            case "user_started":
                return state.turns.started(told, finds_turns, state.responses.is_begun)
            case "heard":
                return state.turns.heard(told)
            case "corrected":
                return state.turns.corrected(told)
            case "user_ended":
                return state.turns.ended(told, finds_turns)
            case "agent_started":
                return self._agent_started(told)
            case "said":
                return state.responses.said(told)
            case "spoken":
                return state.responses.spoken(told)
            case "tool":
                return self._called(told)
            case "error":
                self._event_id = None
                return self.refused(told)
            case "session.ended":
                return self._ended(told)
        return []

    def _voice(self, audio: np.ndarray) -> list:
        """A tick of the agent's voice, and the clocks."""
        state = self._state
        messages = state.turns.tick()
        messages += state.responses.voice(audio, state.encoder, state.now_ms)
        state.responses.usage.input_audio += 1
        state.now_ms += TICK_MS * len(audio) // TICK_SAMPLES
        state.heard_ms += TICK_MS
        state.out_of_band.floor.tick()
        return messages

    def refused(self, error: Error) -> list:
        """An error event, about the message that was received last."""
        codes = {
            "full": "session_limit_exceeded",
            "idle": "session_expired",
            "model": "server_error",
            "too_much": "input_audio_buffer_full",
        }
        code = codes.get(error.code, error.code)
        return [openai_events.error(code, error.text, event_id=self._event_id)]

    def _ended(self, ended) -> list:
        """The session's end is told before the connection closes."""
        code = "server_shutting_down" if "shutting down" in ended.text else "session_expired"
        return [openai_events.error(code, f"the session is over: {ended.text}")]

    def _agent_started(self, told: Event) -> list:
        state = self._state
        # The clock is the voice's, which stands still in ticks without one. It begins anew where
        # the session was opened anew, with its first instructions.
        state.now_ms = min(state.now_ms, told.tick * TICK_MS)
        messages = state.turns.tick(is_answered=True)
        if not state.responses.is_active:
            config = state.config
            messages += state.responses.create(config.modality, config.max_output_tokens)
        return messages + state.responses.begin()

    def _called(self, told: ToolCall) -> list:
        """The agent wants a function called: an item of the response, which may have no words."""
        state = self._state
        state.calls.add(told.call_id)
        messages = state.turns.tick(is_answered=True)
        if not state.responses.is_active:
            config = state.config
            messages += state.responses.create(config.modality, config.max_output_tokens)
        return messages + state.responses.call(told)
