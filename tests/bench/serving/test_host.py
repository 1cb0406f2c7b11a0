"""The work beside the networks, by part, of the smallest real agent."""

import numpy as np
import pytest

from duplex.bench.serving import host
from duplex.cpu.beam_search import CompiledBeamSearch
from tests.helpers import tone
from tests.tiny_speech_agent import tiny_agent


@pytest.mark.slow
def test_parts_are_told_and_the_agent_is_left_as_it_was():
    agent = tiny_agent(3)
    agent.recognition.search = CompiledBeamSearch(agent.recognition.lexicon)
    before = {name: vars(agent.decoder).get(name) for name in ("verify", "score")}
    found = host.measure(agent, [tone(6)] * 3)
    assert found["sessions, ticks played"][0] == 3
    assert {"beams", "policy", "cells", "plans", "rest"} <= set(found["by part, with the clocks"])
    assert 0 < found["of these the clocks"] < sum(found["by part, with the clocks"].values())
    assert set(found["beams, ms of the wall by threads"]) == {1, 2, 4, 8}
    assert before == {name: vars(agent.decoder).get(name) for name in before}


def test_time_inside_another_part_counts_once():
    class Work:
        def outer(self):
            self.inner()

        def inner(self):
            np.ones((300, 300)) @ np.ones((300, 300))

    work = Work()
    timer = host.ThreadTimer()
    timer.wrap(work, "outer", "outer")
    timer.wrap(work, "inner", "inner")
    for _ in range(5):
        work.outer()
    timer.unwrap()
    assert timer.seconds["inner"] > timer.seconds["outer"] >= 0 and not timer.inside
    assert not vars(work)
