"""What runs on a device has fixed shapes: it compiles whole, once, and would run on a GPU."""

import pytest
import torch
from torch._dynamo.utils import counters

from tests.device.test_agent import device_agent, talk


def functions(agent) -> list:
    """What a tick starts on the device."""
    parts = agent.parts
    voice = parts.voice.phones, parts.voice.graph
    return [parts.ears.graph, parts.lm.hear, *parts.lm.calls, parts.draws.graph, *voice]


@pytest.mark.slow
def test_each_function_compiles_whole_and_once():
    """Traffic of any kind leads to no second shape; symbols stay as they were."""
    torch._dynamo.reset()
    counters.clear()
    expected, _ = talk(device_agent(4), 4)
    agent = device_agent(4, backend="aot_eager")
    compiled = []
    events, _ = talk(agent, 4, check=lambda tick: compiled.append(graphs()))
    assert events == expected
    assert compiled[-1] == compiled[len(compiled) // 2] == len(functions(agent))


def graphs() -> int:
    """Graphs that were compiled."""
    return counters["stats"]["unique_graphs"]
