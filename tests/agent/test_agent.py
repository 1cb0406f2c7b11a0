"""The agent's tick with every real part at tiny size: sessions are independent, events in order."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from duplex.agent import Agent, AgentConfig, TurnPolicy
from duplex.agent.hearing.pending_words import PendingToken
from duplex.agent.turn_policy import LONG_AGO
from duplex.audio import TICK_MS, TICK_SAMPLES
from duplex.events import Event
from duplex.model.tokens import (
    AGENT,
    ASIDE,
    BACK,
    END,
    FIRST_TEXT_ID,
    NEXT,
    STOP,
    USER,
    USER_END,
    Grammar,
)
from tests.tiny_speech_agent import Script, scripted_agent, text, tick_of, tiny_agent

POLICY = TurnPolicy()
QUIET = POLICY.end_silence_ticks
LIVELY = TurnPolicy(symbols_per_tick=2)
DICE = AgentConfig(temperature=1.0, cancel_echo=False)


def run(agent, sounds: dict[int, np.ndarray], ticks: int, seeds: dict[int, int], starts: dict):
    """Play each slot's sound from its start; per slot audio [ticks, samples] and events."""
    audio = {slot: [] for slot in sounds}
    events = {slot: [] for slot in sounds}
    for tick in range(ticks):
        batch = tick_of(slots=agent.slots)
        active = []
        for slot, sound in sounds.items():
            at = tick - starts[slot]
            if at == 0:
                agent.open(slot, seed=seeds[slot], instructions=f"session {seeds[slot]}")
            if at >= 0:
                active.append(slot)
                batch[slot] = sound[at]
        voice, said = agent.step(batch, active)
        for slot in active:
            audio[slot].append(voice[slot])
            events[slot] += said[slot]
    return audio, events


@pytest.fixture
def sounds() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, level, (40, TICK_SAMPLES)).astype(np.float32) for level in (0.2, 0.05)]


# Batches of sessions.


def test_two_sessions_in_one_batch_equal_each_alone(sounds):
    """A session that joins in the middle changes neither symbols nor, beyond rounding, sound."""
    config = replace(DICE, cancel_echo=True)
    alone = []
    for seed, sound in enumerate(sounds):
        alone.append(run(tiny_agent(1, LIVELY, config), {0: sound}, 26, {0: seed}, {0: 0}))
    many = tiny_agent(3, LIVELY, config)
    both, events = run(many, {0: sounds[0], 2: sounds[1]}, 26, {0: 0, 2: 1}, {0: 0, 2: 5})
    assert events[0] == alone[0][1][0]
    assert events[2] == [e for e in alone[1][1][0] if e.tick < 21]
    first = np.concatenate(alone[0][0][0])
    second = np.concatenate(alone[1][0][0][:21])
    np.testing.assert_allclose(np.concatenate(both[0]), first, atol=1e-4)
    np.testing.assert_allclose(np.concatenate(both[2]), second, atol=1e-4)


def test_a_reused_slot_knows_nothing_of_the_last_session(sounds):
    agent = tiny_agent(2, LIVELY, DICE)
    run(agent, {1: sounds[1]}, 10, {1: 7}, {1: 0})
    agent.close(1)
    _, events = run(agent, {1: sounds[0]}, 20, {1: 0}, {1: 0})
    _, fresh = run(tiny_agent(2, LIVELY, DICE), {1: sounds[0]}, 20, {1: 0}, {1: 0})
    assert events == fresh


def test_another_number_of_slots_says_the_same(sounds):
    runs = []
    for agent in (tiny_agent(2), tiny_agent(1).with_slots(2)):
        runs.append(run(agent, {0: sounds[0]}, 30, {0: 0}, {0: 0}))
    assert runs[0][1] == runs[1][1]
    np.testing.assert_array_equal(np.concatenate(runs[0][0][0]), np.concatenate(runs[1][0][0]))


