"""Decoding with a draft says what decoding without it says: symbol for symbol, in batches, for every temperature."""

import asyncio
import copy
from collections import Counter

import numpy as np
import pytest
import torch

from duplex.agent.turn_policy import Settings
from duplex.audio import TICK_SAMPLES
from duplex.bench import speculation as bench_draft
from duplex.model import kv_cache
from duplex.model.draft import Asked, Draft, DraftConfig, propose
from duplex.model.tokens import AGENT, FIRST_TEXT_ID, NEXT, STOP, Grammar, allowed
from duplex.serving import metrics
from duplex.serving.engine import Engine
from tests.tiny_speech_agent import tiny_agent

CHI_SQUARE_9_DEGREES = 27.9  # exceeded once in a thousand times by chance


def with_draft(agent, noise: float):
    """A draft that is often right: it guesses that the hidden state stays as it is, more or less."""
    torch.manual_seed(1)
    draft = Draft(DraftConfig(agent.lm.config.width, 16)).eval()
    torch.nn.init.normal_(draft.down.weight, std=noise)
    agent.draft = draft.double()
    return agent


def talk(agent, ticks: int, joins: dict[int, int], leaves: dict[int, int]):
    """Noise in, sessions joining and leaving at given ticks -> per tick and slot the events, and the LM's cell positions."""
    rng, events, active = np.random.default_rng(3), [], []
    for tick in range(ticks):
        for slot in [s for s, at in joins.items() if at == tick]:
            agent.open(slot, seed=slot)
            active.append(slot)
        for slot in [s for s, at in leaves.items() if at == tick]:
            agent.close(slot)
            active.remove(slot)
        heard = rng.normal(0, 0.3, (agent.slots, TICK_SAMPLES)).astype(np.float32)
        _, news = agent.step(heard, sorted(active))
        events.append([[(e.kind, e.text, e.tick) for e in slot] for slot in news])
    return events


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("slots", [1, 3])
def test_the_draft_changes_no_symbol(slots, temperature):
    """Long enough that ticks and text leave their windows; sessions join and leave, and stop themselves."""
    rules = {"next_penalty": 2.0, "stop_penalty": 0.0, "answer_least_first": 0.5}
    settings = Settings(symbols_per_tick=3, temperature=temperature, draft_least=0.0, **rules)
    joins = {0: 0} if slots == 1 else {0: 0, 2: 7, 1: 11}
    leaves = {} if slots == 1 else {0: 90}
    plain, drafted = tiny_agent(slots, settings), with_draft(tiny_agent(slots, settings), 0.02)
    assert talk(plain, 160, joins, leaves) == talk(drafted, 160, joins, leaves)
    counts = drafted.counts
    assert 0 < counts.right < counts.guesses and counts.lm_calls < plain.counts.lm_calls
    assert (
        plain.counts.lm_calls - counts.lm_calls <= counts.calls_saved
    )  # calls are shared by a batch
    assert (
        int(plain.lm_state.next_position.max())
        > plain.lm.config.text_window + plain.lm.config.tick_window
    )


def test_sampled_symbols_keep_their_distribution():
    """All pairs of first symbols of a turn, 4 choices each: the draws against the probabilities worked out by hand."""
    settings = Settings(
        symbols_per_tick=2, temperature=1.0, next_penalty=50.0, top_k=4, draft_least=0.0
    )
    agent = with_draft(tiny_agent(1, settings, seed=3), 0.02)
    heard, draws = np.zeros((1, TICK_SAMPLES), np.float32), Counter()
    exact = {}
    for seed in range(600):
        agent.open(0, seed=seed)
        agent.sessions[0].grammar = Grammar(AGENT, False, True)
        if not exact:
            exact = pair_probabilities(agent, heard)
        first = int(agent.lm_state.next_position[0]) + 1  # after the tick
        fed = []
        agent.note = lambda slot, symbol, before, position, events, fed=fed: fed.append(
            (position, symbol)
        )
        agent.step(heard, [0])
        agent.close(0)
        assert [position for position, _ in fed] == [first, first + 1]
        draws[tuple(symbol for _, symbol in fed)] += 1
    assert agent.counts.right > 50 and set(draws) <= set(exact)
    top = sorted(exact, key=exact.get, reverse=True)[:9]
    rest = [600 - sum(draws[pair] for pair in top), 600 * (1 - sum(exact[pair] for pair in top))]
    cells = [(draws[pair], 600 * exact[pair]) for pair in top] + [rest]
    assert sum((got - expected) ** 2 / expected for got, expected in cells) < CHI_SQUARE_9_DEGREES


