"""How many sessions this machine holds: a short test at the start, with every slot talking."""

import time
from collections.abc import Callable

import numpy as np

from duplex.agent_interface import AgentInterface
from duplex.audio import TICK_S, TICK_SAMPLES, VOICE_RMS


def step_seconds(
    agent: AgentInterface,
    slots: int,
    now: Callable[[], float] = time.perf_counter,
    settling_ticks: int = 6,
    timed_ticks: int = 20,
) -> float:
    """What nine of ten steps take at most while all slots hear noise and are made to answer.

    settling_ticks: steps before those that are timed.
    """
    noise = np.random.default_rng(0)
    times = []
    for slot in range(slots):
        agent.open(slot, seed=slot, instructions=None)
    for tick in range(settling_ticks + timed_ticks):
        if tick == 2:
            for slot in range(slots):
                agent.answer(slot)
        heard = noise.normal(0, VOICE_RMS, (slots, TICK_SAMPLES)).astype(np.float32)
        began = now()
        agent.step(heard, list(range(slots)))
        times.append(now() - began)
    for slot in range(slots):
        agent.close(slot)
    return float(np.quantile(times[settling_ticks:], 0.9))


def largest(
    load: Callable[[int], AgentInterface],
    now: Callable[[], float] = time.perf_counter,
    candidates: tuple[int, ...] = (8, 4, 3, 2),
    step_share: float = 0.75,
) -> tuple[AgentInterface, int]:
    """The agent with the most slots that keep real time here, and their number.

    It is loaded once, with the first of the candidates. One session is never refused.

    candidates: numbers of slots that are tried, the largest first. step_share: of a tick, that a
    step may take; the rest is for the sockets and for a bad moment.
    """
    agent = load(candidates[0])
    for slots in candidates:
        if slots != candidates[0]:
            agent = agent.with_slots(slots)
        if step_seconds(agent, slots, now) <= step_share * TICK_S:
            return agent, slots
    return agent.with_slots(1), 1