@pytest.mark.slow
@pytest.mark.parametrize("slots", [1, 2])
def test_deferred_inputs_and_proposals_change_no_symbol(slots):
    """Events and sound are those of one call of the LM for every tick and every symbol."""
    rng = np.random.default_rng(0)
    bursts = (np.arange(120) % 40 < 20)[:, None]
    sound = rng.normal(0, 0.2, (120, TICK_SAMPLES)).astype(np.float32) * bursts
    sounds = {slot: np.roll(sound, 7 * slot, 0) for slot in range(slots)}
    begin = dict.fromkeys(range(slots), 0)
    policy = replace(LIVELY, wait_penalty=2.0, min_confidence_noise=0.0)
    configs = {
        "all": DICE,
        "no time to look ahead": replace(DICE, lookahead_budget_s=0.0),
        "plain": replace(DICE, speculate=False, max_deferred_inputs=1),
    }
    results = {}
    calls = {}
    for name, config in configs.items():
        agent = tiny_agent(slots, policy, config)
        results[name] = run(agent, sounds, 120, begin, begin)
        calls[name] = agent.context.counts.calls
    plain_audio, plain_events = results.pop("plain")
    for audio, events in results.values():
        assert events == plain_events
        assert {"heard", "agent_started"} <= {e.kind for e in events[0]}
        for slot in range(slots):
            expected = np.concatenate(plain_audio[slot])
            np.testing.assert_allclose(np.concatenate(audio[slot]), expected, atol=1e-5)
    assert max(calls["all"], calls["no time to look ahead"]) < 0.95 * calls["plain"]


def test_a_tick_without_voice_leaves_the_voice_where_it_was():
    sounds = []
    for still in ((), (2, 3, 6)):
        agent = tiny_agent()
        agent.open(0)
        response = agent.response
        response.synthesizer.push(response.synthesis_state, 0, 0, [20, 21, 22, 23])
        response.synthesizer.finish(response.synthesis_state, 0)
        ticks = []
        for tick in range(15 + len(still)):
            ticks.append(agent.step(tick_of(), [0], voice=tick not in still)[0][0])
        assert all(not ticks[tick].any() for tick in still)
        sounds.append(np.concatenate([s for tick, s in enumerate(ticks) if tick not in still]))
    assert np.abs(sounds[0]).max() > 1e-4
    np.testing.assert_allclose(sounds[1], sounds[0], atol=1e-6)


def test_words_after_ticks_without_voice_have_the_times_of_the_session():
    """Where the voice waited for a slow machine, clients would look for its words too early."""
    still = range(4, 14)
    agent, _ = scripted_agent(
        [AGENT, *text("One two three four five six."), END], symbols_per_tick=8
    )
    agent.open(0)
    agent.sessions[0].answer_due = True
    after = []
    for tick in range(30):
        events = agent.step(tick_of(), [0], voice=tick not in still)[1][0]
        after += [e for e in events if e.kind == "spoken" and tick > max(still) + 1]
    assert len(after) >= 2
    for event in after:
        assert max(still) * TICK_MS < event.start_ms < event.end_ms < (event.tick + 2) * TICK_MS


# A conversation, with an LM that wants given symbols.


def listen(agent: Agent, script: Script, ticks: int, faint=True, due=False) -> list[Event]:
    """Events of silent ticks. `faint`: what the script wants to write may have been recognised in
    every tick; `due`: an answer is."""
    agent.open(0)
    session = agent.sessions[0]
    session.answer_due = due
    events = []
    for tick in range(ticks):
        if faint:
            wanted = script.symbols[:4]
            session.user.pending.tokens += [PendingToken(tick, symbol, 0.3) for symbol in wanted]
        events += agent.step(tick_of(), [0])[1][0]
    return events


def of_kind(events: list[Event], kind: str) -> list[str]:
    """Texts of the events of one kind."""
    return [e.text for e in events if e.kind == kind]


def test_a_turn_is_heard_answered_and_spoken():
    wait = [NEXT] * QUIET
    symbols = [USER, *text(" hi"), *wait, USER_END, AGENT, *text("Good day."), END]
    agent, script = scripted_agent(symbols, symbols_per_tick=2)
    events = listen(agent, script, 60)
    assert "".join(of_kind(events, "heard")) == " hi"
    assert "".join(of_kind(events, "said")) == "Good day."
    assert of_kind(events, "spoken") == ["Good", "day."]
    order = [
        "user_started",
        "heard",
        "user_ended",
        "agent_started",
        "said",
        "spoken",
        "agent_ended",
    ]
    kinds = [e.kind for e in events]
    assert [k for k in dict.fromkeys(kinds) if k in order] == order
    for event in events:
        if event.kind == "spoken":
            assert 0 <= event.start_ms < event.end_ms


