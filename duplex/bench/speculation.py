"""What guesses are worth: the same conversation with them and without, in one run and with the same seeds.

The recorded questions are asked as fast as the agent can take them, in every slot of a batch, each slot a second later than
the one before. Symbols must be the same; calls of the LM, times of ticks and the guesses are compared. A tick's time is the
median of several such conversations, for whatever else the machine does would be all of the slowest one's. How soon a session is
in time again after a stall is measured in real time. A randomly made LM of a billion weights shows what a call costs where a
tick cannot afford two.
"""

import asyncio
import gc
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from duplex.agent import Agent
from duplex.audio import SAMPLE_RATE, TICK_MS, TICK_S, TICK_SAMPLES
from duplex.cpu.lm import compile_draft, compile_lm
from duplex.events import transcribe
from duplex.model import kv_cache
from duplex.model.draft import Draft, DraftConfig
from duplex.model.lm import LM, LMConfig
from duplex.serving.engine import Engine

BATCHES = (1, 4, 8)
TIMES = 3  # a conversation is held
PAUSE_S = 4.0  # after each question, for the answer
APART_TICKS = 13
ONSET_TICKS = 2  # an answer's first ticks, where text comes fastest
TEXT = ("heard", "said")
STALL_S = 2.0
STALL_TICK = 25  # 2 s after the beginning: within the first question
BILLION = dict(width=2048, layers=18, heads=32, kv_heads=8, hidden=8192, lora_rank=0)
BILLION_TICKS = 8


def conversation(questions: list[np.ndarray]) -> np.ndarray:
    """[ticks, TICK_SAMPLES]: a second of silence, then every question and a pause."""
    silence = np.zeros(int(PAUSE_S * SAMPLE_RATE), np.float32)
    wave = np.concatenate(
        [silence[:SAMPLE_RATE], *(part for question in questions for part in (question, silence))]
    )
    return np.pad(wave, (0, -len(wave) % TICK_SAMPLES)).reshape(-1, TICK_SAMPLES)


def hold(agents: dict, sound: np.ndarray) -> dict[str, dict]:
    """Play `sound` to every slot of every agent -> events; per tick seconds, calls of the LM, whether text came, whether a turn
    began. The agents take turns tick by tick, so that whatever else the machine does falls on all of them."""
    slots = next(iter(agents.values())).slots
    silence, held = (
        np.zeros(TICK_SAMPLES, np.float32),
        {name: {"events": [], "rows": []} for name in agents},
    )
    onset = dict.fromkeys(agents, 0)
    for agent in agents.values():
        for slot in range(slots):
            agent.open(slot, seed=slot)
    gc.collect()
    gc.freeze()  # as the engine does, see Engine.start
    for tick in range(len(sound) + APART_TICKS * (slots - 1)):
        places = [tick - APART_TICKS * slot for slot in range(slots)]
        heard = np.stack([sound[at] if 0 <= at < len(sound) else silence for at in places])
        for name in sorted(agents, reverse=bool(tick % 2)):
            agent = agents[name]
            calls = agent.context.counts.calls
            begun = time.perf_counter()
            _, news = agent.step(heard, [*range(slots)])
            seconds = time.perf_counter() - begun
            kinds = [event.kind for slot in news for event in slot]
            onset[name] = ONSET_TICKS if "agent_started" in kinds else onset[name] - 1
            row = (
                seconds,
                agent.context.counts.calls - calls,
                any(kind in TEXT for kind in kinds),
                onset[name] > 0,
            )
            held[name]["rows"].append(row)
            held[name]["events"].append(
                [[(event.kind, event.text, event.tick) for event in slot] for slot in news]
            )
    for agent in agents.values():
        for slot in range(slots):
            agent.close(slot)
    return held


def figures(rows: np.ndarray) -> dict:
    """rows [ticks, 4] of `hold` -> the figures of a run."""
    seconds, calls, text, onset = rows.T
    milliseconds = seconds * 1000
    return {
        "LM calls a tick with text, mean": round(float(calls[text > 0].mean()), 3)
        if text.any()
        else None,
        "LM calls at the onset of answers, median": float(np.median(calls[onset > 0]))
        if onset.any()
        else None,
        "tick ms p50, p99": np.percentile(milliseconds, [50, 99]).round(1).tolist(),
        "tick ms at onset p50, p99": np.percentile(milliseconds[onset > 0], [50, 99])
        .round(1)
        .tolist()
        if onset.any()
        else None,
        "seconds": round(float(seconds.sum()), 2),
    }


def accepted(outcomes) -> dict:
    """{kind: {place: [share right, guesses]}}"""
    found: dict = {}
    for whose, kind, place in sorted({key[:3] for key in outcomes}):
        right, wrong = (outcomes[whose, kind, place, agreed] for agreed in (True, False))
        found.setdefault(f"{whose}: {kind}", {})[f"place {place + 1}"] = [
            round(right / (right + wrong), 3),
            right + wrong,
        ]
    return found


