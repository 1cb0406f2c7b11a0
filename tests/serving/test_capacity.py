"""The self-test at the start, on a clock that the agent itself moves."""

import pytest

from duplex.audio import TICK_MS
from duplex.serving.capacity import largest
from tests.helpers import HandClock
from tests.tiny_agent import TinyAgent


@pytest.mark.parametrize(
    ("ms_a_session", "places"), [(1, 8), (10, 4), (20, 3), (25, 2), (50, 1), (500, 1)]
)
def test_largest_has_as_many_places_as_keep_real_time(clock: HandClock, ms_a_session, places):
    class Timed(TinyAgent):
        def step(self, audio, active, voice=True):
            clock.advance(ms_a_session * len(active) / 1000)
            return super().step(audio, active)

        def with_slots(self, slots):
            loaded.append(Timed(slots))
            return loaded[-1]

    candidates = (8, 4, 3, 2)
    loaded = [Timed(8)]
    agent, slots = largest(lambda slots: loaded[0], clock.now, candidates, step_share=0.75)
    assert (agent, slots, agent.slots) == (loaded[-1], places, places)
    assert slots == 1 or ms_a_session * slots <= 0.75 * TICK_MS
    assert [agent.slots for agent in loaded] == [n for n in (*candidates, 1) if n >= places]
    for agent in loaded:
        if agent.slots > 1:
            assert sorted(agent.closed) == list(range(agent.slots))
            # It is timed while it speaks, too.
            assert ("answer", 0) in agent.calls
