"""What speculative decoding is worth: the same conversation with proposals and without.

    duplex bench draft --out runs/bench

The recorded questions are asked as fast as the agent can take them, in every slot of a batch, each
slot a second later than the one before, with the same seeds for all. Symbols must be the same;
calls of the LM, times of ticks and the proposals are compared. A tick's time is the median of
several such conversations, for whatever else the machine does would be all of the slowest one's.
How soon a session is in time again after a stall is measured in real time. What a call of a larger
LM costs is measured in large_lm.py. Leaves draft.json in the folder --out.
"""

import asyncio
import gc
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from duplex.agent import Agent
from duplex.audio import SAMPLE_RATE, TICK_MS, TICK_SAMPLES
from duplex.bench import large_lm, written
from duplex.bench.play import EngineUser, push_line
from duplex.serving.clock import WallClock
from duplex.serving.commands import Start
from duplex.serving.engine import Engine
from duplex.transcript import Transcript


@dataclass
class Conversation:
    """What one agent did in a conversation, by tick."""

    # (kind, text, tick) of the events of each slot.
    events: list[list[list[tuple]]] = field(default_factory=list)
    # Seconds, calls of the LM, whether text came, whether a turn of the agent's began.
    ticks: list[tuple[float, int, bool, bool]] = field(default_factory=list)


def run(load: Callable[[int], Agent], questions: list[np.ndarray], file: Path) -> None:
    """The command: measures each part, prints it, and leaves them all in `file`."""
    questions = questions[:6]
    parts = {f"batch {slots}": partial(measure, load, questions, slots) for slots in (1, 4, 8)}
    for slots in (1, 8):
        alone = partial(measure, load, questions, slots, look_ahead=False)
        parts[f"batch {slots}, not looked ahead"] = alone
    parts["in writing"] = lambda: written.measure(load(1))
    line = user_line(questions[:2]).ravel()
    parts["after a stall of 2 s"] = lambda: asyncio.run(
        catch_up(load, line, partial(time.sleep, 2.0))
    )
    parts["a billion"] = large_lm.measure
    measured = {}
    for name, work in parts.items():
        measured[name] = work()
        file.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        print(json.dumps({name: measured[name]}, indent=1), flush=True)


def user_line(questions: list[np.ndarray], pause_s: float = 4.0) -> np.ndarray:
    """A second of silence, then every question, float32 [N], and a pause for its answer.

    Returns whole ticks, [ticks, TICK_SAMPLES].
    """
    pause = np.zeros(int(pause_s * SAMPLE_RATE), np.float32)
    parts = [pause[:SAMPLE_RATE]]
    for question in questions:
        parts += [question, pause]
    line = np.concatenate(parts)
    return np.pad(line, (0, -len(line) % TICK_SAMPLES)).reshape(-1, TICK_SAMPLES)


def measure(
    load: Callable[[int], Agent],
    questions: list[np.ndarray],
    slots: int,
    times: int = 3,
    look_ahead: bool = True,
) -> dict:
    """Plain decoding, the proposals that are all but certain, text looked up, and the n-grams'.

    load(slots) makes an agent; questions: float32 [N] each. The conversation is held `times` times.
    look_ahead: without it no response is drafted by the LM while the end of a turn is awaited.
    """
    agents = variants(load(slots), slots, look_ahead)
    runs = [play_side_by_side(agents, user_line(questions)) for _ in range(times)]
    found = {
        name: figures(np.median([talk[name].ticks for talk in runs], axis=0)) for name in agents
    }
    plain = found["plain"]
    events = [talk.events for talks in runs for talk in talks.values()]
    counts = {name: agent.speculation.counts for name, agent in agents.items()}
    onset = "tick ms at onset p50, p99"
    return {
        "the same events": all(one == events[0] for one in events),
        **found,
        "plain / foreseen, p99 ms at onset": ratio(plain[onset], found["foreseen"][onset]),
        "time with / without": {
            name: round(of["seconds"] / plain["seconds"], 3) for name, of in found.items()
        },
        "guesses right": {name: accepted(of.outcomes) for name, of in counts.items()},
        "LM calls in the ticks of onsets, drafted / foreseen": ratio_of_calls(runs),
    }