def test_a_turn_that_begins_while_the_one_before_sounds_ends_that():
    """The text of an answer is over long before its voice; the user speaks meanwhile."""
    first = [AGENT, *text("One two three four five six seven eight nine ten eleven twelve."), END]
    wait = [NEXT] * QUIET
    user = [USER, *text(" hi"), *wait, USER_END]
    symbols = [*first, *user, AGENT, *text("Good day."), END]
    agent, script = scripted_agent(symbols, symbols_per_tick=8)
    events = listen(agent, script, 40, due=True)
    bounds = [e.kind for e in events if e.kind in ("agent_started", "agent_ended")]
    assert bounds == ["agent_started", "agent_ended"] * 2


def test_a_backchannel_is_heard_and_is_no_turn():
    told = text(" so yesterday we went there")
    symbols = [USER, *told, NEXT, BACK, *text(" home"), *[NEXT] * QUIET, USER_END]
    policy = {"gives_backchannels": True, "min_words_for_backchannel": 2, "end_silence_ticks": 3}
    agent, script = scripted_agent(symbols, symbols_per_tick=2, **policy)
    agent.open(0)
    session = agent.sessions[0]
    events = []
    voice = []
    for tick in range(60):
        is_word = script.symbols[:1] != [BACK]
        if is_word:
            wanted = script.symbols[:4]
            session.user.pending.tokens += [PendingToken(tick, symbol, 0.3) for symbol in wanted]
        else:
            session.user.pending.tokens.clear()
        sound, told = agent.step(tick_of(), [0])
        voice.append(sound[0])
        events += told[0]
    assert of_kind(events, "backchannel") == [agent.response.backchannel]
    assert "".join(of_kind(events, "heard")) == " so yesterday we went there home"
    assert not {"agent_started", "spoken", "agent_ended", "agent_stopped"} & {
        e.kind for e in events
    }
    given = next(e.tick for e in events if e.kind == "backchannel")
    assert np.abs(np.concatenate(voice[given:])).max() > 1e-4


def test_nothing_is_said_where_nothing_was_asked():
    agent, script = scripted_agent([AGENT] * 40, symbols_per_tick=2, wait_penalty=0.0)
    assert not listen(agent, script, 20)


def test_yielding_falls_silent_and_forgets_the_unsaid():
    said = text("One two three four five six seven eight.")
    symbols = [AGENT, *said, NEXT, NEXT, NEXT, NEXT, USER, *text(" no"), STOP, USER_END]
    agent, script = scripted_agent(symbols, symbols_per_tick=4)
    events = listen(agent, script, 24, due=True)
    stopped = next(e for e in events if e.kind == "agent_stopped")
    spoken = of_kind(events, "spoken")
    assert stopped.text.strip() and "eight" in stopped.text
    assert " ".join(spoken) not in stopped.text or not spoken
    assert not any(e.kind == "spoken" and e.tick > stopped.tick for e in events)
    cache = agent.context.cache
    used = cache.position[0][cache.position[0] >= 0]
    assert len(used) < int(cache.next_position[0])  # positions were given up
    assert agent.response.queued_s(0, agent.sessions[0]) == 0


def test_it_yields_only_to_somebody():
    symbols = [AGENT, *text("One two three four five six."), STOP]
    agent, script = scripted_agent(symbols, symbols_per_tick=4)
    events = listen(agent, script, 24, due=True)
    assert not of_kind(events, "agent_stopped") and of_kind(events, "spoken")


def test_what_is_not_for_the_agent_is_heard_and_not_answered():
    wait = [NEXT] * QUIET
    aside = [USER, *text(" mum"), *wait, ASIDE, AGENT, AGENT]
    asked = [USER, *text(" hi"), *wait, USER_END, AGENT, *text("Yes."), END]
    agent, script = scripted_agent([*aside, *asked], symbols_per_tick=2, wait_penalty=0.0)
    events = listen(agent, script, 40)
    assert [e.to for e in events if e.kind == "user_ended"] == ["other", "agent"]
    turns = [e.kind for e in events if e.kind in ("user_ended", "agent_started")]
    assert turns == ["user_ended", "user_ended", "agent_started"]


