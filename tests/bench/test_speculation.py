"""The bench of speculative decoding compares the same conversation, decoded in several ways."""

import asyncio
import threading
from functools import partial

import numpy as np
import pytest

from duplex.agent import AgentConfig, TurnPolicy
from duplex.bench import large_lm, speculation, written
from duplex.model.lm import LMConfig
from duplex.model.tokens import AGENT, FIRST_TEXT_ID
from tests.tiny_speech_agent import drafted_agent, tiny_agent

POLICY = TurnPolicy(symbols_per_tick=3, wait_penalty=2.0)
CONFIG = AgentConfig(cancel_echo=False, min_guess_share=0.0)
# What its agent says: any token after each.
TURNS = [[AGENT, token, token] for token in range(FIRST_TEXT_ID, FIRST_TEXT_ID + 200)]


@pytest.mark.slow
def test_bench_compares_the_same_conversation():
    def load(slots):
        agent = drafted_agent(slots, POLICY, CONFIG, TURNS)
        step = agent.parts.encoder.step

        # The last bits differ from run to run, and a random encoder finds many words as likely.
        def rounded(mel, state):
            (vectors, phones), state = step(mel, state)
            return (vectors, phones.round(decimals=2)), state

        agent.parts.encoder.step = rounded
        return agent

    questions = [
        np.random.default_rng(i).normal(0, 0.3, 12_000).astype(np.float32) for i in range(2)
    ]
    for slots in (1, 2):
        found = speculation.measure(load, questions, slots, times=1)
        assert found["the same events"]
        calls = [
            found[name]["LM calls a tick with text, mean"]
            for name in ("drafted", "foreseen", "plain")
        ]
        assert (
            1 <= calls[0] < calls[1] <= calls[2] <= 6
        )  # a symbol each and <next>; a turn that is read anew takes two
        assert not found["guesses right"]["plain"] and found["time with / without"].keys() == {
            "plain",
            "foreseen",
            "looked up",
            "drafted",
        }
        shares = [
            share
            for places in found["guesses right"]["drafted"].values()
            for share, _ in places.values()
        ]
        assert min(shares) < 1 and max(shares) > 0


@pytest.mark.slow
def test_large_lm_has_times_of_its_calls():
    small = LMConfig(
        width=32, layers=2, heads=4, kv_heads=2, hidden=48, lora_rank=0, vocabulary=300
    )
    found = large_lm.measure(small)
    assert found["weights in blocks"] > 0 and all(ms > 0 for ms in found["ms"].values())


class SharedClock:
    """Time of a model and a user: it moves on when both wait for it, as far as one of them wants.

    Work takes none of it, so nothing depends on the machine.
    """

    def __init__(self):
        self._now = 0.0
        self._due: dict[str, float] = {}
        self._moved = threading.Condition()

    def now(self) -> float:
        with self._moved:
            return self._now

    def wait_until(self, due: float, wake: threading.Event) -> bool:
        self._wait("model", due, wake)
        return self.now() >= due

    def stall(self, seconds: float) -> None:
        self._wait("model", self.now() + seconds)

    async def sleep(self, seconds: float) -> None:
        await asyncio.to_thread(self._wait, "user", self.now() + seconds)

    def _wait(self, who: str, due: float, wake: threading.Event | None = None) -> None:
        with self._moved:
            self._due[who] = due
            if len(self._due) == 2:
                self._now = max(self._now, min(self._due.values()))
                self._moved.notify_all()
            while self._now < due and not (wake and wake.is_set()):
                # The event cannot notify the condition.
                self._moved.wait(0.002)
            del self._due[who]


def test_after_a_stall_all_of_it_is_heard():
    """The model stands still while ten ticks are said: it comes back, and nothing is lost."""
    question = np.random.default_rng(0).normal(0, 0.3, 12_000).astype(np.float32)
    line = speculation.user_line([question], pause_s=5.0).ravel()
    policy = TurnPolicy(wait_penalty=2.0)
    clock = SharedClock()
    found = asyncio.run(
        speculation.catch_up(
            lambda slots: tiny_agent(slots, policy),
            line,
            partial(clock.stall, 0.8),
            stall_tick=5,
            clock=clock,
            sleep=clock.sleep,
        )
    )
    assert found["largest ms behind"] == pytest.approx(720, abs=81)
    assert found["s from the end of the stall until in time"] is not None
    assert found["user audio dropped, ms"] == 0 and found["heard"]


def test_in_writing_the_text_is_the_same():
    agent = drafted_agent(1, POLICY, CONFIG, TURNS)
    found = written.measure_kind(agent, "hi you, hi", ["hi you", "you hi"], 30)
    plain_calls = found["certain"]["LM calls in ticks with text"]
    assert found["certain"]["guesses right, of all"] == [0, 0]
    for figures in found.values():
        assert figures["the same text"] and figures["tokens"] > 10
        right, asked = figures["guesses right, of all"]
        saved = plain_calls - figures["LM calls in ticks with text"]
        assert 0 <= saved <= right <= asked
    assert found["n-grams"]["guesses right, of all"][1] > 0
