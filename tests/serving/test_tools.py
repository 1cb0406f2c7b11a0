"""Functions of clients: as they are offered, called and answered, in both dialects."""

import json

import pytest

from duplex.errors import ProtocolError
from duplex.events import Event, ToolCall
from duplex.serving.commands import AfterInput, Answer, GiveResult, SetTools, Write
from duplex.serving.native import commands as native_commands
from duplex.serving.native import messages as native
from duplex.serving.openai import realtime
from duplex.serving.tools import MAX_TOOLS, read_choice, read_tools
from tests.serving.openai.client import Client, only, types

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "get_weather", "description": "the weather", "parameters": CITY}
TOOL = {"type": "function", **WEATHER}
CALL = ToolCall(3, "call_1", "get_weather", '{"city": "Oslo"}')


def client(**session) -> Client:
    """Of an agent that can have functions called."""
    found = Client.__new__(Client)
    found.dialect = realtime.OpenAIRealtime(takes_tools=True)
    found.read(found.dialect.opened("0123"))
    if session:
        found.update(**session)
    return found


def commands_of(found: list) -> list:
    return [getattr(command, "command", command) for command in found]


def test_tools_are_read_in_both_forms():
    nested = {"type": "function", "function": WEATHER}
    assert read_tools([TOOL]) == read_tools([nested]) == (WEATHER,)
    assert read_tools([{"type": "mcp", "server_label": "x"}]) == ()
    assert read_tools([{"name": "now"}])[0]["parameters"]["properties"] == {}


@pytest.mark.parametrize(
    "tools",
    [
        {},
        [3],
        [{"type": "function"}],
        [{"name": "two words"}],
        [{"name": "f", "description": 3}],
        [{"name": "f", "parameters": [3]}],
        [{"name": "f", "parameters": {"properties": {"a": 3}}}],
        [{"name": "f"}, {"name": "f"}],
        [{"name": f"f{i}"} for i in range(MAX_TOOLS + 1)],
        [{"name": "f", "description": "x" * 20_000}],
    ],
)
def test_tools_that_cannot_be_are_refused(tools):
    with pytest.raises(ValueError):
        read_tools(tools)
    assert client().refused("session.update", session={"tools": tools}) == (
        "invalid_value",
        "session.tools",
    )
    with pytest.raises(ProtocolError):
        native_commands.decode_client(json.dumps({"type": "agent.tools", "tools": tools}))


@pytest.mark.parametrize("choice", [{"function": "x"}, {"function": {"name": ["x"]}}, {}, 3, None])
def test_choice_that_names_none_is_refused(choice):
    with pytest.raises(ValueError, match="names one of the tools"):
        read_choice(choice, ())


def test_function_without_parameters_may_say_so():
    parameters = {"type": "object", "properties": None}
    [tool] = read_tools([{"type": "function", "name": "a", "parameters": parameters}])
    assert tool["name"] == "a"


def test_choice_names_a_tool():
    tools = read_tools([TOOL])
    assert read_choice({"type": "function", "name": "get_weather"}, tools) == "get_weather"
    assert read_choice({"function": {"name": "get_weather"}}, tools) == "get_weather"
    for wanted in ("sometimes", {"name": "other"}, 3):
        with pytest.raises(ValueError):
            read_choice(wanted, tools)


def test_tools_are_in_force_and_reported():
    talk = client()
    commands, session = talk.update(tools=[TOOL])
    assert commands == [SetTools((WEATHER,))]
    assert session["tools"] == [TOOL] and session["tool_choice"] == "auto"
    chosen = {"type": "function", "name": "get_weather"}
    commands, session = talk.update(tool_choice=chosen)
    assert commands == [SetTools((WEATHER,), "get_weather")] and session["tool_choice"] == chosen
    commands, session = talk.update(tools=[])
    assert commands == [SetTools(())] and session["tool_choice"] == "auto"


def test_call_is_a_response_of_its_own():
    talk = client(tools=[TOOL])
    events = talk.tick(Event("user_started", 1), Event("user_ended", 3), CALL)
    kinds = types(events)
    delta = only(events, "response.function_call_arguments.delta")
    done = only(events, "response.function_call_arguments.done")
    assert delta["delta"] == done["arguments"] == CALL.arguments
    assert delta["call_id"] == "call_1" and done["item_id"] == delta["item_id"]
    response = only(events, "response.done")["response"]
    [item] = response["output"]
    assert response["status"] == "completed" and item["type"] == "function_call"
    assert (item["name"], item["call_id"]) == ("get_weather", "call_1")
    assert kinds.index("response.created") < kinds.index("response.output_item.added")
    assert "conversation.item.added" in kinds


def test_result_is_known_and_spoken_of_when_asked():
    talk = client(tools=[TOOL])
    talk.tick(CALL)
    result = {"type": "function_call_output", "call_id": "call_1", "output": "4 degrees"}
    commands, events = talk.send("conversation.item.create", item=result)
    assert commands == [AfterInput(GiveResult("call_1", "4 degrees", is_answered=False))]
    assert types(events) == ["conversation.item.added", "conversation.item.done"]
    commands, _ = talk.send("response.create")
    assert commands_of(commands)[-1] == Answer(hears_out=True)
    # Of a call that the agent did not make it knows the result as a text.
    [command], _ = talk.send("conversation.item.create", item=result)
    assert isinstance(command.command, Write)


def test_call_after_words_is_in_their_response():
    talk = client(tools=[TOOL])
    talk.answer("Let me look.")
    events = talk.tick(CALL)
    assert only(events, "response.output_item.added")["output_index"] == 1
    assert "response.done" not in types(events)
    response = only(talk.tick(Event("agent_ended", 9)), "response.done")["response"]
    assert [item["type"] for item in response["output"]] == ["message", "function_call"]


def test_response_that_was_asked_for_may_be_a_call():
    talk = client(tools=[TOOL])
    _, [created] = talk.send("response.create")
    done = only(talk.tick(CALL), "response.done")["response"]
    assert done["id"] == created["response"]["id"] and len(done["output"]) == 1


def test_tools_of_a_response_are_for_it_alone():
    talk = client(tools=[TOOL])
    commands, _ = talk.send("response.create", response={"tool_choice": "required"})
    assert SetTools((WEATHER,), "required") in commands_of(commands)
    talk.answer("Hi.")
    talk.tick(Event("agent_ended", 5))
    assert SetTools((WEATHER,), "auto") in commands_of(talk.dialect.take_due())


def test_native_tools_go_over_the_wire():
    for command in (
        SetTools((WEATHER,), "get_weather", "One moment."),
        SetTools(()),
        GiveResult("call_1", "4 degrees"),
    ):
        assert native_commands.decode_client(native_commands.encode_command(command)) == command
    assert native.decode_event(json.loads(native.encode_event(CALL))) == CALL
    for message in ({"type": "tool", "call_id": 3}, {"type": "tool", "call_id": "c", "output": 3}):
        with pytest.raises(ProtocolError):
            native_commands.decode_client(json.dumps(message))