def test_a_client_may_have_an_aside_answered():
    symbols = [USER, *text(" mum"), *[NEXT] * QUIET, ASIDE]
    agent, script = scripted_agent(symbols, symbols_per_tick=2)
    listen(agent, script, 10)
    agent.answer(0)
    _, events = agent.step(tick_of(), [0])
    assert events[0][0].kind == "agent_started"


def test_a_turn_that_finds_no_end_is_ended():
    symbols = [AGENT, *text("go on and on and on")]
    agent, script = scripted_agent(symbols, symbols_per_tick=2, max_turn_tokens=5)
    events = listen(agent, script, 60, due=True)
    assert "".join(of_kind(events, "said")) == "go on"
    assert len(of_kind(events, "agent_ended")) == 1


@pytest.mark.parametrize(("level", "expected"), [(0.001, 8), (0.1, 15 + QUIET - 1)])
def test_a_turn_does_not_end_in_the_middle_of_a_sound(level, expected):
    """From tick 8 on the LM wants to end it; ticks 5 to 14 are speech, or like the rest."""
    agent, script = scripted_agent([], end_timeout_ticks=100)
    agent.open(0)
    ended = []
    for tick in range(24):
        script.symbols = [USER] if tick == 6 else [USER_END] if tick >= 8 and not ended else []
        agent.sessions[0].user.pending.tokens += [PendingToken(tick, FIRST_TEXT_ID, 0.3)]
        _, events = agent.step(tick_of(level if 5 <= tick < 15 else 0.001), [0])
        ended += [tick for e in events[0] if e.kind == "user_ended"]
    assert ended[0] == expected


def test_the_timeout_ends_a_turn_that_the_model_would_leave_open():
    agent, script = scripted_agent([USER, *text(" hi")], symbols_per_tick=2, end_timeout_ticks=5)
    events = listen(agent, script, 20)
    last = max(e.tick for e in events if e.kind == "heard")
    assert [e.tick for e in events if e.kind == "user_ended"] == [last + 6]


def test_nothing_is_transcribed_that_was_not_recognised():
    """The LM wants to write in vain, until a word is recognised."""
    for words, expected in (([], False), ([("hi", 0.9)], True)):
        agent, script = scripted_agent([USER, *text(" hi")])
        agent.recognition.decode = lambda beam, log_probs, words=words: words
        events = listen(agent, script, 10, faint=False)
        assert any(e.kind in ("user_started", "heard") for e in events) == expected


@pytest.mark.parametrize(("gain", "longest", "waits"), [(0.1, 12, 12), (0.03, 12, 0), (0.1, 0, 0)])
def test_the_voice_waits_once_while_somebody_near_talks_over_it(gain, longest, waits):
    """The LM wants nothing all the while; who is 10 dB farther away is not waited for."""
    agent, _ = scripted_agent([], max_voice_pause_ticks=longest)
    noise = np.random.default_rng(0).normal(0, 1, (1, TICK_SAMPLES)).astype(np.float32)
    agent.open(0)
    session = agent.sessions[0]
    for tick in range(4):
        agent.step(0.1 * noise * (tick == 2), [0])
    agent.recognition.end_turn(session.user, is_for_agent=True)
    session.grammar = Grammar(stream=AGENT, agent_open=True)
    session.reply.text = "word " * 40
    phones = [60, 61, 62, 63, 64, 65, 66, 67, 16]
    agent.response.queue_new_words(0, session, [("word", phones)] * 40)
    agent.response.synthesizer.finish(agent.response.synthesis_state, 0)
    silent = []
    for tick in range(30):
        agent.step(gain * noise * (tick >= 5), [0])
        silent.append(not agent.response.is_speaking(0, agent.sessions[0]))
    first = 5 + POLICY.near_onset_ticks - 1
    waited = [tick for tick, is_silent in enumerate(silent) if is_silent and tick > 1]
    assert waited == list(range(first, first + waits))


# What one symbol is sampled from.


def undecided(agent: Agent, scores: dict[int, float]) -> torch.Tensor:
    """Scores [V] of a vocabulary, 0 but for these."""
    found = torch.zeros(agent.parts.lm.config.vocabulary)
    for symbol, nats in scores.items():
        found[symbol] = nats
    return found


