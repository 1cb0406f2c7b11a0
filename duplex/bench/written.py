"""What guesses of text are worth where answers are written alone: a part of `bench draft`.

Questions are written, and answered in writing: no voice sets the pace. By kind of question: talk,
what stands in the instructions, and what is to be said after. None of them stands in the corpus of
duplex.training.corpus. The agents take turns tick by tick.
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
        [
            "Can you cheer me up with something silly?",
            "Which city is the seat of Italy's government?",
            "Tell me a thing about the sun that children would like.",
            "My neighbour gave me a bag of plums, what should I do with them?",
            "I slept badly because the dog next door kept barking.",
            "Is it worth learning to play the cello at fifty?",
            "We are moving house on Thursday and nothing is packed yet.",
            "What would you bring to a picnic by a lake?",
            "How do I get a coffee stain out of a white shirt?",
            "Why does bread go stale in the fridge?",
            "I finally finished the book you and I talked about.",
            "What's a good name for a sailing boat?",
        ],
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


# {name: what is guessed}, of which "certain" is what the others are compared with.
DRAFTS = {
    "certain": {"lookup_tokens": 0, "use_ngrams": False},
    "looked up": {"use_ngrams": False},
    "n-grams": {"lookup_tokens": 0},
    "both": {},
}


def measure(agent: Agent, ticks: int = 20) -> dict:
    """{kind: {draft: figures}} of agents of the same parts."""
    return {kind: measure_kind(agent, *asked, ticks) for kind, asked in QUESTIONS.items()}


def measure_kind(agent: Agent, instructions: str | None, questions: list[str], ticks: int) -> dict:
    """The figures of some questions; each is given so many ticks for its answer."""
    config = replace(agent.config, cancel_echo=False)
    agents = {
        name: Agent(agent.parts, 1, replace(config, **changed), agent.policy)
        for name, changed in DRAFTS.items()
    }
    for one in agents.values():
        one.open(0, seed=0, instructions=instructions)
        one.take_turns(0, TurnTaking(speaks=False))
        one.reset_counts()
    found = {name: {"text": "", "tokens": 0, "seconds": 0.0, "calls": 0} for name in agents}
    for question in questions:
        for one in agents.values():
            one.write(0, "user", question)
            one.answer(0)
        for tick in range(ticks):
            for name in sorted(agents, reverse=bool(tick % 2)):
                _step(agents[name], found[name])
    return {name: _compare(agents[name], found["certain"], found[name]) for name in agents}


def _compare(agent: Agent, certain: dict, found: dict) -> dict:
    """An agent's figures beside those of certain proposals alone."""
    outcomes = agent.speculation.counts.outcomes
    guessed = {key: number for key, number in outcomes.items() if key[0] in ("lookup", "ngrams")}
    return {
        "the same text": certain["text"] == found["text"],
        "tokens": found["tokens"],
        "LM calls in ticks with text": found["calls"],
        "tokens a second of the thread, over certain": _ratio(certain["seconds"], found["seconds"]),
        "tokens a call of the LM, over certain": _ratio(certain["calls"], found["calls"]),
        "guesses right, of all": [
            sum(number for key, number in guessed.items() if key[3]),
            sum(guessed.values()),
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
