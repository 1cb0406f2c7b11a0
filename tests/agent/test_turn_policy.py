"""The rules of turn-taking as tables: what is seen, what may follow, what is favoured."""

import math
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from duplex.agent.config import AgentConfig, MindConfig, RescoringConfig, SecondPassConfig
from duplex.agent.hearing.sounds import SoundPolicy
from duplex.agent.hearing.speakers import SpeakerPolicy
from duplex.agent.turn_policy import (
    LONG_AGO,
    NOBODY,
    PENDING_TEXT,
    Allowed,
    Observation,
    Text,
    TurnPolicy,
    allowed,
    bias,
    bits,
    grammatical,
    min_answer_confidence,
    next_for_request,
    pause_voice,
    symbol_budget,
)
from duplex.model.tokens import AGENT, ASIDE, BACK, END, NEXT, OVER, STOP, USER, USER_END

ROOT = Path(__file__).parents[2]
POLICY = TurnPolicy()
CONSTANTS = (
    TurnPolicy(),
    RescoringConfig(),
    SecondPassConfig(),
    MindConfig(),
    SpeakerPolicy(),
    SoundPolicy(),
)
QUIET = POLICY.end_silence_ticks
TIMEOUT = POLICY.end_timeout_ticks
READING = POLICY.max_second_pass_ticks

# Nobody speaks; the user's turn; the agent's; both.
IDLE = Observation(silence_ticks=100, ticks_since_user_token=100)
LISTENING = Observation(
    stream=USER, user_open=True, silence_ticks=QUIET, ticks_since_user_token=4, max_confidence=1.0
)
SPEAKING = replace(IDLE, stream=AGENT, agent_open=True, queued_s=0.5)
OVERLAP = replace(LISTENING, agent_open=True, queued_s=0.5)


@pytest.mark.parametrize(
    ("seen", "controls", "text"),
    [
        (IDLE, {NEXT}, Text.NONE),
        (replace(IDLE, has_pending=True), {NEXT, USER}, Text.NONE),
        (replace(IDLE, answer_due=True), {NEXT, AGENT}, Text.NONE),
        (replace(IDLE, answer_due=True, queued_s=1.3), {NEXT, STOP}, Text.NONE),
        (replace(IDLE, queued_s=0.1), {NEXT, STOP}, Text.NONE),
        (LISTENING, {NEXT, USER_END, ASIDE}, Text.NONE),
        (replace(LISTENING, has_pending=True), {NEXT, USER_END, ASIDE}, Text.PENDING),
        (replace(LISTENING, answer_due=True), {NEXT, USER_END, ASIDE}, Text.NONE),
        (SPEAKING, {NEXT, END, STOP}, Text.ANY),
        (replace(SPEAKING, has_pending=True), {NEXT, USER, END, STOP}, Text.ANY),
        (replace(SPEAKING, queued_s=1.3), {NEXT, STOP}, Text.NONE),
        (replace(SPEAKING, queued_s=1.2), {NEXT, END, STOP}, Text.ANY),
        (OVERLAP, {NEXT, USER_END, ASIDE, AGENT, STOP}, Text.NONE),
        (replace(OVERLAP, queued_s=1.3), {NEXT, USER_END, ASIDE, STOP}, Text.NONE),
    ],
)
def test_grammatical_symbols(seen, controls, text):
    assert grammatical(seen, POLICY) == Allowed(bits(*controls), text)


TELLING = replace(
    LISTENING, transcribed_words=POLICY.min_words_for_backchannel, silence_ticks=QUIET - 1
)


@pytest.mark.parametrize(
    ("seen", "may"),
    [
        (TELLING, True),
        (replace(TELLING, transcribed_words=1), False),
        (replace(TELLING, silence_ticks=POLICY.backchannel_pause_ticks - 1), False),
        (replace(TELLING, ticks_since_own_backchannel=POLICY.backchannel_gap_ticks - 1), False),
        (replace(TELLING, has_pending=True), False),
        (replace(TELLING, queued_s=0.1), False),
        (replace(TELLING, answer_due=True), False),
        (replace(TELLING, is_unheeded=True), False),
        (replace(TELLING, user_open=False, stream=NOBODY), False),
        (replace(TELLING, agent_open=True, queued_s=0.0), False),
    ],
)
def test_backchannels_are_given_in_pauses_of_long_turns(seen, may):
    willing = replace(POLICY, gives_backchannels=True, backchannel_bonus=2.0)
    assert grammatical(seen, willing).has(BACK) == may
    assert not grammatical(seen, POLICY).has(BACK)
    assert bias(seen, willing)[BACK] == 2.0