@pytest.mark.parametrize(
    ("confidences", "spoke", "silence", "symbol"),
    [
        ((), 0, 14, ASIDE),
        ((0.3, 0.4), 0, 14, ASIDE),
        ((0.4, 0.6, 0.3), 0, 14, USER_END),
        ((0.4, 0.6, 0.3), LONG_AGO, 14, ASIDE),
        ((0.4, 0.97, 0.3), LONG_AGO, 14, USER_END),
        ((0.4, 0.97, 0.3), 0, 0, ASIDE),
        ((0.4, 1.0, 0.3), LONG_AGO, 0, USER_END),
    ],
)
def test_a_turn_without_a_confident_word_is_not_answered(confidences, spoke, silence, symbol):
    """Though the LM wants to; a client's request counts. spoke: ticks since the agent's voice."""
    agent = tiny_agent(1, TurnPolicy(end_timeout_ticks=-1))
    agent.open(0)
    session = agent.sessions[0]
    session.tick = session.user.last_token_tick = 250
    session.grammar = Grammar(stream=USER, user_open=True)
    session.user.activity.silence_ticks = silence
    session.reply.recent_words = [("so", session.tick - spoke)]
    session.user.pending.max_confidence = max(confidences, default=None)
    scores = undecided(agent, {USER_END: 9.0, ASIDE: 2.0})
    assert agent.decoder.sample(0, session, scores.clone()) == symbol
    session.client.request = AGENT
    assert agent.decoder.sample(0, session, scores.clone()) == USER_END
    session.client.request = None
    agent.recognition.end_turn(session.user, is_for_agent=True)
    assert agent.decoder.sample(0, session, scores.clone()) == ASIDE


@pytest.mark.parametrize(("words", "symbol"), [(" right", ASIDE), (" how are you", STOP)])
def test_what_is_said_to_the_agent_while_it_speaks_interrupts_it(words, symbol):
    """The end of a turn and yielding count together; few words are no interruption."""
    agent = tiny_agent(1, TurnPolicy(wait_penalty=0.0))
    agent.open(0)
    session = agent.sessions[0]
    session.grammar = Grammar(stream=USER, user_open=True, agent_open=True)
    session.user.transcribed = list(enumerate(text(words)))
    agent.recognition.count_words(session.user)
    session.user.activity.silence_ticks = QUIET
    session.user.pending.max_confidence = 1.0
    scores = undecided(agent, {USER_END: 4.0, ASIDE: 2.0})
    assert agent.decoder.sample(0, session, scores) == symbol


def test_what_is_written_is_the_best_of_what_waits():
    """However likely other text sounds, and whatever the temperature."""
    agent = tiny_agent(1, config=DICE)
    agent.open(0)
    session = agent.sessions[0]
    session.grammar = Grammar(stream=USER, user_open=True)
    low, high, certain = text("abc")
    session.user.pending.tokens = [PendingToken(0, low, 0.2), PendingToken(0, high, 0.3)]
    scores = undecided(agent, {low: 1.0, high: 2.0, text("z")[0]: 50.0})
    assert agent.decoder.sample(0, session, scores.clone()) == high
    session.user.pending.tokens.append(PendingToken(0, certain, 0.5))
    assert agent.decoder.sample(0, session, scores.clone()) == certain


# Errors.


def test_a_session_whose_recognition_fails_is_over_and_the_other_goes_on():
    agent = tiny_agent(2)
    agent.open(0)
    agent.open(1)
    decode = agent.recognition.decode

    def fails(beam, log_probs):
        assert beam is not agent.sessions[0].user.beam, "broken"
        return decode(beam, log_probs)

    agent.recognition.decode = fails
    _, events = agent.step(tick_of(slots=2), [0, 1])
    assert [e.kind for e in events[0]] == ["error"] and not events[1]


def test_wrong_shape_is_a_clear_error():
    with pytest.raises(AssertionError, match="expected"):
        tiny_agent().step(np.zeros((1, 100), np.float32), [])


def test_taken_slot_is_a_clear_error():
    agent = tiny_agent()
    agent.open(0)
    with pytest.raises(AssertionError, match="taken"):
        agent.open(0)
