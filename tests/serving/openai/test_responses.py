"""Responses and items of the OpenAI Realtime dialect."""

import pytest

from duplex.events import Event
from duplex.serving.commands import (
    AfterInput,
    Answer,
    Audio,
    Configure,
    Forget,
    Mark,
    SetVoice,
    Stop,
    TakeTurns,
    Write,
)
from tests.helpers import tone
from tests.serving.openai.client import MESSAGE, Client, base64_of, only, types

ADDED = ["conversation.item.added", "conversation.item.done"]


def create(client: Client, **response) -> tuple[list, dict]:
    commands, [created] = client.send("response.create", response=response)
    assert created["type"] == "response.created", created
    return commands, created["response"]


def taking(commands: list) -> list:
    """How commands have turns taken, now and after the audio before them."""
    found = [getattr(command, "command", command) for command in commands]
    return [command.wanted for command in found if isinstance(command, TakeTurns)]


def test_response_carries_its_metadata():
    client = Client()
    metadata = {"client_event_id": "abc"}
    _, created = create(client, metadata=metadata)
    assert created["metadata"] == metadata
    begun = client.answer("Hi.")
    assert types(begun)[0] == "response.output_item.added"
    done = client.tick(Event("agent_ended", 1))[-1]["response"]
    assert done["metadata"] == metadata and done["id"] == created["id"]
    spontaneous = only(client.answer("And?", tick=5), "response.created")["response"]
    assert spontaneous["metadata"] is None


def test_nothing_is_answered_between_a_request_and_its_answer():
    commands, _ = create(Client())
    held, released = taking(commands)
    assert not held.answers and released.answers
    assert commands[-1] == AfterInput(Answer(hears_out=True))


def test_second_response_is_refused_until_the_first_is_done():
    client = Client()
    create(client)
    active = ("conversation_already_has_active_response", None)
    assert client.refused("response.create") == active
    client.answer("Hi.")
    assert client.refused("response.create") == active
    client.tick(Event("agent_ended", 1))
    create(client)


def test_response_is_cancelled_before_it_speaks():
    client = Client()
    create(client)
    commands, [done] = client.send("response.cancel")
    assert commands[0] == Stop()
    assert done["response"]["status_details"]["reason"] == "client_cancelled"
    assert done["response"]["output"] == []
    create(client)


def test_error_of_a_late_cancel_begins_as_clients_expect():
    _, [event] = Client().send("response.cancel")
    assert event["error"]["message"].startswith("Cancellation failed")


def test_response_has_a_modality_of_its_own():
    client = Client()
    commands, created = create(client, output_modalities=["text"])
    assert created["output_modalities"] == ["text"] and not taking(commands)[-1].speaks
    events = client.tick(Event("agent_started", 0), Event("said", 0, "Hi."), audio=tone(1))
    events += client.tick(Event("agent_ended", 1))
    assert only(events, "response.output_text.delta")["delta"] == "Hi."
    assert not any("audio" in kind for kind in types(events))
    [item] = events[-1]["response"]["output"]
    assert item["content"] == [{"type": "output_text", "text": "Hi."}]
    # Then the session's own is in force again.
    assert taking(client.dialect.take_due())[-1].speaks