def variants(agent: Agent, slots: int, look_ahead: bool = True) -> dict[str, Agent]:
    """Agents of the same parts that differ in what they propose, by name."""
    # Nobody hears the voice: what its last bits change comes back to no agent's recogniser.
    config = replace(agent.config, cancel_echo=False)
    if not look_ahead:
        config = replace(config, lookahead_budget_s=0.0)
    looked_up = replace(config, use_ngrams=False)
    configs = {
        "drafted": config,
        "looked up": looked_up,
        "foreseen": replace(looked_up, lookup_tokens=0),
        "plain": replace(config, speculate=False),
    }
    return {name: Agent(agent.parts, slots, one, agent.policy) for name, one in configs.items()}


def play_side_by_side(
    agents: dict[str, Agent], sound: np.ndarray, apart_ticks: int = 13, onset_ticks: int = 2
) -> dict[str, Conversation]:
    """Play sound, [ticks, TICK_SAMPLES], to every slot of every agent.

    Each slot hears it `apart_ticks` after the one before. The agents take turns tick by tick, so
    that whatever else the machine does falls on all of them. A turn of the agent's counts as begun
    for `onset_ticks`, in which text comes fastest.
    """
    slots = next(iter(agents.values())).slots
    silence = np.zeros(TICK_SAMPLES, np.float32)
    talks = {name: Conversation() for name in agents}
    onset = dict.fromkeys(agents, 0)
    for agent in agents.values():
        for slot in range(slots):
            agent.open(slot, seed=slot)
    gc.collect()
    gc.freeze()  # as the engine does, see Engine.start
    for tick in range(len(sound) + apart_ticks * (slots - 1)):
        places = [tick - apart_ticks * slot for slot in range(slots)]
        audio = np.stack([sound[at] if 0 <= at < len(sound) else silence for at in places])
        for name in sorted(agents, reverse=bool(tick % 2)):
            counts = agents[name].context.counts
            calls_before = counts.calls
            begun = time.perf_counter()
            _, events = agents[name].step(audio, [*range(slots)])
            seconds = time.perf_counter() - begun
            kinds = {event.kind for slot in events for event in slot}
            onset[name] = onset_ticks if "agent_started" in kinds else onset[name] - 1
            has_text = not kinds.isdisjoint(("heard", "said"))
            row = (seconds, counts.calls - calls_before, has_text, onset[name] > 0)
            talks[name].ticks.append(row)
            talks[name].events.append([[(e.kind, e.text, e.tick) for e in slot] for slot in events])
    for agent in agents.values():
        for slot in range(slots):
            agent.close(slot)
    return talks


def ratio_of_calls(runs: list[dict[str, Conversation]]) -> float | None:
    """LM calls with the drafts over those with certain proposals alone, in the ticks in which the
    agent began a turn."""
    drafted, foreseen = (
        sum(onset_calls(run[name]) for run in runs) for name in ("drafted", "foreseen")
    )
    return round(drafted / foreseen, 3) if foreseen else None


def onset_calls(talk: Conversation) -> int:
    """LM calls in the ticks in which the agent began a turn."""
    return sum(
        calls
        for (_, calls, *_), slots in zip(talk.ticks, talk.events, strict=True)
        if any(event[0] == "agent_started" for slot in slots for event in slot)
    )


