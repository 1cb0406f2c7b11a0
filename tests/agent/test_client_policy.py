"""What one client may want otherwise: the policy made of it, and the rules that obey it."""

from dataclasses import replace

import numpy as np
import pytest

from duplex.agent import TurnPolicy
from duplex.agent.client_policy import for_client
from duplex.agent.hearing.pending_words import PendingToken
from duplex.agent.turn_policy import Observation, allowed, hears_out, next_for_request, pause_voice
from duplex.events import TurnTaking
from duplex.model.tokens import AGENT, ASIDE, END, STOP, USER, USER_END
from tests.tiny_speech_agent import scripted_agent, text, tick_of

POLICY = TurnPolicy()
# The user has said something, and has been silent for long enough.
SAID = Observation(
    stream=USER, user_open=True, silence_ticks=15, ticks_since_user_token=12, max_confidence=1.0
)
# The same while the agent speaks.
OVER = replace(SAID, agent_open=True, queued_s=0.5, is_speaking=True)


def test_nothing_wanted_changes_nothing():
    assert for_client(POLICY, TurnTaking()) == POLICY


@pytest.mark.parametrize(
    ("eagerness", "early_end_ticks", "timeout"),
    [("low", 28, 40), ("auto", 14, 20), ("high", 7, 10)],
)
def test_eagerness_moves_the_patience(eagerness, early_end_ticks, timeout):
    policy = for_client(POLICY, TurnTaking(eagerness=eagerness))
    assert (policy.early_end_ticks, policy.end_timeout_ticks) == (early_end_ticks, timeout)


@pytest.mark.parametrize(("silence_ms", "ticks"), [(0, 3), (200, 3), (500, 7), (4_000, 50)])
def test_silence_is_never_shorter_than_the_agents_own(silence_ms, ticks):
    policy = for_client(POLICY, TurnTaking(silence_ms=silence_ms))
    assert policy.end_silence_ticks == ticks <= policy.end_timeout_ticks


def test_user_turn_ends_only_on_request():
    policy = for_client(POLICY, TurnTaking(ends_turns=False))
    late = replace(SAID, ticks_since_user_token=500)
    assert allowed(SAID, POLICY).has(USER_END) and allowed(late, POLICY).has(USER_END)
    for seen in (SAID, late):
        choice = allowed(seen, policy)
        assert not choice.has(USER_END) and not choice.has(ASIDE)
    assert next_for_request(USER_END, SAID, policy) == (USER_END, None)
    assert next_for_request(AGENT, SAID, policy) == (USER_END, AGENT)


def test_answer_begins_only_on_request():
    policy = for_client(POLICY, TurnTaking(answers=False))
    due = Observation(answer_due=True, silence_ticks=20)
    assert allowed(due, POLICY).has(AGENT) and not allowed(due, policy).has(AGENT)
    assert next_for_request(AGENT, due, policy) == (AGENT, None)
    # A turn that has begun goes on.
    assert allowed(replace(OVER, stream=AGENT), policy).has(END)


def test_agent_does_not_yield_where_it_shall_not():
    policy = for_client(POLICY, TurnTaking(yields=False))
    assert allowed(OVER, POLICY).has(STOP) and not allowed(OVER, policy).has(STOP)
    assert allowed(OVER, policy).has(USER_END)
    assert next_for_request(STOP, OVER, policy) == (STOP, None)
    loud = replace(OVER, near_ticks=5)
    assert pause_voice(loud, POLICY) and not pause_voice(loud, policy)


def test_request_waits_for_what_was_said():
    asked = replace(SAID, hearing_out_ticks=1)
    assert next_for_request(AGENT, asked, POLICY) == (USER_END, AGENT)
    for change in (
        {"certain_confidence": 0.9},
        {"silence_ticks": 1},
        {"has_uncommitted": True},
        {"second_pass_ticks": 2},
    ):
        seen = replace(asked, **change)
        assert hears_out(seen, POLICY)
        assert next_for_request(AGENT, seen, POLICY) == (None, AGENT)
        assert next_for_request(USER_END, seen, POLICY) == (None, USER_END)
        # But not for ever, and not where the client wants it now.
        for ticks in (POLICY.max_hearing_out_ticks, Observation().hearing_out_ticks):
            assert not hears_out(replace(seen, hearing_out_ticks=ticks), POLICY)


