"""A response is drafted before the user's turn has ended, as it would begin in the next tick."""

from dataclasses import replace

import pytest
import torch

from duplex.agent import Agent, AgentConfig, TurnPolicy
from duplex.agent.hearing.pending_words import PendingToken
from duplex.agent.session import Session
from duplex.agent.speculation import extended
from duplex.events import TurnTaking
from duplex.model.asr.encoder import BLANK
from duplex.model.tokens import AGENT, FIRST_TEXT_ID, NEXT, USER, USER_END, Grammar
from tests.tiny_speech_agent import text, tick_of, tiny_agent

POLICY = TurnPolicy(wait_penalty=2.0)
CONFIG = AgentConfig(cancel_echo=False, lookahead_budget_s=60.0)
DRAFTED = CONFIG.draft_response_tokens


def waiting_agent(symbols: list[int]) -> tuple[Agent, Session]:
    """An agent in the silence after a user's words, which samples these symbols."""
    agent = tiny_agent(1, POLICY, CONFIG)
    agent.parts.encoder.phones.bias.data[BLANK] = 99.0  # nothing is recognised
    agent.open(0)
    agent.reset_counts()  # without the calls for the instructions
    session = agent.sessions[0]
    session.grammar = Grammar(USER, user_open=True)
    session.answer_due = True
    session.user.activity.silence_ticks = POLICY.end_silence_ticks
    session.user.activity.peak_db = 0.0
    agent.decoder.sample = lambda *_: symbols.pop(0)
    return agent, session


def test_a_drafted_response_needs_one_call():
    symbols = [NEXT]
    agent, session = waiting_agent(symbols)
    agent.step(tick_of(), [0])
    draft = session.budget.draft_response
    counts = agent.context.counts
    assert len(draft) == DRAFTED and counts.calls >= DRAFTED  # one of them costs nothing
    position = int(agent.context.cache.next_position[0])
    calls = counts.calls
    said = [USER_END, AGENT, *draft]
    symbols[:] = [*said, NEXT]
    agent.step(tick_of(), [0])
    assert counts.calls == calls + 1 and session.budget.drawn == len(said)
    assert int(agent.context.cache.next_position[0]) == position + 1 + len(said)
    assert session.reply.text == "".join(agent.tokenizer.decode([token]) for token in draft)
    assert not session.budget.draft_response


def test_the_draft_is_the_response_of_the_next_tick():
    """What would be said if the turn ended then, and that tick were like this one."""
    symbols = [NEXT, USER_END, AGENT, NEXT]
    agent, session = waiting_agent(symbols)
    vector = torch.randn(1, agent.context.width)
    project = agent.context.project
    agent.context.project = lambda *what: project(*what) * 0 + vector
    agent.step(tick_of(), [0])
    draft = session.budget.draft_response
    forward = agent.context.forward
    fed = []
    agent.context.forward = lambda *given, **more: fed.append(forward(*given, **more)) or fed[-1]
    agent.step(tick_of(), [0])
    agent.context.forward = forward
    states = [fed[0][0][2]]  # after the turn's end
    for token in draft[:-1]:
        states.append(agent.context.forward({0: agent.context.embed([token])})[0][-1])
    scores = agent.parts.lm.logits(torch.stack(states))[:, FIRST_TEXT_ID:]
    assert draft == (scores.argmax(1) + FIRST_TEXT_ID).tolist() and not symbols


@pytest.mark.parametrize("config", [replace(CONFIG, lookahead_budget_s=0.0), None])
def test_a_draft_costs_no_call_where_there_is_no_time_or_a_word_is_to_come(config):
    agent, session = waiting_agent([NEXT])
    if config:
        agent.config = agent.speculation.config = config
    else:
        agent.speculation.has_uncommitted = lambda beam: True
    agent.step(tick_of(), [0])
    assert len(session.budget.draft_response) == agent.context.counts.calls == 1


@pytest.mark.parametrize(("best", "draft"), [("abd", "abd"), ("adb", "ad"), ("cbd", "c")])
def test_a_draft_is_kept_as_far_as_it_is_still_the_likeliest(best, draft):
    """It was "ab"; other tokens are likeliest now after the turn's end and each token."""
    assert extended(text("ab"), text(best)) == text(draft)


