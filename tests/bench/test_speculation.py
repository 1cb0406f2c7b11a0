"""The bench of speculative decoding compares the same conversation, decoded in several ways."""

import asyncio

import numpy as np

from duplex.agent import AgentConfig, TurnPolicy
from duplex.bench import speculation as bench_draft
from tests.tiny_speech_agent import drafted_agent, tiny_agent

POLICY = TurnPolicy(symbols_per_tick=3, wait_penalty=2.0)
CONFIG = AgentConfig(cancel_echo=False, min_draft_probability=0.0)


def test_bench_compares_the_same_conversation():
    def load(slots):
        agent = drafted_agent(slots, POLICY, CONFIG)
        step = agent.parts.encoder.step

        def rounded(
            mel, state
        ):  # the last bits differ from run to run, and to a random encoder many words are all but as likely
            (vectors, phones), state = step(mel, state)
            return (vectors, phones.round(decimals=2)), state

        agent.parts.encoder.step = rounded
        return agent

    questions = [
        np.random.default_rng(i).normal(0, 0.3, 12_000).astype(np.float32) for i in range(2)
    ]
    for slots in (1, 2):
        found = bench_draft.measure(load, questions, slots)
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
            "drafted",
        }
        shares = [
            share
            for places in found["guesses right"]["drafted"].values()
            for share, _ in places.values()
        ]
        assert min(shares) < 1 and max(shares) > 0
    assert "drafted" not in bench_draft.measure(
        lambda slots: tiny_agent(slots, POLICY), questions, 1
    )


def test_bench_of_a_large_model_times_its_calls(monkeypatch):
    small = dict(width=32, layers=2, heads=4, kv_heads=2, hidden=48, lora_rank=0, vocabulary=300)
    monkeypatch.setattr(bench_draft, "BILLION", small)
    found = bench_draft.billion()
    assert found["weights in blocks"] > 0 and all(ms > 0 for ms in found["ms"].values())


def test_bench_of_a_stall_hears_all_of_it(monkeypatch):
    """Real time, but no time is asserted: only that the engine was behind and came back, and that nothing was lost."""
    monkeypatch.setattr(bench_draft, "STALL_S", 0.8)
    monkeypatch.setattr(bench_draft, "STALL_TICK", 5)
    monkeypatch.setattr(bench_draft, "PAUSE_S", 5.0)
    questions = [np.random.default_rng(0).normal(0, 0.3, 12_000).astype(np.float32)]
    found = asyncio.run(
        bench_draft.catch_up(
            lambda slots: tiny_agent(slots, TurnPolicy(wait_penalty=2.0)), questions
        )
    )
    assert (
        found["largest ms behind"] > 600
        and found["s from the end of the stall until in time"] is not None
    )
    assert found["user audio dropped, ms"] == 0 and found["heard"]