def figures(ticks: np.ndarray) -> dict:
    """The figures of a conversation from its ticks, [ticks, 4]; None where nothing was said."""
    seconds, calls, text, onset = ticks.T
    milliseconds = seconds * 1000
    with_text = calls[text > 0]
    begins = onset > 0
    found = {
        "LM calls a tick with text, mean": None,
        "LM calls at the onset of answers, median": None,
        "tick ms p50, p99": np.percentile(milliseconds, [50, 99]).round(1).tolist(),
        "tick ms at onset p50, p99": None,
        "seconds": round(float(seconds.sum()), 2),
    }
    if len(with_text):
        found["LM calls a tick with text, mean"] = round(float(with_text.mean()), 3)
    if begins.any():
        percentiles = np.percentile(milliseconds[begins], [50, 99]).round(1).tolist()
        found["LM calls at the onset of answers, median"] = float(np.median(calls[begins]))
        found["tick ms at onset p50, p99"] = percentiles
    return found


def accepted(outcomes: dict[tuple[str, str, int, bool], int]) -> dict:
    """{draft and kind: {place: [share accepted, proposals]}}; see SpeculationCounts."""
    found: dict = {}
    for draft, kind, place in sorted({key[:3] for key in outcomes}):
        right = outcomes[draft, kind, place, True]
        proposed = right + outcomes[draft, kind, place, False]
        row = found.setdefault(f"{draft}: {kind}", {})
        row[f"place {place + 1}"] = [round(right / proposed, 3), proposed]
    return found


def ratio(one: list[float] | None, other: list[float] | None) -> float | None:
    """How many times as large the larger of two percentiles is."""
    return round(one[1] / other[1], 2) if one and other else None


async def catch_up(
    load: Callable[[int], Agent],
    line: np.ndarray,
    stall: Callable[[], None],
    stall_tick: int = 25,
    clock=None,
    sleep: Callable[[float], Awaitable] = asyncio.sleep,
) -> dict:
    """How soon the engine is in time again after the model stood still.

    A user says line, float32 [N], in real time; the stall begins in it, at stall_tick.

    clock: the engine's, by default WallClock; sleep waits for seconds of it, stall for as many as
    the model stands still.
    """
    clock = clock or WallClock()
    agent = load(1)
    engine = Engine(agent, 1, clock)
    await asyncio.to_thread(engine.start)
    step = agent.step
    first_tick = agent.ticks
    # Times at which ticks began, and how many ms the engine was behind its clock then.
    behind: list[tuple[float, float]] = []
    stall_ended: list[float] = []

    def watched_step(audio: np.ndarray, active: list[int], voice: bool = True):
        behind.append((clock.now(), engine.stats()["behind_ms"]))
        if agent.ticks == first_tick + stall_tick and not stall_ended:
            stall()
            stall_ended.append(clock.now())
        return step(audio, active, voice)

    agent.step = watched_step
    session = EngineUser(await engine.open(Start(seed=0)))

    listening = asyncio.create_task(listen(session), name="listen")
    async for _ in push_line(session, line, clock.now(), clock.now, sleep):
        pass
    dropped_ms = session.dropped_ms
    await session.close()
    transcript = await listening
    await asyncio.to_thread(engine.stop)
    return {
        "s from the end of the stall until in time": _recovery_s(behind, stall_ended[0]),
        "largest ms behind": max(ms for _, ms in behind),
        "user audio dropped, ms": dropped_ms,
        "heard": transcript.user_text,
    }


async def listen(session: EngineUser) -> Transcript:
    """All that is told until the session ends."""
    transcript = Transcript()
    while (message := await session.get()) is not None:
        for event in message[1]:
            transcript.read(event)
    return transcript


def _recovery_s(behind: list[tuple[float, float]], stall_ended: float) -> float | None:
    """Seconds from the end of the stall until the engine is less than a tick behind its clock."""
    after = [(time_s, ms) for time_s, ms in behind if time_s >= stall_ended]
    late = [place for place, (_, ms) in enumerate(after) if ms >= TICK_MS]
    for time_s, ms in after[late[0] :] if late else []:
        if ms < TICK_MS:
            return round(time_s - stall_ended, 3)
    return None
