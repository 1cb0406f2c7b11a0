"""All slots at once decide what the rules of turn_policy.py decide, slot by slot."""

from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from duplex.agent import AgentConfig, TurnPolicy, slot_decisions, turn_policy
from duplex.agent.choosing import choose
from duplex.agent.hearing import pending_words
from duplex.agent.hearing.pending_words import PendingToken
from duplex.agent.session import Session, observe, surely_waits
from duplex.agent.slot_decisions import Asked, decide, row, unpack
from duplex.agent.turn_policy import LONG_AGO, Allowed, Observation, Text
from duplex.model.sampling import draw
from duplex.model.tokens import (
    AGENT,
    ASIDE,
    END,
    FIRST_TEXT_ID,
    NEXT,
    OVER,
    STOP,
    USER,
    USER_END,
    Grammar,
)

ROWS = 1500
PENDING = 4
# Where a rule's bound lies, and around it.
TICKS = (0, 1, 2, 3, 4, 7, 8, 14, 20, 21, 25, 26, 41, 64, 130, LONG_AGO)
SHARES = (0.0, 0.2, 0.5, 0.9, 0.985, 1.0)
SECONDS = (0.0, 0.0, 0.3, 1.2, 1.3)


def random_seen(rng: np.random.Generator) -> Observation:
    """Anything a session may look like, and more."""
    drawn = {}
    for field in fields(Observation):
        if field.type is bool:
            drawn[field.name] = bool(rng.random() < 0.35)
        elif field.type is float:
            drawn[field.name] = rng.choice(SECONDS if field.name == "queued_s" else SHARES).item()
        else:
            drawn[field.name] = int(rng.choice(TICKS))
    streams = [USER] * drawn["user_open"] + [AGENT] * drawn["agent_open"]
    stream = int(rng.choice(streams)) if streams else turn_policy.NOBODY
    if rng.random() < 0.5:  # the rules of a plain turn are hidden by rare ones otherwise
        drawn |= dict.fromkeys(("is_unheeded", "awaits_speaker", "awaits_thought"), False)
        drawn |= {"second_pass_ticks": 0, "max_confidence": 1.0, "is_backchannel": False}
    return Observation(**drawn | {"stream": stream})


def random_session(rng: np.random.Generator) -> tuple[Session, Observation]:
    """A session, with recognised words, and what is seen of it."""
    own = {name: bool(rng.random() < 0.8) for name in ("ends_turns", "answers_unasked", "yields")}
    backchannels = bool(rng.random() < 0.3)
    policy = TurnPolicy(**own, gives_backchannels=backchannels, min_confidence_first=0.5)
    session = Session(policy, seed=int(rng.integers(1000)), tick=int(rng.integers(1000)))
    session.temperature = float(rng.choice([0.0, 0.7, 1.5]))
    session.budget.drawn = int(rng.integers(6))
    seen = random_seen(rng)
    if seen.has_pending:
        tokens = rng.integers(FIRST_TEXT_ID, FIRST_TEXT_ID + 30, rng.integers(1, PENDING + 1))
        session.user.pending.tokens = [
            PendingToken(0, int(token), float(rng.choice(SHARES))) for token in tokens
        ]
    certain = pending_words.certain_confidence(session.user.pending, policy)
    session.grammar = Grammar(seen.stream or None, seen.user_open, seen.agent_open)
    return session, replace(seen, certain_confidence=certain)


def asked_of(cases: list[tuple[Session, Observation]]) -> Asked:
    """The same as tensors."""
    pending = np.zeros((2, len(cases), PENDING))
    for place, (session, _) in enumerate(cases):
        found = pending_words.writable_tokens(session.user.pending, session.policy)
        pending[0, place, : len(found)] = list(found)
        pending[1, place, : len(found)] = list(found.values())
    sessions = [session for session, _ in cases]
    return Asked(
        torch.from_numpy(np.stack([row(seen, session.policy) for session, seen in cases])),
        torch.from_numpy(pending[0]).long(),
        torch.from_numpy(pending[1]),
        torch.tensor([session.temperature for session in sessions]),
        torch.tensor([session.seed for session in sessions]),
        torch.tensor([session.tick for session in sessions]),
        torch.tensor([session.budget.drawn for session in sessions]),
    )