def test_end_of_a_turn_that_is_none_is_forgotten():
    assert next_for_request(USER_END, Observation(silence_ticks=9), POLICY) == (None, None)


def run(agent, ticks: int, word: str = "") -> list:
    """Events of some ticks, in each of which the word may be transcribed."""
    told = []
    session = agent.sessions[0]
    for _ in range(ticks):
        session.user.pending.tokens = [PendingToken(session.tick, s, 0.3) for s in text(word)]
        told += agent.step(tick_of(), [0])[1][0]
    return told


def kinds(events: list) -> list[str]:
    return [event.kind for event in events]


def test_push_to_talk_with_a_whole_agent():
    agent, _ = scripted_agent([USER, *text(" hi")], symbols_per_tick=2)
    agent.open(0)
    agent.take_turns(0, TurnTaking(ends_turns=False, answers=False, yields=False))
    told = kinds(run(agent, 30, " hi"))
    assert "heard" in told and "user_ended" not in told
    agent.end_turn(0)
    assert "user_ended" in kinds(run(agent, POLICY.max_hearing_out_ticks + 2))
    assert run(agent, 30) == []
    agent.answer(0, hears_out=True)
    assert kinds(run(agent, 2)) == ["agent_started"]


def test_request_to_answer_is_dropped_while_the_agent_speaks():
    agent, _ = scripted_agent([AGENT, *text("Yes, so it is.")], max_turn_tokens=8)
    agent.open(0)
    agent.sessions[0].answer_due = True
    assert kinds(run(agent, 1))[0] == "agent_started"
    agent.answer(0, hears_out=True)
    told = kinds(run(agent, 20))
    assert told.count("agent_ended") == 1 and "agent_started" not in told


def test_a_turn_that_neither_grows_nor_sounds_ends():
    """Of an LM that only waits; a voice that is still heard keeps it open."""
    agent, _ = scripted_agent([AGENT, *text("Yes")], symbols_per_tick=2)
    agent.open(0)
    agent.sessions[0].answer_due = True
    told = run(agent, POLICY.max_idle_turn_ticks)
    assert kinds(told)[-1] == "said"
    told = run(agent, 40)
    assert kinds(told)[-1] == "agent_ended" and "said" not in kinds(told)


def test_abandoned_turn_is_forgotten():
    agent, _ = scripted_agent([USER, *text(" hi")], symbols_per_tick=2)
    agent.open(0)
    run(agent, 6, " hi")
    positions = [position for position, _ in agent.sessions[0].user.transcribed]
    assert positions
    forgotten = []
    agent.recognition.reset = forgotten.append
    agent.abandon_turn(0)
    assert forgotten == [0]
    assert not np.isin(agent.context.cache.position[0], positions).any()
    [ended] = [event for event in run(agent, 1) if event.kind == "user_ended"]
    assert ended.to == "other" and not agent.sessions[0].answer_due


def test_words_are_only_told_where_they_shall_not_be_spoken():
    agent, _ = scripted_agent([AGENT, *text("Yes it is."), END], symbols_per_tick=2)
    agent.open(0)
    agent.take_turns(0, TurnTaking(speaks=False))
    agent.sessions[0].answer_due = True
    told = run(agent, 14)
    assert "".join(event.text for event in told if event.kind == "said") == "Yes it is."
    assert kinds(told)[0] == "agent_started" and kinds(told)[-1] == "agent_ended"
    assert "spoken" not in kinds(told) and not agent.response.synthesis_state.slots[0].is_paused
    assert agent.response.synthesizer.calls == 0


def test_question_that_was_written_is_answered_only_on_request():
    agent, _ = scripted_agent([], symbols_per_tick=2)
    agent.open(0)
    agent.write(0, "user", "hi", is_answered=False)
    assert run(agent, 8) == []
    agent.answer(0, hears_out=True)
    assert kinds(run(agent, 8)) == ["agent_started"]


def test_asked_answer_does_not_begin_by_itself_before_all_is_heard():
    agent, script = scripted_agent([], symbols_per_tick=2)
    agent.open(0)
    agent.answer(0, hears_out=True)
    for _ in range(POLICY.max_hearing_out_ticks - 1):
        # The LM wants to answer, and somebody has just spoken.
        script.symbols = [AGENT]
        agent.sessions[0].user.activity.silence_ticks = 0
        assert run(agent, 1) == []
