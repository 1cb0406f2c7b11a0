"""What each client event of the OpenAI Realtime API does to a session.

Each function takes the session's state and the event, changes the state, and returns commands and
the events that answer. Raises Refused, and then nothing has changed.
"""

from collections.abc import Callable
from dataclasses import replace

from duplex.serving.commands import (
    AbandonTurn,
    AfterInput,
    Audio,
    Clear,
    Commit,
    Configure,
    EndTurn,
    GiveResult,
    Hint,
    Mark,
    SetVoice,
    Stop,
    TakeTurns,
    Write,
)
from duplex.serving.openai import config as openai_config
from duplex.serving.openai import items as openai_items
from duplex.serving.openai import state as openai_state
from duplex.serving.openai.audio import Decoder, Encoder
from duplex.serving.openai.events import Refused, event
from duplex.serving.openai.requests import read_request
from duplex.serving.openai.state import State

Answered = tuple[list, list]


def update(state: State, fields: dict) -> Answered:
    """session.update"""
    if not isinstance(fields.get("session"), dict):
        raise Refused("invalid_value", "session is an object", "session")
    before = state.config
    config = openai_config.updated(before, _of_use(state, fields["session"]))
    tokens = openai_state.tokens_of(state, config.instructions, "session.instructions")

    # All of it can be: from here on it is so.
    state.config = config
    if config.input_format != before.input_format:
        state.decoder = Decoder(config.input_format)
    if config.output_format != before.output_format:
        state.encoder = Encoder(config.output_format)
    commands = []
    if config.instructions != before.instructions:
        commands.append(Configure(config.instructions))
        state.responses.usage.input_text += tokens
    if (config.voice, config.speed) != (before.voice, before.speed):
        commands.append(SetVoice(config.voice, config.speed))
    if openai_config.hints(config) != openai_config.hints(before):
        commands.append(Hint(openai_config.hints(config)))
    if openai_config.set_tools(config) != openai_config.set_tools(before):
        commands.append(openai_config.set_tools(config))
    if not state.responses.request:
        commands += openai_state.take(state, openai_state.usual_taking(state))
    return commands, [event("session.updated", session=openai_state.report(state))]


def update_transcription(state: State, fields: dict) -> Answered:
    """transcription_session.update, as the beta had it"""
    session = fields.get("session")
    if isinstance(session, dict):
        fields = {**fields, "session": {**session, "type": "transcription"}}
    commands, _ = update(state, fields)
    return commands, [event("transcription_session.updated", session=openai_state.report(state))]


def _of_use(state: State, wanted: dict) -> dict:
    """The fields of a session without those that an agent without tools passes over."""
    names = () if state.takes_tools else ("tools", "tool_choice")
    return {name: value for name, value in wanted.items() if name not in names}


def append(state: State, fields: dict) -> Answered:
    """input_audio_buffer.append"""
    samples = state.decoder.decode(fields.get("audio"), "audio")
    state.has_appended |= len(samples) > 0
    state.turns.clock.append(len(samples), state.heard_ms)
    return [Audio(samples)], []


def commit(state: State, fields: dict) -> Answered:
    """input_audio_buffer.commit"""
    if not state.has_appended:
        text = "no audio was appended since the last commit"
        raise Refused("input_audio_buffer_commit_empty", text)
    state.has_appended = False
    number, messages = state.turns.commit()
    return _hear_commit(state, number), messages


def _hear_commit(state: State, number: int) -> list:
    """What has the audio that came so far heard in full before anything is answered."""
    ends = [] if state.config.finds_turns else [AfterInput(EndTurn())]
    waits = []
    if state.taking.answers:
        held = replace(state.taking, answers=False)
        waits = [TakeTurns(held), AfterInput(TakeTurns(state.taking))]
    return [*waits[:1], Commit(), *ends, *waits[1:], AfterInput(Mark(number))]


