"""Python functions that the agent has called."""

import asyncio
import json

import pytest

from duplex.client.assisted import AssistedSession
from duplex.client.tools import NOTICE, describe, load_tools, run
from duplex.errors import ClientError

FILE = '''
import json

def get_weather(city: str, days: int = 1) -> str:
    """The weather in a city.

    Args:
        city: its name
        days: from today on
    """
    return f"cold in {city}"

def fail() -> str:
    """Fails."""
    raise OSError("no route")

def count() -> dict:
    """Counts."""
    return {"sheep": 3}

def _hidden(): pass
'''


@pytest.fixture
def functions(tmp_path):
    path = tmp_path / "my_tools.py"
    path.write_text(FILE)
    return load_tools(path)


def called(functions, name: str, arguments: str = "{}") -> str:
    event = {"type": "tool", "call_id": "c", "name": name, "arguments": arguments}
    result = asyncio.run(run(functions, event))
    assert result.call_id == "c" and result.is_answered
    return result.output


def test_functions_of_a_file_are_described(functions):
    offered = describe(functions)
    assert [tool["name"] for tool in offered.tools] == ["get_weather", "fail", "count"]
    weather = offered.tools[0]
    assert weather["description"] == "The weather in a city."
    assert weather["parameters"]["properties"]["city"] == {
        "type": "string",
        "description": "its name",
    }
    assert weather["parameters"]["required"] == ["city"] and offered.notice == NOTICE


def test_results_are_texts_and_failures_are_told(functions):
    assert called(functions, "get_weather", '{"city": "Oslo"}') == "cold in Oslo"
    assert json.loads(called(functions, "count")) == {"sheep": 3}
    assert called(functions, "fail") == "error: OSError: no route"
    assert called(functions, "get_weather", "no JSON").startswith("error: ")
    assert called(functions, "get_weather", '{"town": 3}').startswith("error: TypeError")
    assert called(functions, "unknown").startswith("error: ")


@pytest.mark.parametrize("text", ["x = 1", "def f(:", "raise ValueError('x')", ""])
def test_a_file_without_functions_is_refused_in_a_sentence(tmp_path, text):
    path = tmp_path / "none.py"
    path.write_text(text)
    with pytest.raises(ClientError, match="none.py"):
        load_tools(path)


def test_a_function_without_a_description_is_refused_in_a_sentence():
    def bare(city: str):
        pass

    with pytest.raises(ClientError, match="bare cannot be offered"):
        describe([bare])


class Session:
    """Gives events, and keeps what it is sent."""

    def __init__(self, *events: dict):
        self.events = list(events)
        self.sent = []

    async def send(self, command) -> None:
        self.sent.append(command)

    async def get(self):
        await asyncio.sleep(0.01)
        return (None, [self.events.pop(0)]) if self.events else None


def test_calls_in_a_session_are_answered_while_it_goes_on(functions):
    event = {"type": "tool", "call_id": "c", "name": "count", "arguments": "{}"}

    async def talk() -> Session:
        inner = Session(event, {"type": "heard", "text": "a"})
        session = await AssistedSession.open(inner, functions)
        assert (await session.get())[1] == [event]
        while len(inner.sent) < 2:
            await session.get()
        return inner

    offered, result = asyncio.run(talk()).sent
    assert len(offered.tools) == 3 and result.output == '{"sheep": 3}'
