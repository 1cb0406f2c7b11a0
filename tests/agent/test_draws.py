"""What a session draws is its own: the same alone and in a batch, whoever joined before it."""

import numpy as np
import pytest

from duplex.agent import AgentConfig, TurnPolicy
from duplex.audio import TICK_SAMPLES
from tests.tiny_speech_agent import UNDEMANDING, tick_of, tiny_agent

SESSIONS = 8
TICKS = 24
POLICY = TurnPolicy(symbols_per_tick=2, **UNDEMANDING)
CONFIG = AgentConfig(temperature=1.0, cancel_echo=False)


def talk(slots: int, starts: dict[int, tuple[int, int]]) -> dict[int, list]:
    """Events of each session, all but which slot it had; starts: {session: (slot, tick)}."""
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.2, (SESSIONS, TICKS, TICK_SAMPLES)).astype(np.float32)
    agent = tiny_agent(slots, POLICY, CONFIG)
    found = {session: [] for session in starts}
    for tick in range(TICKS + max(begin for _, begin in starts.values())):
        batch = tick_of(slots=slots)
        for session, (slot, begin) in starts.items():
            if tick == begin:
                agent.open(slot, seed=session)
            if tick == begin + TICKS:
                agent.close(slot)
            if begin <= tick < begin + TICKS:
                batch[slot] = sound[session, tick - begin]
                if tick - begin == 4:
                    agent.answer(slot)
        _, events = agent.step(batch, sorted(agent.sessions))
        for session, (slot, begin) in starts.items():
            if begin <= tick < begin + TICKS:
                found[session] += events[slot]
    return found


@pytest.mark.slow
def test_eight_sessions_draw_what_each_draws_alone():
    alone = {}
    for session in range(SESSIONS):
        alone |= talk(1, {session: (0, 0)})
    said = {e.text for events in alone.values() for e in events if e.kind == "said"}
    assert len(said) > SESSIONS  # they were drawn, and differ
    together = {session: (session, 0) for session in range(SESSIONS)}
    one_by_one = {session: (5 * session % SESSIONS, 3 * session % 7) for session in range(SESSIONS)}
    assert talk(SESSIONS, together) == alone
    assert talk(SESSIONS, one_by_one) == alone
