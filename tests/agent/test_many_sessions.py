"""64 sessions with a second pass and a large mind that never come to an end: no tick waits."""

import threading
from dataclasses import replace

import numpy as np
import torch

from duplex.agent import Agent, TurnPolicy
from duplex.audio import TICK_SAMPLES
from duplex.mind.thinker import Thinker
from duplex.model.tokens import FIRST_TEXT_ID, NEXT, USER, USER_END
from tests.tiny_speech_agent import UNDEMANDING, tiny_agent
from tests.tiny_whisper import tiny_whisper

SLOTS = 64


class Stuck:
    """A text model that thinks until it is let go."""

    def __init__(self, gate: threading.Event):
        self.gate = gate

    def read(self, messages, tools, is_cancelled) -> None:
        assert self.gate.wait(60)

    def stream(self, messages, tools, is_cancelled):
        assert self.gate.wait(60)
        yield "Yes."


def wants(hidden: torch.Tensor, text: bool = True) -> torch.Tensor:
    """Scores of an LM that writes what it hears and ends each turn as soon as it may."""
    scores = torch.zeros(*hidden.shape[:-1], 300 if text else FIRST_TEXT_ID)
    scores[..., NEXT] = -5.0
    scores[..., [USER, USER_END]] = 5.0
    scores[..., FIRST_TEXT_ID:] = 9.0
    return scores


def busy_agent(gate: threading.Event) -> Agent:
    """Its reading thread stands still too."""
    policy = replace(TurnPolicy(), **UNDEMANDING)
    agent = tiny_agent(SLOTS, policy)
    agent.parts.whisper = tiny_whisper()
    agent.parts.lm.logits = wants
    agent = agent.with_slots(SLOTS).with_thinker(Thinker(Stuck(gate)))
    agent.second_pass.whisper.encode = lambda power: gate.wait(60) and power
    for slot in range(SLOTS):
        agent.open(slot, seed=slot, gradually=True, real_time=True)
    return agent


def test_no_tick_waits_for_the_second_pass_or_the_mind():
    """A tick that did would stand still for ever here. All are heard, and their turns end."""
    gate = threading.Event()
    agent = busy_agent(gate)
    try:
        ended = set()
        for _ in range(60):
            levels = np.zeros((SLOTS, 1), np.float32)
            for slot, session in agent.sessions.items():
                # Each says a word of two ticks at a time of its own.
                if session.tick in (10 + slot % 16, 11 + slot % 16):
                    levels[slot] = 0.3
            speaking = set(np.flatnonzero(levels[:, 0]).tolist())
            beams = {id(agent.sessions[slot].user.beam) for slot in speaking}
            agent.recognition.decode = lambda beam, _, now=beams: (
                [("hi", 0.9)] if id(beam) in now else []
            )
            sound = np.repeat(levels, TICK_SAMPLES, 1)
            _, events = agent.step(sound, [*range(SLOTS)])
            ended |= {s for s in range(SLOTS) if any(e.kind == "user_ended" for e in events[s])}
            assert not any(e.kind == "error" for slot in events for e in slot)
        counts = agent.second_pass.thread.counts
        asked = agent.dictation.counts.thoughts
        # Few wait for a thread that does not come on; the others are heard once, at once.
        assert counts["read"] >= 1 and counts["refused"] >= SLOTS // 2
        assert all(job.cancelled() or not job.done() for job in agent.second_pass.thread.jobs)
        assert asked >= SLOTS and len(ended) == SLOTS
        assert len({session.tick for session in agent.sessions.values()}) == 1
    finally:
        gate.set()