@torch.inference_mode()
def pair_probabilities(agent, heard) -> dict:
    """Joint probabilities of the first two symbols of a tick; the agent's state is left as it was."""
    states = copy.deepcopy((agent.lm_state, agent.feature_state, agent.encoder_state))
    mask = allowed(Grammar(AGENT, False, True), agent.lm.config.vocabulary, True, True)

    def likeliest(hidden) -> dict:
        scores = agent.lm.logits(hidden[None])[0]
        scores[NEXT] -= agent.settings.next_penalty
        values, symbols = scores.masked_fill(~mask, -torch.inf).topk(agent.settings.top_k)
        assert (symbols >= FIRST_TEXT_ID).all(), (
            "a control among the likeliest would change the rules: choose another seed"
        )
        return dict(zip(symbols.tolist(), values.softmax(-1).tolist(), strict=True))

    vector = agent.listen(torch.from_numpy(heard), [[]])[0]
    pairs = {}
    for one, p in likeliest(agent.feed({0: agent.row([], vector)})[0][-1].clone()).items():
        after = agent.feed({0: agent.row([one])})[0][-1].clone()
        kv_cache.rollback(agent.lm_state, 0, 1)
        pairs |= {(one, two): p * q for two, q in likeliest(after).items()}
    agent.lm_state, agent.feature_state, agent.encoder_state = states
    return pairs


def test_a_draft_that_does_not_gain_is_turned_off(monkeypatch):
    monkeypatch.setattr("duplex.agent.agent.WEIGH_TICKS", 10)
    agent = with_draft(
        tiny_agent(1, Settings(symbols_per_tick=3, draft_least=0.0), seed=1), 5.0
    )  # always wrong
    talk(agent, 12, {0: 0}, {})
    assert agent.counts.draft_off and agent.counts.calls_saved == 0
    guesses = agent.counts.guesses
    agent.close(0)
    talk(agent, 5, {0: 0}, {})
    assert agent.counts.guesses == guesses


def test_nothing_is_guessed_beyond_the_rules():
    """No text where none may come, neither <next> nor <stop> as a guess, and no more than asked for."""
    agent = with_draft(tiny_agent(2), 1.0)
    width = agent.lm.config.width
    torch.manual_seed(0)
    for _ in range(30):
        asked = {
            0: Asked(
                torch.randn(width, dtype=torch.double),
                torch.randn(2, width, dtype=torch.double),
                Grammar(),
                speaking_allowed=False,
                audible=True,
            ),
            1: Asked(
                torch.randn(width).double(),
                torch.randn(1, width).double(),
                Grammar(AGENT, False, True),
                True,
                True,
            ),
        }
        guesses = propose(agent.draft, agent.lm, asked, 3, 0.0, 0.0)
        assert all(len(g) <= 3 and not {NEXT, STOP} & set(g) for g in guesses.values())
        assert all(symbol < FIRST_TEXT_ID for symbol in guesses[0][:1])


def test_bench_compares_the_same_conversation():
    def load(slots):
        agent = with_draft(
            tiny_agent(slots, Settings(symbols_per_tick=3, next_penalty=2.0, draft_least=0.0)), 0.02
        )
        step = agent.encoder.step

        def rounded(
            mel, state
        ):  # the last bits differ from run to run, and to a random encoder many words are all but as likely
            (vectors, phones), state = step(mel, state)
            return (vectors, phones.round(decimals=2)), state

        agent.encoder.step = rounded
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
    settings = Settings(symbols_per_tick=3, next_penalty=2.0)
    assert "drafted" not in bench_draft.measure(
        lambda slots: tiny_agent(slots, settings), questions, 1
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
        bench_draft.catch_up(lambda slots: tiny_agent(slots, Settings(next_penalty=2.0)), questions)
    )
    assert (
        found["largest ms behind"] > 600
        and found["s from the end of the stall until in time"] is not None
    )
    assert found["user audio dropped, ms"] == 0 and found["heard"]


def test_a_draft_that_fails_is_turned_off_and_nobody_notices(monkeypatch):
    settings = Settings(symbols_per_tick=3, temperature=1.0, next_penalty=2.0, draft_least=0.0)
    plain, drafted = tiny_agent(2, settings), with_draft(tiny_agent(2, settings), 0.02)
    calls = []

    def breaks(*what):
        calls.append(what)
        if len(calls) > 10:
            raise RuntimeError("no more memory")
        return propose(*what)

    monkeypatch.setattr("duplex.agent.agent.propose", breaks)
    assert talk(plain, 60, {0: 0, 1: 2}, {}) == talk(drafted, 60, {0: 0, 1: 2}, {})
    assert drafted.counts.draft_off and len(calls) == 11


def test_what_the_draft_does_is_in_the_metrics():
    agent = with_draft(
        tiny_agent(1, Settings(symbols_per_tick=3, next_penalty=2.0, draft_least=0.0)), 0.02
    )
    talk(agent, 40, {0: 0}, {})
    figures = agent.metrics()
    assert figures["talker_calls"] == agent.talking.counts.calls
    assert (
        agent.counts.right
        <= sum(figures["guesses_right"].values())
        < sum(figures["guesses"].values())
    )
    of_server = {"paths": {"opened": {}, "talking": {}}, "threads": 1, "tasks": 1}
    text = metrics.exposition({**Engine(agent, 1).stats(), **of_server}).decode()
    for kind, number in figures["guesses"].items():
        assert f'duplex_draft_guesses_total{{kind="{kind}"}} {number}.0\n' in text
    assert (
        "duplex_draft_on 1.0\n" in text
        and f"duplex_lm_calls_total {agent.counts.lm_calls}.0\n" in text
    )