def test_who_surely_waits_may_do_nothing_else():
    """Whatever else is true of the session; and of those who may do nothing else most are found."""
    rng = np.random.default_rng(4)
    counts: Counter = Counter()
    for _ in range(4 * ROWS):
        session, seen = random_session(rng)
        user = session.user
        user.activity.silence_ticks = min(seen.silence_ticks, 30)
        user.activity.segment_ticks = seen.segment_ticks
        user.last_token_tick = session.tick - min(seen.ticks_since_user_token, 50)
        user.pending.max_confidence = seen.max_confidence
        user.pending.tokens = user.pending.tokens[: rng.integers(3)]
        user.is_backchannel = seen.is_backchannel
        session.people.is_heeded = [True, False, None][rng.integers(3)]
        session.answer_due = seen.answer_due
        session.mind.is_dictating = seen.is_dictated
        session.mind.has_given_up = seen.has_thought
        session.reply.tokens = [(0, 0)] * min(seen.agent_tokens, 70)
        only = turn_policy.allowed(observe(session, seen.queued_s, session.policy), session.policy)
        counts[surely_waits(session, seen.queued_s), only.is_only_waiting] += 1
    assert not counts[True, False]
    assert counts[True, True] > counts[False, True] and counts[False, False] > 100, counts


@pytest.fixture(params=range(3))
def cases(request) -> list[tuple[Session, Observation]]:
    rng = np.random.default_rng(request.param)
    return [random_session(rng) for _ in range(ROWS)]


def test_the_same_may_come_and_is_favoured(cases):
    seen, policy = unpack(asked_of(cases).rules)
    choice = slot_decisions.allowed(seen, policy)
    added = slot_decisions.bias(seen, policy)
    for place, (session, one) in enumerate(cases):
        controls, text, *flags = (part[place].item() for part in choice)
        found = Allowed(controls, Text(text), *flags)
        assert found == turn_policy.allowed(one, session.policy), one
        assert added[place].tolist() == turn_policy.bias(one, session.policy)


def test_the_same_symbols_are_drawn(cases):
    generator = torch.Generator().manual_seed(1)
    scores = 3 * torch.randn(ROWS, FIRST_TEXT_ID + 40, generator=generator)
    config = AgentConfig()
    expected = []
    for (session, seen), one in zip(cases, scores, strict=True):
        choice = turn_policy.allowed(seen, session.policy)
        expected.append(choose(session, one.clone(), seen, session.policy, choice, config))
    symbols = decide(scores, asked_of(cases), config.top_k).tolist()
    assert symbols == expected
    kinds = Counter("text" if symbol >= FIRST_TEXT_ID else symbol for symbol in symbols)
    assert all(kinds[kind] > 3 for kind in ("text", USER, USER_END, AGENT, END, STOP, ASIDE)), kinds


@pytest.mark.parametrize(
    ("changes", "sureness", "symbol"),
    [
        ({}, 1.5, NEXT),  # at once it must be surer
        ({}, 2.5, USER_END),
        ({"silence_ticks": 12}, 1.5, USER_END),  # most pauses are shorter
        ({"silence_ticks": 2}, 9.0, NEXT),
        ({"has_pending": True}, 9.0, NEXT),  # a word is to be written first
        ({"second_pass_ticks": 1}, 9.0, NEXT),
        ({"agent_open": True}, 9.0, NEXT),  # whether it yields is another question
        ({"is_far": True}, 2.5, ASIDE),  # the LM says for whom it was
    ],
)
def test_who_has_surely_said_all_is_answered(changes, sureness, symbol):
    policy = TurnPolicy(over_at_once=2.0)
    seen = Observation(USER, user_open=True, silence_ticks=3, max_confidence=1.0)
    seen = replace(seen, **changes)
    session = Session(policy, 0)
    session.grammar = Grammar(USER, True, seen.agent_open)
    session.temperature = 0.0
    scores = torch.full((FIRST_TEXT_ID,), -20.0)
    scores[[NEXT, USER_END, ASIDE, OVER]] = torch.tensor([5.0, 0.0, -3.0, sureness])
    asked = asked_of([(session, seen)])
    choice = turn_policy.allowed(seen, policy)
    assert choose(session, scores.clone(), seen, policy, choice, AgentConfig()) == symbol
    assert decide(scores[None], asked, 30).tolist() == [symbol]


def test_rows_decide_as_each_would_alone_in_any_order(cases):
    scores = torch.randn(ROWS, FIRST_TEXT_ID + 40, generator=torch.Generator().manual_seed(2))
    asked = asked_of(cases)
    together = decide(scores, asked, 30)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(3))
    shuffled = decide(scores[order], Asked(*(part[order] for part in asked)), 30)
    assert shuffled.tolist() == together[order].tolist()
    alone = [decide(scores[i, None], Asked(*(part[i, None] for part in asked)), 30) for i in (0, 9)]
    assert torch.cat(alone).tolist() == together[[0, 9]].tolist()


def test_the_same_draws_for_the_same_counters(cases):
    asked = asked_of(cases)
    rows = draw(asked.seed, asked.tick, asked.number).tolist()
    assert rows == [draw(s.seed, s.tick, s.budget.drawn) for s, _ in cases]
