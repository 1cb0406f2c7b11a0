"""The sets of minds.py by voice: spoken by voices that no training has heard, answered aloud.

Each row has a session of its own, without a clock: what is thought is waited for, so it is measured
what is right, not how soon it comes (that is `python -m duplex.bench.mind`).
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duplex.agent import load_agent
from duplex.agent.agent import Agent
from duplex.audio import SAMPLE_RATE
from duplex.mind.thinker import Call
from duplex.training.evaluation.minds.facts import ask, with_count
from duplex.training.evaluation.minds.questions import (
    FUNCTIONS,
    judge_calls,
    judge_words,
    said_in,
)
from duplex.training.evaluation.play import Script, Tick, in_ticks, play
from duplex.training.evaluation.spoken import SpokenTexts


def load_minded(mind: str, slots: int, folder: Path | None = None) -> Agent:
    """The agent with a mind, ready to think; a large one reads for one session at a time."""
    agent = load_agent(folder, 1 if mind != "small" else slots, mind=mind)
    if agent.thinker is not None:
        agent.thinker.wait()
    return agent


def turns_of(row: dict, number: int) -> list[tuple[str, str]]:
    """(name of the sound, text) of what the user says in a row of a set."""
    name = row.get("id", f"calls{number:03}")
    return [(f"{name}-{place}", text) for place, text in enumerate(said_in(row))]


def speak(rows: list[dict], spoken: SpokenTexts) -> None:
    """Make the sounds that are not there yet; row n is spoken by voice n."""
    for number, row in enumerate(rows):
        for name, text in turns_of(row, number):
            spoken.speak(name, text, number)


def measure_spoken(
    agent: Agent,
    name: str,
    rows: list[dict],
    spoken: SpokenTexts,
    seed: int = 0,
    noises: dict[str, list[np.ndarray]] | None = None,
) -> Iterator[dict]:
    """The rows of a set with what was heard and said, and whether it is right, slots by slots.

    noises: recordings float32 [N] of each sound by its name, for the set `noises`.
    """
    scripts = []
    for n, row in enumerate(rows):
        clips = (noises or {}).get(row.get("sound"), [])
        noise = clips[n % len(clips)] if clips else None
        scripts.append(_script(agent, row, n, spoken, Before(seed, noise)))
    scripts = with_count(scripts)
    for begin in range(0, len(rows), agent.slots):
        some = slice(begin, begin + agent.slots)
        for row, got in zip(rows[some], play(agent, scripts[some]), strict=True):
            calls = [Call(event.call_id, event.name, event.arguments) for event in got["calls"]]
            right = judge_calls(row, calls) if name == "calls" else judge_words(row, got["said"])
            told = [[call.name, call.arguments] for call in calls]
            yield (
                row
                | {"set": f"{name} by voice", "heard": got["heard"], "said": got["said"]}
                | {"calls": told, "labels": got["labels"], "right": right}
            )


@dataclass(frozen=True)
class Before:
    """What a session begins with, before anybody speaks."""

    seed: int
    # float32 [N]; None: there is none.
    noise: np.ndarray | None


def _script(agent: Agent, row: dict, number: int, spoken: SpokenTexts, before: Before) -> Script:
    def run(slot: int) -> Generator[np.ndarray, Tick, dict]:
        if "instructions" in row:
            agent.close(slot)
            agent.open(slot, seed=before.seed, instructions=row["instructions"])
        labels: list[str] = []
        if row.get("note"):
            agent.write(slot, "system", row["note"])
        if before.noise is not None:
            silence = np.zeros(SAMPLE_RATE, np.float32)
            for sound in in_ticks(np.concatenate([silence, before.noise, silence])):
                tick = yield sound
                labels.extend(event.text for event in tick.events if event.kind == "sound")
        if "tool" in row:
            agent.set_tools(slot, list(FUNCTIONS))
        for name, _ in turns_of(row, number):
            result = yield from _until_called(ask(spoken.read(name)))
        return {**result, "labels": labels}

    return run


def _until_called(talk: Generator[np.ndarray, Tick, dict]) -> Generator[np.ndarray, Tick, dict]:
    """A question and its answer, which is over with the functions that are called."""
    heard = ""
    sound = next(talk)
    while True:
        tick = yield sound
        for event in tick.events:
            heard = event.text if event.kind == "corrected" else heard
        if calls := [event for event in tick.events if event.kind == "tool"]:
            return {"heard": heard.strip(), "said": "", "calls": calls}
        try:
            sound = talk.send(tick)
        except StopIteration as ended:
            return ended.value | {"calls": []}
