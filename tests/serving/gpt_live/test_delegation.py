"""Functions in the GPT-Live dialect: offered, called in rounds, their results spoken of."""

import json

import pytest

from duplex.events import ToolCall
from duplex.serving.commands import GiveResult, SetTools
from duplex.serving.gpt_live.live import GPTLive
from duplex.serving.native import messages as native
from tests.helpers import QUIET, drive_server
from tests.tiny_agent import TinyAgent

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "weather", "description": "The weather of a city.", "parameters": SCHEMA}
BACKEND = {"model": "gpt-5", "tools": [{"type": "function", **WEATHER}, {"type": "web_search"}]}
RESPONSES = {"type": "responses", "responses": BACKEND}


def sent(dialect: GPTLive, kind: str, **fields) -> tuple[list, list[dict]]:
    """The commands in an event, and the events that answer."""
    commands, replies = dialect.receive(json.dumps({"type": kind, **fields}))
    return commands, [json.loads(reply) for reply in replies]


def started(delegation=RESPONSES) -> tuple[GPTLive, list, list[dict]]:
    """A session with functions: the dialect, its first commands, its first events."""
    dialect = GPTLive(takes_tools=True)
    commands, _ = sent(dialect, "session.start", session={"model": "m", "delegation": delegation})
    return dialect, commands, [json.loads(told) for told in dialect.opened("0123")]


def called(dialect: GPTLive, *call_ids: str) -> list[dict]:
    """What calls of one tick tell, without the audio."""
    calls = [ToolCall(5, call_id, "weather", '{"city":"Oslo"}') for call_id in call_ids]
    return [json.loads(told) for told in dialect.tick(QUIET, calls)][1:]


def result(call_id: str) -> dict:
    return {"type": "function_call_output", "call_id": call_id, "output": "rain"}


def test_functions_are_in_force_and_reported():
    dialect, [_, tools], [told] = started()
    assert tools == SetTools((WEATHER,))
    backend = told["session"]["delegation"]["responses"]
    assert backend["tools"] == [{"type": "function", **WEATHER}]
    assert backend["tool_choice"] == "auto"
    other = {"type": "responses", "responses": {"tool_choice": "none"}}
    [tools], [updated] = sent(dialect, "session.update", session={"delegation": other})
    assert tools == SetTools((WEATHER,), "none")
    assert updated["session"]["delegation"]["responses"]["tool_choice"] == "none"


@pytest.mark.parametrize(
    "backend", [{"tools": 3}, {"tools": [{"name": "a b"}]}, {"tool_choice": "other"}]
)
def test_functions_that_cannot_be_are_refused_and_the_session_may_begin_anew(backend):
    delegation = {"type": "responses", "responses": backend}
    dialect = GPTLive(takes_tools=True)
    session = {"model": "m", "delegation": delegation}
    commands, [error] = sent(dialect, "session.start", session=session)
    assert not commands and error["error"]["param"] == "session.delegation.responses.tools"
    assert sent(dialect, "session.start", session={"model": "m"})[0]


def test_calls_of_a_tick_are_one_round():
    dialect, _, _ = started()
    created, *wrapped = called(dialect, "c1", "c2")
    assert created["type"] == "session.delegation.created" and created["offset_ms"] == 400
    assert created["delegation"]["target"] == "responses"
    assert {told["delegation_id"] for told in wrapped} == {created["delegation"]["id"]}
    inner = [told["event"] for told in wrapped]
    assert [event["type"] for event in inner] == [
        "response.created",
        "response.output_item.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert inner[0]["response"]["id"] == created["delegation"]["response_id"]
    item = inner[1]["item"]
    assert item["status"] == "completed" and item["call_id"] == "c1"
    assert item["name"] == "weather" and item["arguments"] == '{"city":"Oslo"}'


def test_results_are_given_once_all_of_them_are_there():
    dialect, _, _ = started()
    called(dialect, "c1", "c2")
    assert sent(dialect, "response.item.create", item=result("c2")) == ([], [])
    _, [error] = sent(dialect, "response.create")
    assert error["error"]["code"] == "function_call_outputs_required"
    sent(dialect, "response.item.create", item=result("c1"))
    commands, events = sent(dialect, "response.create")
    assert commands == [GiveResult("c2", "rain"), GiveResult("c1", "rain")]
    inner = [told["event"]["type"] for told in events]
    assert inner == ["response.created", "response.completed"]
    _, [error] = sent(dialect, "response.create")
    assert error["error"]["code"] == "function_call_outputs_required"


@pytest.mark.parametrize(
    ("item", "param"),
    [
        (result("c9"), "item.call_id"),
        ({**result("c1"), "output": 3}, "item.output"),
        ({"type": "message"}, "item.type"),
        ({"type": "function_call_output", "call_id": []}, "item.call_id"),
    ],
)
def test_results_of_no_call_are_refused(item, param):
    dialect, _, _ = started()
    called(dialect, "c1")
    _, [error] = sent(dialect, "response.item.create", item=item)
    assert error["error"]["param"] == param


def test_nothing_is_told_of_calls_without_a_backend():
    dialect, commands, [told] = started({"type": "client"})
    assert len(commands) == 1 and told["session"]["delegation"] is None
    assert called(dialect, "c1") == []


class CallingAgent(TinyAgent):
    """Wants the weather known when somebody has spoken of it."""

    def step(self, audio, active, voice=True):
        """See AgentInterface."""
        played, events = super().step(audio, active, voice)
        for told in events:
            if any(event.kind == "user_ended" for event in told):
                told.append(ToolCall(0, "c1", "weather", '{"city":"Oslo"}'))
        return played, events


@pytest.mark.clients
def test_livekit_calls_a_function():
    import aiohttp
    from livekit import rtc
    from livekit.agents import llm
    from livekit.plugins.openai.realtime import GPTLiveModel

    from tests.serving.gpt_live.test_server import QUESTION, TICK_SAMPLES, until

    @llm.function_tool
    async def weather(city: str) -> str:
        """The weather of a city."""
        return "rain"

    async def run(url, engine):
        base = url.replace("ws://", "http://").replace(native.PATH, "/v1")
        async with aiohttp.ClientSession() as http:
            model = GPTLiveModel(base_url=base, api_key="x", http_session=http)
            session = model.session()
            calls, errors = [], []
            session.on("function_call", calls.append)
            session.on("error", errors.append)
            empty = llm.ChatContext.empty()
            await session._update_session(instructions="hi", chat_ctx=empty, tools=[weather])
            await anext(aiter(session.audio_stream))
            for tick in QUESTION.reshape(-1, TICK_SAMPLES):
                pcm = native.encode_audio(tick)
                session.push_audio(rtc.AudioFrame(pcm, 24_000, 1, TICK_SAMPLES))
            await until(lambda: calls)
            output = llm.FunctionCallOutput(call_id="c1", output="rain", is_error=False)
            await session._append_items([output])
            given = ("give_result", 0, "c1", "rain", True)
            await until(lambda: given in engine.agent.calls)
            await session.aclose()
        assert calls[0].name == "weather" and not errors

    agent = CallingAgent(1)
    drive_server(run, agent)
    [tools] = [call for call in agent.calls if call[0] == "set_tools"]
    assert tools[2][0]["name"] == "weather"