def clear(state: State, fields: dict) -> Answered:
    """input_audio_buffer.clear"""
    is_heard = state.has_appended and state.turns.clear()
    state.has_appended = False
    commands = [Clear(), *([AbandonTurn()] if is_heard else [])]
    return commands, [event("input_audio_buffer.cleared")]


def create_item(state: State, fields: dict) -> Answered:
    """conversation.item.create"""
    if not isinstance(fields.get("item"), dict):
        raise Refused("invalid_value", "item is an object", "item")
    item_id = state.conversation.new_id(fields["item"].get("id"))
    item, wanted = openai_items.read(fields["item"], item_id, state.config.input_format)
    place = state.conversation.place(fields.get("previous_item_id"))
    messages = state.conversation.add(item, done=True, place=place)
    if item["type"] == "function_call_output" and item["call_id"] in state.calls:
        state.calls.discard(item["call_id"])
        state.responses.usage.input_text += state.count_tokens(item["output"])
        result = GiveResult(item["call_id"], item["output"], is_answered=False)
        return [AfterInput(result)], messages
    commands = []
    for command in wanted:
        if isinstance(command, Write):
            state.responses.usage.input_text += state.count_tokens(command.text)
            # Earlier words of the agent cannot come between those that it says now.
            state.conversation.know(item, "text", item_id)
            if command.role == "assistant" and state.responses.is_begun:
                state.after_response.append(command)
                continue
            command = AfterInput(command)
        commands.append(command)
    if any(isinstance(command, Audio) for command in wanted):
        commands += _hear_commit(state, state.turns.enter_recording(item))
    return commands, messages


def retrieve(state: State, fields: dict) -> Answered:
    """conversation.item.retrieve"""
    item = state.conversation.find(fields, "item_retrieve_invalid_item_id")
    return [], [event("conversation.item.retrieved", item=item)]


def delete(state: State, fields: dict) -> Answered:
    """conversation.item.delete"""
    item = state.conversation.find(fields, "item_delete_invalid_item_id")
    if state.turns.is_open(item) or state.responses.is_open(item):
        raise Refused("item_delete_invalid_item_id", "the item is not complete", "item_id")
    commands = [AfterInput(command) for command in state.conversation.delete(item)]
    return commands, [event("conversation.item.deleted", item_id=item["id"])]


def truncate(state: State, fields: dict) -> Answered:
    """conversation.item.truncate"""
    return state.responses.truncate(fields)


def create_response(state: State, fields: dict) -> Answered:
    """response.create"""
    if state.config.kind == "transcription":
        raise Refused("unsupported", "a transcription session is not answered", "type")
    request = read_request(fields, state.config)
    if request.instructions:
        openai_state.tokens_of(state, request.instructions, "response.instructions")
    if request.tools is not None and not state.takes_tools:
        if request.tools.choice not in ("auto", "none"):
            raise Refused("unsupported", "this agent has no tools", "response.tool_choice")
    if request.is_out_of_band:
        state.out_of_band.enqueue(request)
        return openai_state.begin_out_of_band(state)
    if state.responses.is_active:
        text = "Conversation already has an active response in progress"
        raise Refused("conversation_already_has_active_response", text)
    return openai_state.begin_response(state, request)


def cancel(state: State, fields: dict) -> Answered:
    """response.cancel"""
    state.responses.cancel(fields)
    if state.responses.is_begun:
        return [Stop()], []
    messages = openai_state.end_response(state, None)
    due, state.due = state.due, []
    return [Stop(), *due], messages


HANDLERS: dict[str, Callable[[State, dict], Answered]] = {
    "session.update": update,
    "transcription_session.update": update_transcription,
    "input_audio_buffer.append": append,
    "input_audio_buffer.commit": commit,
    "input_audio_buffer.clear": clear,
    "conversation.item.create": create_item,
    "conversation.item.retrieve": retrieve,
    "conversation.item.delete": delete,
    "conversation.item.truncate": truncate,
    "response.create": create_response,
    "response.cancel": cancel,
}
