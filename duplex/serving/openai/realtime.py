"""The OpenAI Realtime dialect at /v1/realtime, GA event names: existing clients connect unchanged.

    AsyncOpenAI(base_url="http://HOST:PORT/v1", api_key=KEY).realtime.connect(model="duplex")

What its clients may rely on, feature by feature, stands in REALTIME.md beside this file.
Key: `Authorization: Bearer KEY`, or the subprotocols `realtime` and `openai-insecure-api-key.KEY`
of browsers. No I/O here.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from duplex.audio import TICK_MS, TICK_SAMPLES
from duplex.errors import ProtocolError
from duplex.events import Error, Event, TurnTaking
from duplex.serving.commands import (
    AbandonTurn,
    AfterInput,
    Answer,
    Audio,
    Clear,
    Commit,
    Configure,
    EndTurn,
    Hint,
    Mark,
    SetPlaybackPosition,
    SetVoice,
    Start,
    Stop,
    TakeTurns,
    Truncate,
    Write,
)
from duplex.serving.native import json_object
from duplex.serving.openai import config as openai_config
from duplex.serving.openai import events as openai_events
from duplex.serving.openai import items as openai_items
from duplex.serving.openai.audio import Decoder, Encoder
from duplex.serving.openai.events import Refused, event
from duplex.serving.openai.responses import Responses, read_request
from duplex.serving.openai.turns import UserTurns

PATH = "/v1/realtime"
SUBPROTOCOL = "realtime"
# Bytes of one message: base64 of 15 MiB of audio, as the API allows, and what is around it.
MAX_MESSAGE_BYTES = 21 << 20


class OpenAIRealtime:
    """One client of this dialect; see dialect.Dialect."""

    opens_at_once = True
    start = Start()
    # Of audio that may be appended ahead: six minutes, more than one event may carry.
    early_ticks = 4_500
    is_resumable = False
    may_be_idle = True
    max_message_bytes = MAX_MESSAGE_BYTES

    def __init__(
        self,
        query: dict[str, str] | None = None,
        count_tokens: Callable[[str], int] = lambda text: len(text.split()),
        max_instruction_tokens: int = 1_000,
    ):
        """query: the fields of the client's URL. The rest is what the agent knows of its texts."""
        is_transcription = (query or {}).get("intent") == "transcription"
        self._config = openai_config.initial(is_transcription)
        self._count_tokens = count_tokens
        self._max_instruction_tokens = max_instruction_tokens
        self._session_id = ""
        self._decoder = Decoder(self._config.input_format)
        self._encoder = Encoder(self._config.output_format)
        self._conversation = openai_items.Conversation()
        self._turns = UserTurns(self._conversation)
        self._responses = Responses(self._conversation, "")
        # Whether audio was appended since the last commit.
        self._appended = False
        # Milliseconds on the session's clock: of what was heard, and of the voice.
        self._heard_ms = 0
        self._now_ms = 0
        # How turns are taken now, which a response may want otherwise for as long as it lasts.
        self._taking = TurnTaking()
        # What ticks have brought about, and what waits for the end of the response.
        self._due = self._take(self._usual_taking())
        self._after_response: list = []
        self._event_id: str | None = None

    def preset(self, session: dict) -> None:
        """Begin with what a client secret was made for; what cannot be is left out."""
        try:
            commands, _ = self._update({"session": session})
        except Refused:
            return
        self._due += commands

    # From the client

    def receive(self, message: bytes | str) -> tuple[list, list]:
        """The commands in an event, and events to answer it with.

        What cannot be done is answered with an error event. Raises ProtocolError.
        """
        self._event_id = None
        try:
            fields = json_object(message if isinstance(message, str) else message.decode())
        except UnicodeDecodeError:
            raise ProtocolError("messages are JSON; this one is no text") from None
        event_id = fields.get("event_id")
        self._event_id = event_id if isinstance(event_id, str) else None
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
                text = f"there is no client event of the type {kind!r:.80}"
                raise Refused("unknown_event", text, "type")
            return handlers[kind](fields)
        except Refused as error:
            return [], [openai_events.error(error.code, str(error), error.param, self._event_id)]

    def take_due(self) -> list:
        """Commands that ticks have brought about since the last call."""
        due, self._due = self._due, []
        return due

    def _update(self, fields: dict) -> tuple[list, list]:
        if not isinstance(fields.get("session"), dict):
            raise Refused("invalid_value", "session is an object", "session")
        before = self._config
        config = openai_config.updated(before, fields["session"])
        tokens = self._tokens_of(config.instructions, "session.instructions")

        # All of it can be: from here on it is so.
        self._config = config
        if config.input_format != before.input_format:
            self._decoder = Decoder(config.input_format)
        if config.output_format != before.output_format:
            self._encoder = Encoder(config.output_format)
        commands = []
        if config.instructions != before.instructions:
            commands.append(Configure(config.instructions))
            self._responses.usage.input_text += tokens
        if (config.voice, config.speed) != (before.voice, before.speed):
            commands.append(SetVoice(config.voice, config.speed))
        if openai_config.hints(config) != openai_config.hints(before):
            commands.append(Hint(openai_config.hints(config)))
        if not self._responses.request:
            commands += self._take(self._usual_taking())
        return commands, [event("session.updated", session=self._report())]

    def _tokens_of(self, instructions: str, param: str) -> int:
        """Pieces of words in instructions. Raises Refused where they are too many."""
        tokens = self._count_tokens(instructions)
        if tokens > self._max_instruction_tokens:
            text = f"{tokens} pieces of words; {self._max_instruction_tokens} can be kept in mind"
            raise Refused("invalid_value", f"instructions are {text}", param)
        return tokens

    def _usual_taking(self) -> TurnTaking:
        return openai_config.turn_taking(self._config)

    def _take(self, wanted: TurnTaking) -> list:
        """The command that has turns taken so, where they are not."""
        if wanted == self._taking:
            return []
        self._taking = wanted
        return [TakeTurns(wanted)]

    def _append(self, fields: dict) -> tuple[list, list]:
        samples = self._decoder.decode(fields.get("audio"), "audio")
        self._appended |= len(samples) > 0
        self._turns.clock.append(len(samples), self._heard_ms)
        return [Audio(samples)], []

    def _commit(self, fields: dict) -> tuple[list, list]:
        if not self._appended:
            text = "no audio was appended since the last commit"
            raise Refused("input_audio_buffer_commit_empty", text)
        self._appended = False
        number, messages = self._turns.commit()
        return self._hear_commit(number), messages

    def _hear_commit(self, number: int) -> list:
        """What has the audio that came so far heard in full before anything is answered."""
        ends = [] if self._config.finds_turns else [AfterInput(EndTurn())]
        waits = []
        if self._taking.answers:
            held = replace(self._taking, answers=False)
            waits = [TakeTurns(held), AfterInput(TakeTurns(self._taking))]
        return [*waits[:1], Commit(), *ends, *waits[1:], AfterInput(Mark(number))]

    def _clear(self, fields: dict) -> tuple[list, list]:
        is_heard = self._appended and self._turns.clear()
        self._appended = False
        commands = [Clear(), *([AbandonTurn()] if is_heard else [])]
        return commands, [event("input_audio_buffer.cleared")]

    def _create_item(self, fields: dict) -> tuple[list, list]:
        if not isinstance(fields.get("item"), dict):
            raise Refused("invalid_value", "item is an object", "item")
        item_id = self._conversation.new_id(fields["item"].get("id"))
        kind = self._config.input_format
        item, wanted = openai_items.read(fields["item"], item_id, kind)
        messages = self._conversation.add(item, done=True)
        commands = []
        for command in wanted:
            if isinstance(command, Write):
                self._responses.usage.input_text += self._count_tokens(command.text)
                # Earlier words of the agent cannot come between those that it says now.
                self._conversation.know(item, "text", item_id)
                if command.role == "assistant" and self._responses.is_begun:
                    self._after_response.append(command)
                    continue
                command = AfterInput(command)
            commands.append(command)
        if any(isinstance(command, Audio) for command in wanted):
            commands += self._hear_commit(self._turns.enter_recording(item))
        return commands, messages

    def _retrieve(self, fields: dict) -> tuple[list, list]:
        item = self._conversation.find(fields, "item_retrieve_invalid_item_id")
        return [], [event("conversation.item.retrieved", item=item)]

    def _delete(self, fields: dict) -> tuple[list, list]:
        item = self._conversation.find(fields, "item_delete_invalid_item_id")
        if self._turns.is_open(item) or self._responses.is_open(item):
            raise Refused("item_delete_invalid_item_id", "the item is not complete", "item_id")
        commands = [AfterInput(command) for command in self._conversation.delete(item)]
        return commands, [event("conversation.item.deleted", item_id=item["id"])]

    def _truncate(self, fields: dict) -> tuple[list, list]:
        heard_ms, is_going_on, messages = self._responses.truncate(fields)
        if is_going_on:
            # It still speaks: it yields, and keeps what was heard.
            where = [] if heard_ms is None else [SetPlaybackPosition(heard_ms)]
            return [*where, Stop()], messages
        return [] if heard_ms is None else [Truncate(heard_ms)], messages

    def _create_response(self, fields: dict) -> tuple[list, list]:
        if self._config.kind == "transcription":
            raise Refused("unsupported", "a transcription session is not answered", "type")
        if self._responses.is_active:
            text = "Conversation already has an active response in progress"
            raise Refused("conversation_already_has_active_response", text)
        request = read_request(fields, self._config)
        commands = []
        if self._taking.answers:
            commands += self._take(replace(self._taking, answers=False))
        if request.instructions:
            tokens = self._tokens_of(request.instructions, "response.instructions")
            self._responses.usage.input_text += tokens
            commands.append(AfterInput(Configure(request.instructions, is_for_turn=True)))
        created = self._responses.create(request.modality, request.max_output_tokens, request)
        wanted = replace(
            self._usual_taking(),
            speaks=request.modality == "audio",
            max_tokens=request.max_output_tokens,
        )
        commands += [AfterInput(command) for command in self._take(wanted)]
        commands.append(AfterInput(Answer(hears_out=True)))
        return commands, created

    def _cancel(self, fields: dict) -> tuple[list, list]:
        self._responses.cancel(fields)
        if self._responses.is_begun:
            return [Stop()], []
        messages = self._end_response(None)
        return [Stop(), *self.take_due()], messages

    # To the client

    def opened(self, session_id: str) -> list:
        """session.created."""
        self._session_id = f"sess_{session_id}"
        self._responses = Responses(self._conversation, f"conv_{session_id}")
        return [event("session.created", session=self._report())]

    def _report(self) -> dict:
        return openai_config.report(self._config, self._session_id)

    def tick(self, audio: np.ndarray, events: list) -> list:
        """Events of the tick, its audio as a delta, then the end of the response."""
        tells = {
            "user_started": self._user_started,
            "heard": self._turns.heard,
            "corrected": self._turns.corrected,
            "user_ended": lambda told: self._turns.ended(told, self._config.finds_turns),
            "agent_started": self._agent_started,
            "said": self._responses.said,
            "spoken": self._responses.spoken,
            "error": self._failed,
            "session.ended": self._ended,
        }
        messages = []
        endings = []
        for told in events:
            if isinstance(told, Event):
                # Ticks without a voice are heard as well.
                self._heard_ms = told.tick * TICK_MS
            if told.kind == "marked":
                self._turns.marked(told.number)
            elif told.kind in ("agent_ended", "agent_stopped"):
                if told.kind == "agent_stopped":
                    messages += self._turns.release()
                endings.append(told)
            elif told.kind in tells:
                if told.kind == "agent_started" and endings:
                    # The turn before ends first.
                    messages += self._end_response(endings.pop(0))
                messages += tells[told.kind](told)
        if len(audio):
            messages += self._turns.tick()
            messages += self._responses.voice(audio, self._encoder, self._now_ms)
            self._responses.usage.input_audio += 1
            self._now_ms += TICK_MS * len(audio) // TICK_SAMPLES
            self._heard_ms += TICK_MS
        for told in endings:
            messages += self._end_response(told)
        return messages

    def refused(self, error: Error) -> list:
        """An error event, about the message that was received last."""
        codes = {
            "full": "session_limit_exceeded",
            "idle": "session_expired",
            "model": "server_error",
            "too_much": "input_audio_buffer_full",
        }
        return [
            openai_events.error(
                codes.get(error.code, error.code), error.text, event_id=self._event_id
            )
        ]

    def _failed(self, error: Error) -> list:
        self._event_id = None
        return self.refused(error)

    def _ended(self, ended) -> list:
        """The session's end is told before the connection closes."""
        code = "server_shutting_down" if "shutting down" in ended.text else "session_expired"
        return [openai_events.error(code, f"the session is over: {ended.text}")]

    def _user_started(self, told: Event) -> list:
        is_held = self._responses.is_begun
        return self._turns.started(told, self._config.finds_turns, is_held)

    def _agent_started(self, told: Event) -> list:
        # The clock is the voice's, which stands still in ticks without one. It begins anew where
        # the session was opened anew, with its first instructions.
        self._now_ms = min(self._now_ms, told.tick * TICK_MS)
        messages = self._turns.tick(is_answered=True)
        if not self._responses.is_active:
            config = self._config
            messages += self._responses.create(config.modality, config.max_output_tokens)
        return messages + self._responses.begin()

    def _end_response(self, told: Event | None) -> list:
        """The response is done; what waited for that comes now."""
        messages = self._responses.end(told)
        self._due += self._take(self._usual_taking())
        self._due += [AfterInput(command) for command in self._after_response]
        self._after_response = []
        return messages + self._turns.release()
