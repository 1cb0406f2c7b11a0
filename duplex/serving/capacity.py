"""How many sessions this machine holds: a short test at the start, with every place taken and everybody talking."""

import time
from collections.abc import Callable

import numpy as np

from duplex.audio import TICK_S, TICK_SAMPLES, VOICE_RMS

CANDIDATES = (8, 4, 3, 2)  # places tried, largest first; one place is never refused
SETTLING_TICKS, TIMED_TICKS = 6, 20
SHARE = 0.75  # of a tick that a step may take; the rest is for the sockets and for a bad moment


def step_seconds(agent, slots: int, now: Callable[[], float] = time.perf_counter) -> float:
    """What nine of ten steps take at most while all slots hear noise and are made to answer."""
    noise, times = np.random.default_rng(0), []
    for slot in range(slots):
        agent.open(slot, seed=slot, instructions=None)
    for tick in range(SETTLING_TICKS + TIMED_TICKS):
        if tick == 2:
            for slot in range(slots):
                agent.answer(slot)
        heard = noise.normal(0, VOICE_RMS, (slots, TICK_SAMPLES)).astype(np.float32)
        began = now()
        agent.step(heard, list(range(slots)))
        times.append(now() - began)
    for slot in range(slots):
        agent.close(slot)
    return float(np.quantile(times[SETTLING_TICKS:], 0.9))


def largest(
    load: Callable[[int], object], now: Callable[[], float] = time.perf_counter
) -> tuple[object, int]:
    """The agent with the most places of CANDIDATES that keep real time here, and how many those are; it is loaded once."""
    agent = load(CANDIDATES[0])
    for slots in CANDIDATES:
        agent = agent if slots == CANDIDATES[0] else agent.with_slots(slots)
        if step_seconds(agent, slots, now) <= SHARE * TICK_S:
            return agent, slots
    return agent.with_slots(1), 1
