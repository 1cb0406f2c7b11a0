"""The addressee head is asked while somebody speaks, and its answer decides for whom a turn is."""

from dataclasses import replace

import pytest
import torch

from duplex import checkpoint
from duplex.agent import addressee
from duplex.agent.choosing import choose
from duplex.agent.config import AgentConfig
from duplex.agent.hearing import people
from duplex.agent.hearing.people import People
from duplex.agent.hearing.speakers import SpeakerPolicy
from duplex.agent.loader import load_addressee
from duplex.agent.session import Session
from duplex.agent.turn_policy import Observation, TurnPolicy, bias
from duplex.errors import WeightsError
from duplex.events import Event
from duplex.model.addressee import AddresseeConfig, AddresseeHead, load_addressee_head
from duplex.model.tokens import ASIDE, FIRST_TEXT_ID, NEXT, USER, USER_END, Grammar

POLICY = TurnPolicy()
ENDED = Observation(
    stream=USER,
    user_open=True,
    silence_ticks=30,
    ticks_since_user_token=8,
    transcribed_words=3,
    max_confidence=1.0,
)


def tiny_head() -> AddresseeHead:
    torch.manual_seed(0)
    return AddresseeHead(AddresseeConfig(12, len(addressee.KNOWN), 4)).eval()


def chosen(seen: Observation, **scores: float) -> int:
    given = torch.full((FIRST_TEXT_ID,), -20.0)
    for name, score in scores.items():
        given[{"next": NEXT, "end": USER_END, "aside": ASIDE}[name]] = score
    session = Session(POLICY, grammar=Grammar(USER, True, seen.agent_open))
    return choose(session, given, seen, POLICY, AgentConfig())


@pytest.mark.parametrize("odds", [0.0, 3.0, -3.0])
def test_it_says_for_whom_a_turn_is_that_ends(odds):
    seen = replace(ENDED, for_agent=odds)
    expected = {0.0: ASIDE, 3.0: USER_END, -3.0: ASIDE}[odds]
    assert chosen(seen, end=-1.0, aside=-0.5, next=-4.0) == expected
    # When it ends is the LM's to say.
    assert chosen(seen, end=-9.0, aside=-9.5, next=-0.1) == NEXT


def test_where_it_is_asked_it_stands_for_the_penalty_of_far_voices():
    seen = replace(ENDED, is_far=True)
    assert bias(seen, POLICY)[USER_END] == -POLICY.far_penalty
    assert bias(replace(seen, for_agent=1.5), POLICY)[USER_END] == 0.0


def test_it_is_asked_of_words_and_while_the_agent_is_silent():
    head = tiny_head()
    state = torch.randn(12)
    assert addressee.log_odds(head, state, ENDED) != 0
    silenced = {"user_open": False}, {"transcribed_words": 0}
    for change in (*silenced, {"agent_open": True}, {"queued_s": 0.5}):
        assert addressee.log_odds(head, state, replace(ENDED, **change)) == 0


def test_what_never_happened_counts_as_long_ago():
    head = tiny_head()
    head.most.copy_(torch.tensor(list(addressee.KNOWN.values())))
    state = torch.randn(12)
    never = addressee.log_odds(head, state, ENDED)
    ticks = int(addressee.KNOWN["ticks_since_agent_word"])
    long_ago = replace(ENDED, ticks_since_agent_word=ticks)
    assert never == addressee.log_odds(head, state, long_ago)
    just_now = replace(ENDED, ticks_since_agent_word=3)
    assert never != addressee.log_odds(head, state, just_now)


def test_a_head_is_read_as_it_was_written(tmp_path):
    head = tiny_head()
    head.most.fill_(3.0)
    checkpoint.save(head.state_dict(), head.config, tmp_path)
    found = load_addressee_head(tmp_path)
    state, known = torch.randn(5, 12), torch.randn(5, len(addressee.KNOWN))
    assert torch.equal(found(state, known), head(state, known))


def test_a_voice_is_held_against_who_spoke_to_the_agent_last():
    policy = SpeakerPolicy()
    somebody = People()
    voices = torch.eye(2).numpy()

    def say(voice, to):
        for tick in range(30):
            people.hear(somebody, voices[voice], tick < 20, True, policy)
        found = somebody.partner_likeness
        people.mark(somebody, [Event("user_started", 0), Event("user_ended", 1, to=to)], 1, policy)
        return found

    assert say(0, "agent") == 0.0  # there was nobody yet
    assert say(0, "other") == pytest.approx(1.0)
    assert say(1, "other") == pytest.approx(0.0, abs=1e-6)
    assert say(1, "agent") == pytest.approx(0.0, abs=1e-6)
    assert say(1, "agent") == pytest.approx(1.0)


def test_a_head_of_another_version_is_refused(tmp_path):
    head = AddresseeHead(AddresseeConfig(12, len(addressee.KNOWN) + 1, 4))
    checkpoint.save(head.state_dict(), head.config, tmp_path)
    with pytest.raises(WeightsError, match="fit it anew"):
        load_addressee(tmp_path)
