"""What text that is looked up is worth where answers are written alone: a part of `bench draft`.

Questions are written, and answered in writing: no voice sets the pace. By kind of question: talk,
what stands in the instructions, and what is to be said after. The agents take turns tick by tick.
"""

import time
from dataclasses import replace

import numpy as np

from duplex.agent import Agent
from duplex.audio import TICK_SAMPLES
from duplex.events import TurnTaking

# {kind: (instructions, questions)}
QUESTIONS = {
    "talk": (
        None,
        ["Tell me a joke.", "What is the capital of Italy?", "Tell me something about the sun."],
    ),
    "instructions": (
        "The shop opens at nine in the morning and closes at six in the evening. "
        "The shop sells bread, cakes and coffee. A coffee costs two dollars and fifty cents.",
        ["When does the shop open?", "What does the shop sell?", "How much is a coffee?"],
    ),
    "say after me": (
        None,
        [
            "Repeat after me: the quick brown fox jumps over the lazy dog.",
            "Say: I will be at the station at nine in the morning.",
        ],
    ),
}


def measure(agent: Agent, ticks: int = 45) -> dict:
    """{kind: figures} with and without what is looked up, of agents of the same parts."""
    return {kind: measure_kind(agent, *asked, ticks) for kind, asked in QUESTIONS.items()}


def measure_kind(agent: Agent, instructions: str | None, questions: list[str], ticks: int) -> dict:
    """The figures of some questions; each is given so many ticks for its answer."""
    config = replace(agent.config, cancel_echo=False)
    agents = [
        Agent(agent.parts, 1, replace(config, lookup_tokens=number), agent.policy)
        for number in (0, config.lookup_tokens)
    ]
    for one in agents:
        one.open(0, seed=0, instructions=instructions)
        one.take_turns(0, TurnTaking(speaks=False))
        one.reset_counts()
    found = [{"text": "", "tokens": 0, "seconds": 0.0, "calls": 0} for _ in agents]
    for question in questions:
        for one in agents:
            one.write(0, "user", question)
            one.answer(0)
        for _ in range(ticks):
            for one, figures in zip(agents, found, strict=True):
                _step(one, figures)
    without, looked_up = found
    outcomes = agents[1].speculation.counts.outcomes
    return {
        "the same text": without["text"] == looked_up["text"],
        "tokens": without["tokens"],
        "LM calls in ticks with text, without and with": [one["calls"] for one in found],
        "tokens a second of the thread, with / without": _ratio(
            without["seconds"], looked_up["seconds"]
        ),
        "tokens a call of the LM, with / without": _ratio(without["calls"], looked_up["calls"]),
        "guesses right, of all": [
            sum(number for key, number in outcomes.items() if key[0] == "lookup" and key[3]),
            sum(number for key, number in outcomes.items() if key[0] == "lookup"),
        ],
    }


def _step(agent: Agent, figures: dict) -> None:
    """A tick of silence; what it took counts where text came."""
    calls = agent.context.counts.calls
    begun = time.thread_time()
    _, [events] = agent.step(np.zeros((1, TICK_SAMPLES), np.float32), [0])
    took = time.thread_time() - begun
    said = [event.text for event in events if event.kind == "said"]
    if said:
        figures["text"] += "".join(said)
        figures["tokens"] += len(said)
        figures["seconds"] += took
        figures["calls"] += agent.context.counts.calls - calls


def _ratio(one: float, other: float) -> float | None:
    return round(one / other, 2) if other else None
