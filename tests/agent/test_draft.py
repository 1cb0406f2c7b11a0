"""Speculative decoding with a draft network draws what decoding without it draws."""

import copy
from collections import Counter

import numpy as np
import pytest
import torch

from duplex.agent import Agent, AgentConfig, TurnPolicy
from duplex.audio import TICK_SAMPLES
from duplex.model import kv_cache
from duplex.model.tokens import AGENT, FIRST_TEXT_ID, NEXT, Grammar, allowed_mask
from tests.tiny_speech_agent import drafted_agent, tick_of, tiny_parts

pytestmark = pytest.mark.slow

CHI_SQUARE_9_DEGREES = 27.9  # exceeded once in a thousand times by chance
POLICY = TurnPolicy(symbols_per_tick=3, wait_penalty=2.0)
CONFIG = AgentConfig(cancel_echo=False, min_draft_probability=0.0)


def plain_agent(slots: int, policy: TurnPolicy, config: AgentConfig) -> Agent:
    return Agent(tiny_parts(), slots, config, policy)


def talk(agent: Agent, ticks: int, joins: dict[int, int], leaves: dict[int, int] | None = None):
    """Noise in, sessions joining and leaving at given ticks; per tick and slot the events."""
    rng = np.random.default_rng(3)
    events = []
    active: list[int] = []
    for tick in range(ticks):
        for slot in [s for s, at in joins.items() if at == tick]:
            agent.open(slot, seed=slot)
            active.append(slot)
        for slot in [s for s, at in (leaves or {}).items() if at == tick]:
            agent.close(slot)
            active.remove(slot)
        heard = rng.normal(0, 0.3, (agent.slots, TICK_SAMPLES)).astype(np.float32)
        _, news = agent.step(heard, sorted(active))
        events.append([[(e.kind, e.text, e.tick) for e in slot] for slot in news])
    return events


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    ("slots", "joins", "leaves"), [(1, {0: 0}, {}), (3, {0: 0, 2: 7, 1: 11}, {0: 90})]
)
def test_a_draft_changes_no_symbol(slots, joins, leaves, temperature):
    """Long enough that ticks and text leave their windows; sessions stop themselves."""
    policy = TurnPolicy(
        symbols_per_tick=3,
        wait_penalty=2.0,
        backchannel_stop_penalty=0.0,
        min_confidence_first=0.5,
    )
    config = AgentConfig(cancel_echo=False, min_draft_probability=0.0, temperature=temperature)
    plain = plain_agent(slots, policy, config)
    drafted = drafted_agent(slots, policy, config)
    assert talk(plain, 120, joins, leaves) == talk(drafted, 120, joins, leaves)
    counts = drafted.speculation.counts
    saved = plain.context.counts.calls - drafted.context.counts.calls
    assert 0 < counts.accepted < counts.drafted and 0 < saved
    assert saved <= counts.calls_saved  # calls are shared by a batch
    lm = plain.parts.lm.config
    assert int(plain.context.cache.next_position.max()) > lm.text_window + lm.tick_window


def test_sampled_symbols_keep_their_distribution():
    """All pairs of first symbols of a turn, 4 choices each, against their probabilities."""
    policy = TurnPolicy(symbols_per_tick=2, wait_penalty=50.0)
    config = AgentConfig(cancel_echo=False, temperature=1.0, top_k=4, min_draft_probability=0.0)
    agent = drafted_agent(1, policy, config, seed=3)
    draws = Counter()
    exact = {}
    for seed in range(600):
        agent.open(0, seed=seed)
        agent.sessions[0].grammar = Grammar(AGENT, False, True)
        if not exact:
            exact = pair_probabilities(agent)
        first = int(agent.context.cache.next_position[0]) + 1  # after the tick
        applied = []

        def note(slot, session, symbol, position, events, applied=applied):
            applied.append((position, symbol))

        agent.decoder.apply_symbol = note
        agent.step(tick_of(), [0])
        agent.close(0)
        assert [position for position, _ in applied] == [first, first + 1]
        draws[tuple(symbol for _, symbol in applied)] += 1
    assert agent.speculation.counts.accepted > 50 and set(draws) <= set(exact)
    top = sorted(exact, key=exact.get, reverse=True)[:9]
    cells = [(draws[pair], 600 * exact[pair]) for pair in top]
    others = 600 * (1 - sum(exact[pair] for pair in top))
    cells.append((600 - sum(draws[pair] for pair in top), others))
    assert sum((got - wanted) ** 2 / wanted for got, wanted in cells) < CHI_SQUARE_9_DEGREES


