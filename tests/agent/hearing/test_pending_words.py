"""Recognised words wait to be transcribed: order is kept, certain ones are not passed over."""

import pytest

from duplex.agent.hearing.pending_words import (
    PendingWords,
    certain_confidence,
    certain_tokens,
    has_fresh_certain,
    is_agent_echo,
    mark_all_transcribed,
    mark_transcribed,
    push_words,
    writable_tokens,
)
from duplex.agent.turn_policy import TurnPolicy

POLICY = TurnPolicy()


def waiting(*ticks: list[tuple[int, float]]) -> PendingWords:
    """What was recognised in ticks 0, 1, ..."""
    pending = PendingWords()
    for tick, recognised in enumerate(ticks):
        push_words(pending, tick, recognised, POLICY)
    return pending


def test_certain_tokens_come_in_order_and_are_not_passed_over():
    pending = waiting([(1, 0.3)], [(2, 0.9), (3, 0.8)])
    assert writable_tokens(pending, POLICY) == {1: 0.3, 2: 0.9}  # 1 may be left out, 3 waits for 2
    assert certain_confidence(pending, POLICY) == 0.9
    mark_transcribed(pending, 2)
    assert writable_tokens(pending, POLICY) == {3: 0.8}
    mark_transcribed(pending, 9)  # the LM knows better: it stands for the oldest
    assert writable_tokens(pending, POLICY) == {}
    mark_transcribed(pending, 9)  # and with nothing waiting nothing happens
    assert pending.tokens == [] and certain_confidence(pending, POLICY) == 0.0


def test_a_word_said_twice_is_transcribed_twice():
    pending = waiting([(7, 0.9), (7, 0.6)])
    mark_transcribed(pending, 7)
    assert writable_tokens(pending, POLICY) == {7: 0.6}


def test_what_was_not_transcribed_is_forgotten():
    pending = waiting([(1, 0.9)])
    push_words(pending, POLICY.forget_ticks - 1, [], POLICY)
    assert pending.tokens
    push_words(pending, POLICY.forget_ticks, [], POLICY)
    assert not pending.tokens


@pytest.mark.parametrize(
    ("confidence", "age", "fresh"), [(0.9, 3, True), (0.9, 4, False), (0.4, 0, False)]
)
def test_a_certain_token_is_fresh_for_a_while(confidence, age, fresh):
    assert has_fresh_certain(waiting([(1, confidence)]), age, POLICY) == fresh


@pytest.mark.parametrize(
    ("word", "is_echo"),
    [
        ("the", True),
        ("capital", True),
        ("capi", True),
        ("cap", False),
        ("i'm", False),
        ("tokyo", False),
        ("", False),
    ],
)
def test_the_agents_own_words_are_its_echo(word, is_echo):
    assert is_agent_echo(word, ["The", "capital", "is", "Paris."], POLICY) == is_echo


def test_only_certain_tokens_are_proposed():
    pending = waiting([(1, 0.9)], [(2, 0.4)], [(3, 0.6), (4, 0.2)])
    assert certain_tokens(pending, POLICY) == [1, 3]


def test_a_turn_that_is_rescored_is_no_more_confident():
    pending = waiting([(70, 0.3), (71, 0.4)])
    mark_all_transcribed(pending)
    assert pending.max_confidence == 0.4 and not pending.tokens
    mark_all_transcribed(pending)
    assert pending.max_confidence == 0.4
