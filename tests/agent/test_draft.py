"""Speculative decoding with n-grams of the agent's turns draws what decoding without it draws."""

import copy
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from duplex.agent import Agent, AgentConfig, TurnPolicy
from duplex.audio import TICK_SAMPLES
from duplex.model import kv_cache
from duplex.model.tokens import AGENT, END, FIRST_TEXT_ID, NEXT, Grammar, allowed_mask
from tests.tiny_speech_agent import drafted_agent, tick_of, tiny_parts

pytestmark = pytest.mark.slow

CHI_SQUARE_9_DEGREES = 27.9  # exceeded once in a thousand times by chance
POLICY = TurnPolicy(symbols_per_tick=3, wait_penalty=2.0)
CONFIG = AgentConfig(cancel_echo=False, min_guess_share=0.0)


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


def turns_of(agent: Agent, *conversation) -> tuple[list, list[list[int]]]:
    """The events of a talk, and the agent's turns in it as tokens from <agent> on."""
    turns: list[list[int]] = []
    last: dict[int, list[int]] = {}
    apply_symbol = agent.decoder.apply_symbol

    def note(slot, session, symbol, position, events):
        stream = session.grammar.stream
        if symbol == AGENT and not session.grammar.agent_open:
            last[slot] = [AGENT]
            turns.append(last[slot])
        elif symbol == END or (stream == AGENT and symbol >= FIRST_TEXT_ID):
            last[slot].append(symbol)
        apply_symbol(slot, session, symbol, position, events)

    agent.decoder.apply_symbol = note
    return talk(agent, *conversation), turns


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
    config = replace(CONFIG, temperature=temperature)
    plain = plain_agent(slots, policy, replace(config, lookup_tokens=0))
    told, turns = turns_of(plain, 120, joins, leaves)
    # Twice as many that go on otherwise: some guesses are wrong.
    turns += [[AGENT, token, *turn[3:]] for turn in turns for token in turn[1:2]] * 2
    drafted = drafted_agent(slots, policy, replace(config, lookup_tokens=0), turns)
    assert talk(drafted, 120, joins, leaves) == told
    outcomes = drafted.speculation.counts.outcomes
    right = sum(n for (draft, _, _, held), n in outcomes.items() if draft == "ngrams" and held)
    every = sum(n for (draft, *_), n in outcomes.items() if draft == "ngrams")
    assert 0 < right < every
    assert drafted.context.counts.calls < plain.context.counts.calls
    lm = plain.parts.lm.config
    assert int(plain.context.cache.next_position.max()) > lm.text_window + lm.tick_window


def test_sampled_symbols_keep_their_distribution():
    """All pairs of first symbols of a turn, 4 choices each, against their probabilities."""
    policy = TurnPolicy(symbols_per_tick=2, wait_penalty=50.0)
    config = AgentConfig(cancel_echo=False, temperature=1.0, top_k=4, min_guess_share=0.0)
    likely = most_likely_pair(policy, config)
    agent = drafted_agent(1, policy, config, [[AGENT, *likely]], seed=3)
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
    accepted = agent.speculation.counts.by_kind()[1]
    assert accepted["speaking"] > 50 and set(draws) <= set(exact)
    top = sorted(exact, key=exact.get, reverse=True)[:9]
    cells = [(draws[pair], 600 * exact[pair]) for pair in top]
    others = 600 * (1 - sum(exact[pair] for pair in top))
    cells.append((600 - sum(draws[pair] for pair in top), others))
    assert sum((got - wanted) ** 2 / wanted for got, wanted in cells) < CHI_SQUARE_9_DEGREES


def most_likely_pair(policy: TurnPolicy, config: AgentConfig) -> tuple[int, int]:
    agent = Agent(tiny_parts(3), 1, config, policy)
    agent.open(0, seed=0)
    agent.sessions[0].grammar = Grammar(AGENT, False, True)
    pairs = pair_probabilities(agent)
    return max(pairs, key=pairs.get)


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


def test_a_draft_that_is_mostly_wrong_is_asked_no_more():
    """By how sure it is: it was sure of what never came."""
    config = replace(CONFIG, min_guess_share=0.3, lookup_tokens=0)
    never = FIRST_TEXT_ID + 3
    agent = drafted_agent(1, POLICY, config, [[AGENT, *[never] * 9]] * 20)
    agent.open(0)
    session = agent.sessions[0]
    session.grammar = Grammar(AGENT, agent_open=True)
    assert agent.speculation.guess(session, 3) == [never] * 3
    sure = session.budget.guesses[0]
    for _ in range(9):
        agent.speculation.counts.note(sure, False)
    made = [bool(agent.speculation.guess(session, 3)) for _ in range(2 * config.retried_guesses)]
    assert not made[0] and 1 <= sum(made) <= 4, "only now and then, for the text may have changed"
    for _ in range(9):
        agent.speculation.counts.note(sure, True)
    assert agent.speculation.guess(session, 3)


def test_metrics_tell_what_the_draft_does():
    _, turns = turns_of(plain_agent(1, POLICY, CONFIG), 40, {0: 0})
    agent = drafted_agent(1, POLICY, CONFIG, turns)
    talk(agent, 40, {0: 0})
    figures = agent.metrics()
    assert 0 < sum(figures["guesses_right"].values()) < sum(figures["guesses"].values())
    assert figures["lm_calls"] == agent.context.counts.calls
    assert figures["talker_calls"] == agent.response.synthesizer.calls