ENDS = {USER_END, ASIDE}
LATE = replace(LISTENING, silence_ticks=TIMEOUT + 1, ticks_since_user_token=TIMEOUT + 1)


@pytest.mark.parametrize(
    ("seen", "controls"),
    [
        # While somebody speaks, or a certain word waits, a turn does not end.
        (LISTENING, {NEXT, *ENDS}),
        (replace(LISTENING, silence_ticks=QUIET - 1), {NEXT}),
        (replace(LISTENING, has_pending=True, certain_confidence=0.7), {NEXT}),
        (replace(LISTENING, has_pending=True), {NEXT, *ENDS}),
        # After the timeout it must end, twice as late while words are to come.
        (LATE, ENDS),
        (replace(LATE, ticks_since_user_token=TIMEOUT), {NEXT, *ENDS}),
        (replace(LATE, segment_ticks=5, silence_ticks=QUIET), {NEXT, *ENDS}),
        (replace(LATE, segment_ticks=5, silence_ticks=0), {NEXT}),
        (replace(LATE, segment_ticks=5, silence_ticks=POLICY.speech_gap_ticks + 1), ENDS),
        (replace(LATE, segment_ticks=5, silence_ticks=0, ticks_since_user_token=41), ENDS),
        # A turn of which no word is confident is not answered.
        (replace(LISTENING, max_confidence=0.89), {NEXT, ASIDE}),
        (replace(LATE, max_confidence=0.0), {ASIDE}),
        # A turn that is read a second time ends no sooner than that is done, or takes too long.
        (replace(LISTENING, second_pass_ticks=1), {NEXT}),
        (replace(LISTENING, second_pass_ticks=READING), {NEXT}),
        (replace(LISTENING, second_pass_ticks=READING + 1), {NEXT, *ENDS}),
        (replace(LATE, second_pass_ticks=READING), {NEXT}),
        (replace(LATE, second_pass_ticks=READING + 1), ENDS),
        (replace(OVERLAP, second_pass_ticks=1), {NEXT, ASIDE, AGENT, STOP}),
        # Who is not heeded is written down, and no more.
        (replace(LISTENING, is_unheeded=True), {NEXT, ASIDE}),
        (replace(LATE, is_unheeded=True), {ASIDE}),
        (replace(OVERLAP, is_unheeded=True), {NEXT, ASIDE, AGENT}),
        # Before it is known who speaks nobody is yielded to; a turn may be too short to tell.
        (replace(OVERLAP, awaits_speaker=True, silence_ticks=0), {NEXT, AGENT}),
        (replace(LISTENING, awaits_speaker=True), {NEXT, *ENDS}),
        # There is nobody to yield to, and no end that could be found otherwise.
        (SPEAKING, {NEXT, END}),
        (replace(SPEAKING, ticks_since_agent_token=POLICY.max_idle_turn_ticks), {END}),
        (
            replace(
                SPEAKING,
                ticks_since_agent_token=POLICY.max_idle_turn_ticks,
                ticks_since_agent_word=POLICY.max_idle_turn_ticks - 1,
            ),
            {NEXT, END},
        ),
        (replace(SPEAKING, agent_tokens=POLICY.max_turn_tokens), {END}),
        (replace(SPEAKING, agent_tokens=POLICY.max_turn_tokens, queued_s=1.3), {NEXT}),
        # Beside the agent's voice the end of a turn for the agent is an interruption.
        (OVERLAP, {NEXT, ASIDE, AGENT, STOP}),
        (replace(OVERLAP, max_confidence=0.3), {NEXT, ASIDE, AGENT, STOP}),
        (replace(OVERLAP, silence_ticks=0), {NEXT, AGENT, STOP}),
        # Assent alone is passed over; while the agent says nothing it is an answer.
        (replace(OVERLAP, is_backchannel=True), {ASIDE}),
        (replace(OVERLAP, is_backchannel=True, silence_ticks=0), {NEXT, AGENT}),
        (replace(LISTENING, is_backchannel=True), {NEXT, *ENDS}),
    ],
)
def test_allowed_symbols(seen, controls):
    found = {symbol for symbol in range(17) if allowed(seen, POLICY).has(symbol)}
    assert found == controls