def test_response_has_a_limit_of_its_own():
    client = Client()
    commands, created = create(client, max_output_tokens=2)
    assert created["max_output_tokens"] == 2 and taking(commands)[-1].max_tokens == 2
    client.answer(" One", " two")
    done = client.tick(Event("agent_ended", 1))[-1]["response"]
    assert done["status"] == "incomplete"
    assert done["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert taking(client.dialect.take_due())[-1].max_tokens is None


@pytest.mark.parametrize(
    ("response", "param"),
    [
        ({"input": [MESSAGE]}, "response.input"),
        ({"tool_choice": "required"}, "response.tool_choice"),
        ({"metadata": {"a": 3}}, "response.metadata"),
        ({"metadata": []}, "response.metadata"),
        ({"instructions": 3}, "response.instructions"),
        ({"output_modalities": ["smell"]}, "response.output_modalities"),
        ({"max_output_tokens": "many"}, "response.max_output_tokens"),
        ({"prompt": {"id": "pmpt_1"}}, "response.prompt"),
        ({"audio": {"output": {"voice": 3}}}, "response.audio.output.voice"),
        ({"output_audio_format": "g711_ulaw"}, "response.audio.output.format"),
        ({"output_audio_format": "mp3"}, "response.output_audio_format"),
        (
            {"audio": {"output": {"format": {"type": "audio/pcmu"}}}},
            "response.audio.output.format",
        ),
    ],
)
def test_response_that_cannot_be_is_refused_by_name(response, param):
    client = Client()
    code, named = client.refused("response.create", response=response)
    assert code in ("invalid_value", "unsupported") and named == param
    create(client)


def test_response_has_a_voice_of_its_own():
    client = Client()
    commands, _ = create(client, audio={"output": {"voice": "cedar"}})
    assert AfterInput(SetVoice("oak", 1.0)) in commands
    client.answer("Hello")
    client.tick(Event("agent_ended", 1))
    assert AfterInput(SetVoice("heart", 1.0)) in client.dialect.take_due()
    commands, _ = create(client, audio={"output": {"voice": "marin"}})
    assert not any(isinstance(c, AfterInput) and isinstance(c.command, SetVoice) for c in commands)


def test_picture_is_known_not_to_be_seen():
    client = Client()
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    item = {**MESSAGE, "content": [picture, *MESSAGE["content"]]}
    commands, [added, _] = client.send("conversation.item.create", item=item)
    seen, asked = (command.command for command in commands)
    assert seen.role == "system" and "cannot see" in seen.text and asked.text == "hi"
    assert [part["type"] for part in added["item"]["content"]] == ["input_image", "input_text"]


def test_usage_is_whole_and_true():
    client = Client(instructions="Be very brief.")
    client.send("conversation.item.create", item=MESSAGE)
    client.tick()
    client.tick(Event("agent_started", 1), Event("said", 1, "Hi"), audio=tone(1))
    usage = client.tick(Event("said", 2, "."), Event("agent_ended", 2))[-1]["response"]["usage"]
    assert usage == {
        "total_tokens": 3 + 1 + 3 + 2 + 2,
        "input_tokens": 3 + 1 + 3,
        "output_tokens": 2 + 2,
        "input_token_details": {"text_tokens": 3 + 1, "audio_tokens": 3, "cached_tokens": 0},
        "output_token_details": {"text_tokens": 2, "audio_tokens": 2},
    }
    client.answer("And?", tick=5)
    usage = client.tick(Event("agent_ended", 6))[-1]["response"]["usage"]
    assert usage["input_token_details"]["text_tokens"] == 0


def test_item_is_created_and_retrieved():
    client = Client()
    commands, events = client.send("conversation.item.create", item=MESSAGE)
    assert commands == [AfterInput(Write("user", "hi", is_answered=False, name="a"))]
    assert types(events) == ADDED
    refused = client.refused("conversation.item.create", item=MESSAGE)
    assert refused == ("item_create_duplicate_item_id", "item.id")
    _, [retrieved] = client.send("conversation.item.retrieve", item_id="a")
    assert retrieved["item"]["content"] == MESSAGE["content"]
    unknown = client.refused("conversation.item.retrieve", item_id="b")
    assert unknown == ("item_retrieve_invalid_item_id", "item_id")


def test_history_is_taken_in_without_an_answer():
    client = Client()
    for number, role in enumerate(["user", "assistant", "user", "assistant", "system"]):
        kind = "output_text" if role == "assistant" else "input_text"
        part = {"type": kind, "text": "word " * 300}
        item = {"type": "message", "role": role, "content": [part], "id": f"i{number}"}
        [command], events = client.send("conversation.item.create", item=item)
        assert command.command.role == role and not command.command.is_answered
        assert events[0]["previous_item_id"] == (f"i{number - 1}" if number else None)


def test_item_enters_where_the_client_wants_it():
    client = Client()

    def enter(item_id: str, after: str | None) -> str | None:
        item = {**MESSAGE, "id": item_id}
        _, told = client.send("conversation.item.create", item=item, previous_item_id=after)
        assert types(told) == ["conversation.item.added", "conversation.item.done"]
        assert told[0]["previous_item_id"] == told[1]["previous_item_id"]
        return told[0]["previous_item_id"]

    assert [enter("b", None), enter("a", "root"), enter("c", "a"), enter("d", None)] == [
        None,
        None,
        "a",
        "b",
    ]
    client.send("conversation.item.delete", item_id="d")
    assert enter("e", None) == "b"
    wanted = {"item": {**MESSAGE, "id": "f"}, "previous_item_id": "d"}
    code = "item_create_invalid_previous_item_id"
    assert client.refused("conversation.item.create", **wanted) == (code, "previous_item_id")


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": "hi"},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "message", "role": "assistant", "content": "hi"},
    ],
)
def test_item_may_be_written_as_in_other_apis(item):
    commands, [added, _] = Client().send("conversation.item.create", item=item)
    write = commands[0].command
    assert write.text == "hi" and added["item"]["content"][0]["text"] == "hi"
    assert write.role == added["item"]["role"] != "developer"


def test_words_of_the_agent_wait_until_it_has_finished():
    client = Client()
    client.answer("Hi.")
    content = [{"type": "output_audio", "transcript": "Before."}]
    item = {"type": "message", "role": "assistant", "content": content}
    commands, events = client.send("conversation.item.create", item=item)
    assert commands == [] and types(events) == ADDED
    client.tick(Event("agent_ended", 2))
    [*_, command] = client.dialect.take_due()
    assert command.command.text == "Before." and not command.command.is_answered