@torch.inference_mode()
def pair_probabilities(agent: Agent) -> dict[tuple[int, int], float]:
    """Joint probabilities of the first two symbols of a silent tick; the agent stays as it was."""
    context = agent.context
    recognition = agent.recognition
    states = copy.deepcopy((context.cache, recognition.feature_state, recognition.encoder_state))
    mask = allowed_mask(Grammar(AGENT, False, True), context.lm.config.vocabulary, True, True)

    def likeliest(hidden: torch.Tensor) -> dict[int, float]:
        scores = context.lm.logits(hidden[None])[0]
        scores[NEXT] -= agent.policy.wait_penalty
        values, symbols = scores.masked_fill(~mask, -torch.inf).topk(agent.config.top_k)
        assert (symbols >= FIRST_TEXT_ID).all(), "a control would change the rules: another seed"
        return dict(zip(symbols.tolist(), values.softmax(-1).tolist(), strict=True))

    features, recognised, _ = recognition.step(tick_of(), {}, [[]])
    tick = context.embed([], context.project(features, recognised, [0])[0])
    pairs = {}
    for one, p in likeliest(context.forward({0: tick})[0][-1].clone()).items():
        after = context.forward({0: context.embed([one])})[0][-1].clone()
        kv_cache.rollback(context.cache, 0, 1)
        pairs |= {(one, two): p * q for two, q in likeliest(after).items()}
    context.cache, recognition.feature_state, recognition.encoder_state = states
    return pairs


def test_a_draft_that_does_not_gain_is_turned_off():
    config = AgentConfig(cancel_echo=False, min_draft_probability=0.0, draft_trial_ticks=10)
    agent = drafted_agent(1, TurnPolicy(symbols_per_tick=3), config, noise=5.0, seed=1)
    talk(agent, 12, {0: 0})
    counts = agent.speculation.counts
    assert counts.is_draft_off and counts.calls_saved == 0  # it was always wrong
    drafted = counts.drafted
    agent.close(0)
    talk(agent, 5, {0: 0})
    assert counts.drafted == drafted


def test_a_draft_that_fails_is_turned_off_and_nobody_notices():
    config = AgentConfig(cancel_echo=False, min_draft_probability=0.0, temperature=1.0)
    plain = plain_agent(2, POLICY, config)
    drafted = drafted_agent(2, POLICY, config)
    forward = drafted.parts.draft.forward
    calls = []

    def breaks(*inputs):
        calls.append(inputs)
        if len(calls) > 10:
            raise RuntimeError("no more memory")
        return forward(*inputs)

    drafted.parts.draft.forward = breaks
    assert talk(plain, 60, {0: 0, 1: 2}) == talk(drafted, 60, {0: 0, 1: 2})
    assert drafted.speculation.counts.is_draft_off and len(calls) == 11


def test_metrics_tell_what_the_draft_does():
    agent = drafted_agent(1, POLICY, CONFIG)
    talk(agent, 40, {0: 0})
    figures = agent.metrics()
    accepted = sum(figures["guesses_right"].values())
    assert agent.speculation.counts.accepted <= accepted < sum(figures["guesses"].values())
    assert figures["draft_on"] == 1 and figures["lm_calls"] == agent.context.counts.calls
    assert figures["talker_calls"] == agent.response.synthesizer.calls