@pytest.mark.parametrize(
    ("seen", "end_stops"),
    [
        (OVERLAP, True),
        (LISTENING, False),
        (replace(OVERLAP, max_confidence=0.3), False),
        (replace(OVERLAP, silence_ticks=0), False),
        (replace(OVERLAP, silence_ticks=30, ticks_since_user_token=30), True),
    ],
)
def test_an_end_for_the_agent_stops_its_voice(seen, end_stops):
    assert allowed(seen, POLICY).end_stops == end_stops


@pytest.mark.parametrize(
    ("seen", "ends_aside"),
    [
        (replace(LISTENING, is_unheeded=True), True),
        (replace(LISTENING, is_unheeded=True, max_confidence=0.3), False),
        (replace(LISTENING, is_unheeded=True, silence_ticks=0), False),
        (LISTENING, False),
    ],
)
def test_an_end_for_the_agent_is_an_aside_of_who_is_not_heeded(seen, ends_aside):
    assert allowed(seen, POLICY).ends_aside == ends_aside


@pytest.mark.parametrize(
    ("seen", "waits"),
    [(IDLE, True), (replace(IDLE, has_pending=True), False), (LATE, False), (SPEAKING, False)],
)
def test_only_waiting(seen, waits):
    """A turn that can only end as an aside is not waiting, though one symbol alone is left."""
    assert allowed(seen, POLICY).is_only_waiting == waits
    assert not allowed(replace(LATE, max_confidence=0.0), POLICY).is_only_waiting


@pytest.mark.parametrize(
    ("silence", "since_token", "since_agent", "confidence"),
    [
        (QUIET, QUIET, 0, POLICY.min_confidence_reply),
        (QUIET, QUIET, POLICY.reply_window_ticks - 1, POLICY.min_confidence_reply),
        (QUIET, QUIET, POLICY.reply_window_ticks, POLICY.min_confidence_first),
        (QUIET, QUIET, LONG_AGO, POLICY.min_confidence_first),
        (QUIET - 1, QUIET, 0, POLICY.min_confidence_noise),
        (POLICY.max_word_delay_ticks, 0, 0, POLICY.min_confidence_reply),
        (POLICY.max_word_delay_ticks + 1, 0, 0, POLICY.min_confidence_noise),
    ],
)
def test_confidence_that_an_answer_needs(silence, since_token, since_agent, confidence):
    seen = replace(
        LISTENING,
        silence_ticks=silence,
        ticks_since_user_token=since_token,
        ticks_since_agent_word=since_agent,
    )
    assert min_answer_confidence(seen, POLICY) == confidence


SURE = replace(LISTENING, silence_ticks=POLICY.early_end_ticks, transcribed_words=3)
# What must be surer one tick before that.
ONE_TICK = POLICY.over_at_once / (POLICY.early_end_ticks - QUIET)
EARLY = POLICY.early_end_penalty
FAR = POLICY.far_penalty


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (SURE, {}),
        (
            replace(SURE, silence_ticks=POLICY.early_end_ticks - 1),
            {USER_END: -EARLY, ASIDE: -EARLY, OVER: -round(ONE_TICK, 9)},
        ),
        (replace(SURE, silence_ticks=QUIET, agent_open=True), {OVER: -POLICY.over_at_once}),
        (replace(SURE, transcribed_words=2), {STOP: -POLICY.backchannel_stop_penalty}),
        (replace(SURE, is_far=True), {STOP: -FAR, USER_END: -FAR}),
        (replace(SURE, certain_confidence=0.5), {NEXT: -3.0, PENDING_TEXT: 3.0}),
        (replace(SURE, stream=AGENT, certain_confidence=0.5), {NEXT: -3.0, USER: 3.0}),
        (replace(SURE, stream=NOBODY, certain_confidence=1.0), {NEXT: -6.0, USER: 6.0}),
    ],
)
def test_bias(seen, expected):
    added = bias(seen, POLICY)
    expected = {NEXT: 0.0} | expected
    expected[NEXT] -= POLICY.wait_penalty
    found = {place: round(nats, 9) for place, nats in enumerate(added) if nats}
    assert found == {place: nats for place, nats in expected.items() if nats}