def test_recording_in_an_item_is_heard_as_that_item():
    client = Client(audio={"input": {"turn_detection": None}})
    content = [{"type": "input_audio", "audio": base64_of(tone(3))}]
    item = {"type": "message", "role": "user", "content": content, "id": "sound"}
    commands, events = client.send("conversation.item.create", item=item)
    assert types(events) == ADDED
    assert isinstance(commands[0], Audio) and commands[-1] == AfterInput(Mark(1))
    create(client)
    client.tick(Event("user_started", 1), Event("heard", 2, " hello"))
    events = client.tick(Event("user_ended", 4), Event("agent_started", 4))
    assert not any(kind.startswith("input_audio_buffer") for kind in types(events))
    _, [retrieved] = client.send("conversation.item.retrieve", item_id="sound")
    assert retrieved["item"]["content"][0]["transcript"].strip() == "hello"


def test_calls_of_tools_are_kept_and_their_results_known():
    client = Client()
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    assert client.send("conversation.item.create", item=call)[0] == []
    result = {"type": "function_call_output", "call_id": "c", "output": "sunny"}
    [command], events = client.send("conversation.item.create", item=result)
    assert (command.command.role, command.command.text) == ("system", "sunny")
    assert events[0]["item"]["output"] == "sunny"


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"type": "mcp_call"},
        {"type": "function_call_output"},
        {**MESSAGE, "content": [{}]},
        {**MESSAGE, "content": [3]},
        {**MESSAGE, "content": [{"type": "input_video"}]},
        {**MESSAGE, "role": "narrator"},
        {**MESSAGE, "content": [{"type": "input_text", "text": "x" * 20_000}]},
    ],
)
def test_item_of_another_kind_is_refused(item):
    code, _ = Client().refused("conversation.item.create", item=item)
    assert code in ("unsupported", "invalid_value")


def test_truncation_shows_in_what_is_retrieved():
    client = Client()
    client.answer(" Two", " plus", " two.")
    for tick in (1, 2, 3):
        client.tick(Event("spoken", tick, ["Two", "plus", "two."][tick - 1], end_ms=tick * 80))
    item = client.tick(Event("agent_ended", 4))[-1]["response"]["output"][0]["id"]
    cut = {"item_id": item, "content_index": 0, "audio_end_ms": 170.0}
    client.send("conversation.item.truncate", **cut)
    _, [retrieved] = client.send("conversation.item.retrieve", item_id=item)
    assert retrieved["item"]["content"] == [{"type": "output_audio", "transcript": " Two plus"}]


def test_answer_is_truncated_before_its_first_sound():
    client = Client()
    commands, _ = create(client)
    [added] = [e for e in client.tick(Event("agent_started", 0), audio=tone(0)) if "item" in e][:1]
    cut = {"item_id": added["item"]["id"], "content_index": 0, "audio_end_ms": 0}
    commands, [truncated] = client.send("conversation.item.truncate", **cut)
    assert commands == [Stop()] and truncated["type"] == "conversation.item.truncated"


def test_deleted_item_is_forgotten():
    client = Client()
    client.send("conversation.item.create", item=MESSAGE)
    commands, [deleted] = client.send("conversation.item.delete", item_id="a")
    assert commands == [AfterInput(Forget("text", "a"))]
    assert deleted["type"] == "conversation.item.deleted" and deleted["item_id"] == "a"
    unknown = ("item_delete_invalid_item_id", "item_id")
    assert client.refused("conversation.item.delete", item_id="a") == unknown
    # The next item follows what is left.
    _, [added, _] = client.send("conversation.item.create", item=MESSAGE)
    assert added["previous_item_id"] is None


def test_deleted_turns_are_forgotten_by_their_numbers():
    client = Client()
    ids = []
    for tick in (0, 10):
        client.tick(Event("user_started", tick), Event("heard", tick, " hi"))
        begun = client.tick(Event("user_ended", tick + 3), Event("agent_started", tick + 3))
        items = [event["item"]["id"] for event in begun if event["type"] == ADDED[0]]
        assert client.refused("conversation.item.delete", item_id=items[1])[1] == "item_id"
        client.tick(Event("agent_ended", tick + 5))
        ids += items
    for item_id, forgotten in zip(ids[2:], (Forget("user", 1), Forget("agent", 1)), strict=True):
        commands, _ = client.send("conversation.item.delete", item_id=item_id)
        assert commands == [AfterInput(forgotten)]


def test_instructions_of_a_response_are_for_it_alone():
    client = Client()
    commands, _ = create(client, instructions="Greet the user.")
    written = [command.command for command in commands if isinstance(command, AfterInput)]
    assert Configure("Greet the user.", is_for_turn=True) in written
    client.answer("Hello!")
    client.tick(Event("agent_ended", 3))
    too_long = client.refused("response.create", response={"instructions": "word " * 201})
    assert too_long == ("invalid_value", "response.instructions")
    create(client)
