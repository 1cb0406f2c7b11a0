"""Responses outside of the conversation: when they come, what they leave behind."""

import pytest

from duplex.events import Event
from duplex.serving.commands import AfterInput, Answer, Configure, Forget, Stop, TakeTurns, Write
from tests.serving.openai.client import MESSAGE, Client, only, types

ASIDE = {
    "conversation": "none",
    "output_modalities": ["text"],
    "metadata": {"topic": "mood"},
    "instructions": "Answer in one word.",
    "input": [MESSAGE, {"type": "item_reference", "id": "a"}],
}


def ask(client: Client, **response) -> tuple[list, list[dict]]:
    """The commands and the events of a response outside of the conversation."""
    commands, events = client.send("response.create", response={**ASIDE, **response})
    return commands, events


def later(commands: list) -> list:
    """The commands that wait until all is heard."""
    return [command.command for command in commands if isinstance(command, AfterInput)]


def answer_aside(client: Client) -> list[dict]:
    """The agent answers: all that is told of it."""
    events = client.tick(Event("agent_started", 3), Event("said", 3, "Happy"))
    return events + client.tick(Event("agent_ended", 4))


def test_nothing_of_it_stays_in_the_conversation():
    client = Client()
    commands, [created] = ask(client)
    response = created["response"]
    assert response["conversation_id"] is None and response["metadata"] == {"topic": "mood"}
    text, instructions, taking, asked = later(commands)
    assert text == Write("user", "hi", is_answered=False, name=text.name) and text.name
    assert instructions == Configure("Answer in one word.", is_for_turn=True)
    assert isinstance(taking, TakeTurns) and asked == Answer(hears_out=True)
    # It is not spoken, and nobody interrupts it.
    assert not taking.wanted.speaks and not taking.wanted.yields

    events = answer_aside(client)
    assert not any(kind.startswith("conversation.") for kind in types(events))
    assert "response.output_audio.delta" not in types(events)
    done = only(events, "response.done")["response"]
    assert done["status"] == "completed" and done["output"][0]["content"][0]["text"] == "Happy"
    item_id = done["output"][0]["id"]
    code, _ = client.refused("conversation.item.retrieve", item_id=item_id)
    assert code == "item_retrieve_invalid_item_id"
    taken, *forgotten = later(client.dialect.take_due())
    assert taken.wanted.speaks and taken.wanted.yields and taken.wanted.answers
    assert forgotten == [Forget("text", text.name), Forget("agent", 0)]


def test_turns_are_counted_over_all():
    client = Client()
    ask(client, input=[])
    answer_aside(client)
    client.dialect.take_due()
    item = client.answer("Hello")[2]["item"]["id"]
    client.tick(Event("agent_ended", 9))
    commands, _ = client.send("conversation.item.delete", item_id=item)
    assert commands == [AfterInput(Forget("agent", 1))]


def test_cancelled_before_it_began():
    client = Client()
    commands, _ = ask(client)
    [name] = [command.name for command in later(commands) if isinstance(command, Write)]
    commands, [done] = client.send("response.cancel")
    assert commands[0] == Stop() and Forget("text", name) in later(commands)
    assert done["response"]["status"] == "cancelled"


def test_it_waits_until_it_is_nobodys_turn_and_many_come_in_order():
    client = Client()
    client.answer("Hello")
    for topic in ("one", "two"):
        assert ask(client, metadata={"topic": topic}) == ([], [])
    client.tick(Event("user_started", 2))
    told = client.tick(Event("agent_ended", 3))
    assert types(told).count("response.done") == 1
    # The user speaks, and then the agent may be about to answer.
    told = client.tick(Event("user_ended", 4)) + client.tick()
    assert "response.created" not in types(told)
    events = client.answer("Yes", tick=6) + client.tick(Event("agent_ended", 7))
    [own, first] = [event for event in events if event["type"] == "response.created"]
    assert own["response"]["metadata"] is None
    assert first["response"]["metadata"] == {"topic": "one"}
    assert Answer(hears_out=True) in later(client.dialect.take_due())
    second = only(answer_aside(client), "response.created")
    assert second["response"]["metadata"] == {"topic": "two"}


def test_it_does_not_wait_for_an_answer_that_does_not_come():
    vad = {"type": "server_vad", "create_response": False}
    client = Client(turn_detection=vad)
    client.tick(Event("user_started", 2))
    assert ask(client) == ([], [])
    assert "response.created" in types(client.tick(Event("user_ended", 4)))


@pytest.mark.parametrize(
    ("response", "code", "param"),
    [
        ({"conversation": "other"}, "invalid_value", "response.conversation"),
        ({"input": "text"}, "invalid_value", "response.input"),
        ({"input": ["text"]}, "invalid_value", "response.input"),
        ({"input": [{"type": "message"}]}, "unsupported", "item.type"),
        (
            {"input": [MESSAGE, 3]},
            "invalid_value",
            "response.input",
        ),
        ({"conversation": "auto", "input": [MESSAGE]}, "unsupported", "response.input"),
        ({"instructions": "word " * 300}, "invalid_value", "response.instructions"),
    ],
)
def test_what_cannot_be_is_refused_by_name(response, code, param):
    assert Client().refused("response.create", response={**ASIDE, **response}) == (code, param)


def test_recordings_are_refused_and_too_many_wait():
    client = Client()
    recording = {**MESSAGE, "content": [{"type": "input_audio", "audio": ""}]}
    response = {**ASIDE, "input": [recording]}
    assert client.refused("response.create", response=response)[1] == "response.input[0]"
    client.answer("Hello")
    for _ in range(16):
        assert ask(client) == ([], [])
    code, _ = client.refused("response.create", response=ASIDE)
    assert code == "conversation_already_has_active_response"