@pytest.mark.parametrize(
    ("request_", "seen", "symbol", "remains"),
    [
        (None, SPEAKING, None, None),
        (STOP, SPEAKING, STOP, None),
        (STOP, IDLE, None, None),
        (AGENT, replace(IDLE, answer_due=True), AGENT, None),
        (AGENT, replace(LISTENING, answer_due=True, silence_ticks=0), USER_END, AGENT),
        (AGENT, replace(IDLE, answer_due=True, queued_s=1.3), NEXT, AGENT),
        (AGENT, SPEAKING, None, None),
        (AGENT, replace(LISTENING, answer_due=True, second_pass_ticks=1), USER_END, AGENT),
    ],
)
def test_requests_of_a_client_go_first(request_, seen, symbol, remains):
    """They bind to the grammar, not to the agent's own patience."""
    assert next_for_request(request_, seen, POLICY) == (symbol, remains)


TALKED_OVER = Observation(is_speaking=True, near_ticks=2)
PAUSED = Observation(is_paused=True, paused_ticks=1, near_ticks=3)


@pytest.mark.parametrize(
    ("seen", "pauses"),
    [
        (TALKED_OVER, True),
        (replace(TALKED_OVER, near_ticks=1), False),
        (replace(TALKED_OVER, is_speaking=False), False),
        (replace(TALKED_OVER, paused_ticks=1), False),  # once a turn
        (PAUSED, True),
        (replace(PAUSED, paused_ticks=POLICY.max_voice_pause_ticks - 1), True),
        (replace(PAUSED, paused_ticks=POLICY.max_voice_pause_ticks), False),
        (replace(PAUSED, near_ticks=0, far_ticks=1), True),
        (replace(PAUSED, near_ticks=0, far_ticks=2), False),
        (replace(PAUSED, near_ticks=0, far_ticks=2, has_uncommitted=True), True),
        (replace(TALKED_OVER, awaits_speaker=True), False),
        (replace(PAUSED, is_unheeded=True), False),
    ],
)
def test_the_voice_pauses_once_while_somebody_near_talks_over_it(seen, pauses):
    assert pause_voice(seen, POLICY) == pauses
    assert not pause_voice(replace(seen, is_paused=False), replace(POLICY, max_voice_pause_ticks=0))


@pytest.mark.parametrize(
    ("agent_open", "is_speaking", "a_tick", "budget"),
    [
        (False, False, 1, 6),
        (True, False, 1, 2),
        (True, True, 1, 1),
        (False, True, 2, 2),
        (True, False, 3, 3),
    ],
)
def test_symbols_a_tick(agent_open, is_speaking, a_tick, budget):
    policy = replace(POLICY, symbols_per_tick=a_tick)
    assert symbol_budget(agent_open, is_speaking, policy) == budget


def test_observations_and_results_are_flat_numbers():
    """So that the rules can be compiled, and run for all slots at once."""
    for field in fields(Observation):
        assert isinstance(getattr(Observation(), field.name), (bool, int, float)), field.name
    assert all(isinstance(part, int) for part in allowed(OVERLAP, POLICY))
    assert all(math.isfinite(nats) for nats in bias(OVERLAP, POLICY))


def test_every_constant_has_its_row():
    """TURN_TAKING.md names each field of the policy and of rescoring with its value, and of the
    agent's config what it names."""
    text = (ROOT / "duplex/agent/TURN_TAKING.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^ |]+) \|", text, flags=re.M))
    for config in CONSTANTS:
        for field in fields(config):
            assert rows.get(field.name) == str(getattr(config, field.name)), field.name
    for field in fields(AgentConfig()):
        if field.name in rows:
            assert rows[field.name] == str(getattr(AgentConfig(), field.name)), field.name
    known = {field.name for config in (*CONSTANTS, AgentConfig()) for field in fields(config)}
    ours = text.split("## Recognition")[0]
    assert {name for name in re.findall(r"^\| `(\w+)`", ours, flags=re.M)} <= known