@pytest.mark.parametrize(
    ("grammar", "pending", "silence", "proposals"),
    [
        (Grammar(), [(1, 0.9)], 0, [USER, 1]),
        (Grammar(USER, user_open=True), [(1, 0.9)], 0, [1]),
        (Grammar(USER, user_open=True), [(1, 0.4)], 0, []),
        (Grammar(), [(1, 0.9), (2, 0.3), (3, 0.8), (4, 0.9)], 0, [USER, 1, 3]),
        (Grammar(USER, user_open=True), [], 2, []),
        (Grammar(USER, user_open=True), [], 3, [USER_END, AGENT, 7]),
        (Grammar(USER, user_open=True, agent_open=True), [], 3, []),
        (Grammar(), [], 3, []),
    ],
)
def test_what_is_all_but_certain_is_proposed(grammar, pending, silence, proposals):
    agent, session = waiting_agent([])
    session.grammar = grammar
    session.user.pending.tokens = [PendingToken(0, token, p) for token, p in pending]
    session.user.activity.silence_ticks = silence
    session.budget.draft_response = [7]
    assert agent.speculation.propose_certain(session) == proposals


def test_an_answer_that_is_asked_for_is_proposed():
    agent, session = waiting_agent([])
    session.client.request = AGENT
    session.grammar = Grammar()
    assert agent.speculation.propose_certain(session) == [AGENT]
    session.grammar = Grammar(USER, user_open=True)
    assert agent.speculation.propose_certain(session)[0] == USER_END


def test_n_grams_draft_a_response_where_nothing_is_looked_ahead():
    """The first token is the LM's, which has read the turn's end; the others follow it mostly."""
    symbols = [NEXT]
    agent, session = waiting_agent(symbols)
    agent.config = agent.speculation.config = replace(CONFIG, lookahead_budget_s=0.0)
    agent.speculation.ngrams = FollowsItself()
    agent.step(tick_of(), [0])
    draft = session.budget.draft_response
    assert len(draft) == DRAFTED and agent.context.counts.calls == 1
    assert draft == [draft[0] + i for i in range(DRAFTED)]
    symbols[:] = [USER_END, AGENT, *draft, NEXT]
    agent.step(tick_of(), [0])
    assert agent.context.counts.calls == 2 and session.budget.drawn == 2 + DRAFTED


class FollowsItself:
    """Expects after each token the one with the next number."""

    def continuation(self, turn, words, most, is_worth):
        return [(turn[-1] + 1 + i, 0.9) for i in range(most)]


def test_written_words_wait_for_no_voice():
    """A tick may have as many of them as an onset."""
    agent = tiny_agent(1, POLICY, CONFIG)
    agent.open(0)
    agent.take_turns(0, TurnTaking(speaks=False))
    assert agent.sessions[0].policy.silent_symbols == POLICY.onset_symbols
    agent.take_turns(0, TurnTaking())
    assert agent.sessions[0].policy.silent_symbols == POLICY.silent_symbols


def written_answer(lookup_tokens: int, turns: int = 4) -> tuple[list, Agent]:
    """Events of an agent that answers in writing alone, and which repeats itself."""
    config = replace(CONFIG, lookup_tokens=lookup_tokens)
    agent = tiny_agent(1, POLICY, config, seed=3)
    agent.open(0, instructions="hello you, hello you")
    agent.take_turns(0, TurnTaking(speaks=False))
    agent.reset_counts()
    told = []
    for _ in range(turns):
        agent.write(0, "user", "hello you, hello")
        agent.answer(0)
        for _ in range(40):
            told += agent.step(tick_of(), [0])[1][0]
    return told, agent


def test_what_is_looked_up_saves_calls_and_changes_nothing():
    plain, without = written_answer(0)
    told, looked_up = written_answer(3)
    assert told == plain and sum(event.kind == "said" for event in told) > 20
    assert looked_up.context.counts.calls < without.context.counts.calls
    outcomes = looked_up.speculation.counts.outcomes
    assert {key[0] for key in outcomes} >= {"lookup"}
    assert not any(key[0] == "lookup" for key in without.speculation.counts.outcomes)


def test_what_is_looked_up_in_vain_is_no_longer_proposed():
    """By the length of the match: a long one may still hold."""
    agent = tiny_agent(1, POLICY, CONFIG)
    agent.open(0)
    session = agent.sessions[0]
    session.grammar = Grammar(AGENT, agent_open=True)
    session.text = text(" hi you hi")
    assert agent.speculation.guess(session, 2) == text(" y")
    [guess] = {*session.budget.guesses}
    agent.speculation.counts.shares[guess] = [3, 20]
    assert agent.speculation.guess(session, 2) == []
    agent.speculation.counts.shares[guess] = [7, 20]
    assert agent.speculation.guess(session, 2) == text(" y")
    session.mind.is_dictating = True
    assert agent.speculation.guess(session, 2) == []