def measure(load, questions: list[np.ndarray], slots: int) -> dict:
    """load(slots) -> an agent; questions: float32 [N] each, 24 kHz.

    Plain decoding, what the agent foresees by itself, and that together with its draft if it has one.
    """
    loaded = load(slots)
    # Nobody hears the voice: what its last bits change comes back to no agent's recogniser.
    config = replace(loaded.config, cancel_echo=False)
    undrafted = replace(loaded.parts, draft=None)
    plain = replace(config, speculate=False)
    agents = {
        "foreseen": Agent(undrafted, slots, config, loaded.policy),
        "plain": Agent(undrafted, slots, plain, loaded.policy),
    }
    if loaded.parts.draft is not None:
        agents = {"drafted": Agent(loaded.parts, slots, config, loaded.policy)} | agents
    runs = [hold(agents, conversation(questions)) for _ in range(TIMES)]
    found = {
        name: figures(np.median([run[name]["rows"] for run in runs], axis=0)) for name in agents
    }
    plain = found["plain"]
    return {
        "the same events": all(
            one["events"] == runs[0]["plain"]["events"] for run in runs for one in run.values()
        ),
        **found,
        "plain / foreseen, p99 ms at onset": ratio(
            plain, found["foreseen"], "tick ms at onset p50, p99"
        ),
        "time with / without": {
            name: round(of["seconds"] / plain["seconds"], 3) for name, of in found.items()
        },
        "guesses right": {name: accepted(agent.speculation.counts.outcomes) for name, agent in agents.items()},
        "draft turned off by itself": any(agent.speculation.counts.is_draft_off for agent in agents.values()),
    }


def ratio(one: dict, other: dict, name: str) -> float | None:
    """How many times as large the larger percentile of a figure is."""
    return round(one[name][1] / other[name][1], 2) if one[name] and other[name] else None


async def catch_up(load, questions: list[np.ndarray]) -> dict:
    """A user speaks in real time while the model stands still for STALL_S -> how soon the engine is in time again after it."""
    agent, sound = load(1), conversation(questions)
    step, stall_ended, behind = agent.step, [], []

    def stalling_step(audio, active, voice=True):
        if agent.ticks == first + STALL_TICK and not stall_ended:
            time.sleep(STALL_S)
            stall_ended.append(time.monotonic())
        return step(audio, active, voice)

    engine = Engine(agent, 1)
    await asyncio.to_thread(engine.start)
    first, agent.step = agent.ticks, stalling_step
    session = await engine.open(seed=0)

    async def watch():
        while True:
            behind.append((time.monotonic(), engine.stats()["behind_ms"]))
            await asyncio.sleep(0.005)

    async def listen():
        return [event async for event in events_of(session)]

    watching, listening, begun = (
        asyncio.create_task(watch()),
        asyncio.create_task(listen()),
        time.monotonic(),
    )
    for number, tick in enumerate(sound):
        await asyncio.sleep(max(0.0, begun + (number + 1) * TICK_S - time.monotonic()))
        session.push(tick)
    watching.cancel()
    dropped_ms = session.dropped_ms
    session.close()
    transcript = transcribe(await listening)
    await asyncio.to_thread(engine.stop)
    after = [(at, ms) for at, ms in behind if at > stall_ended[0]]
    first_late = next(
        (place for place, (_, ms) in enumerate(after) if ms >= TICK_MS), len(after)
    )  # told when its tick begins
    in_time = next((at for at, ms in after[first_late:] if ms < TICK_MS), None)
    return {
        "s from the end of the stall until in time": None
        if in_time is None
        else round(in_time - stall_ended[0], 3),
        "largest ms behind": max(ms for _, ms in behind),
        "user audio dropped, ms": dropped_ms,
        "heard": transcript.user_text,
    }


def run(load, questions: list[np.ndarray], file: Path) -> None:
    """The command: measures each part, prints it, and leaves them all in `file`."""
    questions = questions[:6]
    parts = {f"batch {slots}": partial(measure, load, questions, slots) for slots in BATCHES}
    parts[f"after a stall of {STALL_S:g} s"] = lambda: asyncio.run(catch_up(load, questions[:2]))
    parts["a billion"] = billion
    measured = {}
    for name, work in parts.items():
        measured[name] = work()
        file.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        print(json.dumps({name: measured[name]}, indent=1), flush=True)


async def events_of(session):
    while (message := await session.get()) is not None:
        for event in message[1]:
            yield event


@torch.inference_mode()
def billion() -> dict:
    """Milliseconds of one call of a random LM with a billion weights: one position, three positions; and of three guesses."""
    config = LMConfig(**BILLION)
    torch.manual_seed(0)
    model = compile_lm(LM(config).merge().eval())
    draft = compile_draft(Draft(DraftConfig(config.width, 2 * config.width)).eval())
    state = kv_cache.initial_state(config, 1)

    def median(work) -> float:
        times = []
        for _ in range(BILLION_TICKS):
            begun = time.perf_counter()
            work()
            times.append(time.perf_counter() - begun)
        return round(1000 * float(np.median(times)), 1)

    def call(count: int):
        return lambda: kv_cache.step(
            model, torch.randn(1, count, config.width), [count], np.zeros((1, count), bool), state
        )

    def guess():
        hidden = torch.randn(1, config.width)
        for _ in range(3):
            hidden = draft(hidden, model.embed(model.logits(hidden).argmax(-1)))

    weights = (
        sum(p.numel() for p in LM(LMConfig(**{**BILLION, "layers": 1})).blocks.parameters())
        * config.layers
    )
    times = {
        "1 position": median(call(1)),
        "3 positions": median(call(3)),
        "3 guesses": median(guess),
    }
    return {"weights in blocks": weights, "ms": times}
