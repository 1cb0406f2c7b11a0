"""The agent's tick with every real part at tiny size: sessions are independent, events follow the grammar, yielding works."""

import numpy as np
import pytest
import torch

from duplex.agent import agent as agent_module
from duplex.agent.agent import CONSIDERED, PONDERED, REREAD_TICKS, Agent
from duplex.agent.speech_activity import REFUSED_TICKS, turn_ended, weigh, written
from duplex.agent.turn_policy import (
    ECHO_TICKS,
    HASTY_TICKS,
    LATE_TICKS,
    QUIET_TICKS,
    REPLY_TICKS,
    Said,
    Session,
    Settings,
)
from duplex.audio import TICK_SAMPLES
from duplex.events import Transcript
from duplex.model.encoder import BLANK
from duplex.model.kv_cache import TEXT
from duplex.model.tokens import (
    AGENT,
    ASIDE,
    END,
    FIRST_TEXT_ID,
    NEXT,
    STOP,
    USER,
    USER_END,
    Grammar,
)
from tests.tiny_speech_agent import LETTERS, tiny_agent

LIVELY = Settings(symbols_per_tick=2, temperature=1.0)


def run(
    agent,
    sounds: dict[int, np.ndarray],
    ticks: range,
    seeds: dict[int, int],
    starts: dict[int, int],
):
    """Play each slot's sound from its start -> per slot audio [ticks, samples] and events."""
    audio, events = {s: [] for s in sounds}, {s: [] for s in sounds}
    for tick in ticks:
        batch, active = np.zeros((agent.slots, TICK_SAMPLES), np.float32), []
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


def test_two_sessions_in_one_batch_equal_each_alone(sounds):
    """Another session that joins in the middle changes neither the symbols nor, beyond rounding, the sound."""
    alone = [
        run(tiny_agent(1, LIVELY, cancel_echo=True), {0: s}, range(26), {0: i}, {0: 0})
        for i, s in enumerate(sounds)
    ]
    many = tiny_agent(3, LIVELY, cancel_echo=True)
    both, events = run(many, {0: sounds[0], 2: sounds[1]}, range(26), {0: 0, 2: 1}, {0: 0, 2: 5})
    assert events[0] == alone[0][1][0]
    assert events[2] == [e for e in alone[1][1][0] if e.tick < 21]
    np.testing.assert_allclose(np.concatenate(both[0]), np.concatenate(alone[0][0][0]), atol=1e-4)
    np.testing.assert_allclose(
        np.concatenate(both[2]), np.concatenate(alone[1][0][0][:21]), atol=1e-4
    )


def test_a_reused_slot_knows_nothing_of_the_last_session(sounds):
    agent = tiny_agent(2, LIVELY)
    run(agent, {1: sounds[1]}, range(10), {1: 7}, {1: 0})
    agent.close(1)
    _, events = run(agent, {1: sounds[0]}, range(20), {1: 0}, {1: 0})
    _, fresh = run(tiny_agent(2, LIVELY), {1: sounds[0]}, range(20), {1: 0}, {1: 0})
    assert events == fresh


@pytest.mark.parametrize("slots", [1, 2])
def test_what_is_put_off_or_foreseen_changes_no_symbol(monkeypatch, slots):
    """Events and sound are those of an agent that asks the LM in every tick, and once for every symbol."""
    rng = np.random.default_rng(0)
    sound = (
        rng.normal(0, 0.2, (120, TICK_SAMPLES)).astype(np.float32)
        * (np.arange(120) % 40 < 20)[:, None]
    )
    results, calls = [], []

    def talk() -> None:
        lively = Settings(
            symbols_per_tick=2, temperature=1.0, next_penalty=2.0, answer_least_noise=0.0
        )
        agent = tiny_agent(slots, lively)
        sounds, begin = (
            {slot: np.roll(sound, 7 * slot, 0) for slot in range(slots)},
            dict.fromkeys(range(slots), 0),
        )
        results.append(run(agent, sounds, range(120), begin, begin))
        calls.append(agent.counts.lm_calls)

    talk()
    monkeypatch.setattr(Agent, "ponder", lambda self, *what: None)
    talk()
    monkeypatch.setattr(agent_module, "PUT_OFF_TICKS", 1)
    monkeypatch.setattr(Agent, "guess", lambda self, rows: {slot: [] for slot in rows})
    talk()
    slow_audio, slow_events = results.pop()
    for audio, events in results:
        assert events == slow_events and {"heard", "agent_started"} <= {e.kind for e in events[0]}
        for slot in range(slots):
            np.testing.assert_allclose(
                np.concatenate(audio[slot]), np.concatenate(slow_audio[slot]), atol=1e-5
            )
    assert calls[1] <= calls[0] < 0.95 * calls[2]


def pondering(monkeypatch, symbols: list[int]) -> tuple[Agent, Session]:
    """An agent in the silence after a user's words, which draws these symbols; ticks are short enough for thoughts."""
    monkeypatch.setattr(agent_module, "PONDER_S", 60.0)
    agent = tiny_agent(1, Settings(next_penalty=2.0))
    agent.encoder.phones.bias.data[BLANK] = 99.0  # nothing is heard
    agent.open(0)
    agent.counts.lm_calls = 0  # without those for the instructions
    session = agent.sessions[0]
    session.grammar, session.hearing.quiet_ticks, session.awaiting = (
        Grammar(USER, True, False),
        QUIET_TICKS,
        True,
    )
    session.hearing.speech_db = 0.0
    monkeypatch.setattr(Agent, "draw", lambda self, slot, scores: symbols.pop(0))
    return agent, session


def test_an_answer_that_was_thought_of_needs_one_call(monkeypatch):
    agent, session = pondering(monkeypatch, symbols := [NEXT])
    silence = np.zeros((1, TICK_SAMPLES), np.float32)
    agent.step(silence, [0])
    assert (
        len(session.answer) == PONDERED and agent.counts.lm_calls >= PONDERED
    )  # one of them costs nothing
    position, calls = int(agent.lm_state.next_position[0]), agent.counts.lm_calls
    said = [USER_END, AGENT, *session.answer]
    symbols[:] = [*said, NEXT]
    agent.step(silence, [0])
    assert agent.counts.lm_calls == calls + 1 and session.asked == len(said)
    assert int(agent.lm_state.next_position[0]) == position + 1 + len(said)
    assert session.turn_text == agent.tokenizer.decode(said[2:]) and not session.answer


def test_it_is_the_answer_of_the_next_tick(monkeypatch):
    """What would be said if the turn ended then and that tick were like this one; while words are to come it costs no call."""
    agent, session = pondering(monkeypatch, symbols := [NEXT, USER_END, AGENT, NEXT])
    silence, vector, listen = (
        np.zeros((1, TICK_SAMPLES), np.float32),
        torch.randn(1, agent.lm.config.width),
        Agent.listen,
    )
    monkeypatch.setattr(Agent, "listen", lambda self, *what: listen(self, *what) * 0 + vector)
    agent.step(silence, [0])
    thought = session.answer
    agent.step(silence, [0])
    states = [agent.hidden[0].clone()]  # after the turn's end
    for token in thought[:-1]:
        states.append(agent.feed({0: agent.row([token])})[0][-1])
    best = agent.lm.logits(torch.stack(states))[:, FIRST_TEXT_ID:].argmax(1) + FIRST_TEXT_ID
    assert thought == best.tolist() and not symbols

    agent, session = pondering(monkeypatch, [NEXT])
    monkeypatch.setattr(agent_module.beam_search, "has_uncommitted_words", lambda reading: True)
    agent.step(silence, [0])
    assert len(session.answer) == agent.counts.lm_calls == 1


@pytest.mark.parametrize(("best", "thought"), [("abd", "abd"), ("adb", "ad"), ("cbd", "c")])
def test_what_would_be_said_otherwise_by_now_is_thought_of_anew(monkeypatch, best, thought):
    """The answer was "ab"; the likeliest symbols after the turn's end and each of its symbols are now others."""
    agent, session = pondering(monkeypatch, [])

    def symbols(text: str) -> list[int]:
        return [FIRST_TEXT_ID + ord(letter) - ord("a") for letter in text]

    scores = torch.zeros(3, agent.lm.config.vocabulary)
    scores[range(3), symbols(best)] = 1.0
    monkeypatch.setattr(agent.lm, "logits", lambda hidden: scores)
    session.answer = symbols("ab")
    agent.ponder(
        0, torch.zeros(3, agent.lm.config.width), torch.zeros(agent.lm.config.width), until=0.0
    )
    assert session.answer == symbols(thought)


def test_another_number_of_slots_says_the_same():
    sound = np.random.default_rng(0).normal(0, 0.2, (30, TICK_SAMPLES)).astype(np.float32)
    runs = [
        run(agent, {0: sound}, range(30), {0: 0}, {0: 0})
        for agent in (tiny_agent(2), tiny_agent(1).with_slots(2))
    ]
    assert runs[0][1] == runs[1][1]
    np.testing.assert_array_equal(np.concatenate(runs[0][0][0]), np.concatenate(runs[1][0][0]))


def test_without_its_voice_a_tick_leaves_the_voice_where_it_was():
    silence, sounds = np.zeros((1, TICK_SAMPLES), np.float32), []
    for still in ((), (2, 3, 6)):
        agent = tiny_agent(1)
        agent.open(0)
        agent.talking.push(agent.talker_state, 0, 0, [20, 21, 22, 23])
        agent.talking.finish(agent.talker_state, 0)
        ticks = [
            agent.step(silence, [0], voice=tick not in still)[0][0]
            for tick in range(15 + len(still))
        ]
        assert all(not ticks[tick].any() for tick in still)
        sounds.append(
            np.concatenate([sound for tick, sound in enumerate(ticks) if tick not in still])
        )
    assert np.abs(sounds[0]).max() > 1e-4
    np.testing.assert_allclose(sounds[1], sounds[0], atol=1e-6)


def test_an_answer_is_given_only_to_what_was_said_to_the_agent():
    agent = tiny_agent(1, Settings(symbols_per_tick=2, next_penalty=0.0))
    Script(agent, [AGENT] * 40)
    events, _ = silent_run(agent, 20)
    assert not events


class Script:
    """Makes the LM want given symbols, one after the other."""

    def __init__(self, agent, symbols: list[int]):
        self.symbols, self.size = list(symbols), agent.lm.config.vocabulary
        agent.lm.logits, agent.settings.guess = (
            self,
            False,
        )  # each symbol is asked for once, in its turn
        for least in ("answer_least", "answer_least_first", "answer_least_noise"):
            setattr(agent.settings, least, 0.0)  # and may be written as soon as it is wanted
        agent.encoder.phones.bias.data[BLANK] = 99.0  # nothing is heard

    def __call__(self, hidden: torch.Tensor, text: bool = True) -> torch.Tensor:
        scores = torch.zeros(*hidden.shape[:-1], self.size if text else FIRST_TEXT_ID)
        wanted = self.symbols[0] if self.symbols else NEXT
        if wanted < scores.shape[-1]:  # a text symbol waits until the runtime asks for text
            scores[..., wanted] = 10.0
            self.symbols = self.symbols[1:]
        else:
            scores[..., NEXT] = 10.0
        return scores


def text(words: str) -> list[int]:
    spelled = words.replace(" ", "Ġ")
    return [FIRST_TEXT_ID + LETTERS.index(letter) for letter in spelled]


def silent_run(agent, ticks: int, faint: bool = True, asked: bool = False):
    """In silence; `faint`: what the script wants to write may have been heard in every tick; `asked`: an answer is due."""
    events = []
    agent.open(0)
    agent.sessions[0].awaiting = asked
    loud = []
    for tick in range(ticks):
        agent.sessions[0].hearing.unwritten += [
            (tick, symbol, 0.3) for symbol in agent.lm.logits.symbols[:4] * faint
        ]
        voice, said = agent.step(np.zeros((1, TICK_SAMPLES), np.float32), [0])
        events += said[0]
        loud.append(float(np.abs(voice).max()))
    return events, loud


def test_a_turn_is_heard_answered_and_spoken():
    agent = tiny_agent(1, Settings(symbols_per_tick=2))
    Script(
        agent, [USER, *text(" hi"), *[NEXT] * QUIET_TICKS, USER_END, AGENT, *text("Good day."), END]
    )
    events, _ = silent_run(agent, 60)
    kinds = [e.kind for e in events]
    assert "".join(e.text for e in events if e.kind == "heard") == " hi"
    assert "".join(e.text for e in events if e.kind == "said") == "Good day."
    assert [e.text for e in events if e.kind == "spoken"] == ["Good", "day."]
    order = [
        "user_started",
        "heard",
        "user_ended",
        "agent_started",
        "said",
        "spoken",
        "agent_ended",
    ]
    assert [kinds.index(kind) for kind in order] == sorted(kinds.index(kind) for kind in order)
    for event in events:
        if event.kind == "spoken":
            assert 0 <= event.start_ms < event.end_ms


def test_yielding_falls_silent_and_forgets_the_unsaid():
    agent = tiny_agent(1, Settings(symbols_per_tick=4))
    said = text("One two three four five six seven eight.")
    Script(agent, [AGENT, *said, NEXT, NEXT, NEXT, NEXT, USER, *text(" no"), STOP, USER_END])
    events, _ = silent_run(agent, 24, asked=True)
    stopped = next(e for e in events if e.kind == "agent_stopped")
    spoken = [e.text for e in events if e.kind == "spoken"]
    assert stopped.text.strip() and "eight" in stopped.text
    assert " ".join(spoken) not in stopped.text or not spoken
    assert not any(e.kind == "spoken" and e.tick > stopped.tick for e in events)
    used = agent.lm_state.position[0][agent.lm_state.position[0] >= 0]
    assert len(used) < int(agent.lm_state.next_position[0])  # positions were given up
    assert agent.talking.queued_seconds(agent.talker_state, 0) == 0


@pytest.mark.parametrize(("loudness", "most", "waits"), [(0.1, 12, 12), (0.03, 12, 0), (0.1, 0, 0)])
def test_the_voice_waits_once_while_somebody_near_talks_over_it(loudness, most, waits):
    """The LM wants nothing all the while; who is 10 dB farther than the user was is not waited for."""
    agent, noise = (
        tiny_agent(1),
        np.random.default_rng(0).normal(0, 1, (1, TICK_SAMPLES)).astype(np.float32),
    )
    agent.settings.hold_ticks = most
    Script(agent, [])
    agent.open(0)
    session = agent.sessions[0]
    for tick in range(4):
        agent.step(0.1 * noise * (tick == 2), [0])
    turn_ended(session.hearing, True)
    session.grammar, session.turn_text = Grammar(stream=AGENT, agent_open=True), "word " * 40
    agent.queue(0, [("word", [60, 61, 62, 63, 64, 65, 66, 67, 16])] * 40)
    agent.talking.finish(agent.talker_state, 0)
    silent = []
    for tick in range(30):
        agent.step(loudness * noise * (5 <= tick), [0])
        silent.append(not agent.talking.sounding(agent.talker_state, 0))
    first = 5 + agent_module.NEAR_TICKS - 1
    assert [tick for tick, still in enumerate(silent) if still and tick > 1] == list(
        range(first, first + waits)
    )


@pytest.mark.parametrize(("level", "to"), [(-20.0, "agent"), (-30.0, "other")])
def test_who_is_far_is_answered_only_if_the_model_is_very_sure(level, to):
    agent = tiny_agent(1)
    agent.open(0)
    session = agent.sessions[0]
    session.grammar, session.hearing.user_db, session.hearing.stretch_db = (
        Grammar(stream=USER, user_open=True),
        -20.0,
        level,
    )
    scores = torch.zeros(agent.lm.config.vocabulary)
    scores[USER_END], scores[ASIDE] = 5.0, 2.0
    agent.choices = lambda slot: torch.isin(
        torch.arange(len(scores)), torch.tensor([USER_END, ASIDE])
    )
    session.hearing.quiet_ticks, session.hearing.surest = QUIET_TICKS, 1.0
    assert agent.draw(0, scores) == (USER_END if to == "agent" else ASIDE)


@pytest.mark.parametrize(("quiet", "symbol"), [(QUIET_TICKS, NEXT), (HASTY_TICKS, USER_END)])
@pytest.mark.parametrize("end", [USER_END, ASIDE])
def test_an_unsure_end_of_a_turn_is_left_to_a_longer_quiet(quiet, symbol, end):
    agent = tiny_agent(1, Settings(next_penalty=0.0, hasty_penalty=1.5))
    agent.open(0)
    session = agent.sessions[0]
    session.grammar, session.hearing.quiet_ticks = Grammar(stream=USER, user_open=True), quiet
    session.hearing.surest = 1.0
    scores = torch.zeros(agent.lm.config.vocabulary)
    scores[end] = 1.0
    agent.choices = lambda slot: torch.isin(torch.arange(len(scores)), torch.tensor([end, NEXT]))
    assert agent.draw(0, scores) == (end if symbol == USER_END else NEXT)


@pytest.mark.parametrize(
    ("words", "symbol"), [(" right", NEXT), (" oh hey", NEXT), (" right wait no", STOP)]
)
def test_few_words_must_be_a_plainer_interruption(words, symbol):
    agent = tiny_agent(1, Settings(next_penalty=0.0, stop_penalty=2.5))
    agent.open(0)
    session, scores = agent.sessions[0], torch.zeros(agent.lm.config.vocabulary)
    session.grammar, session.written = (
        Grammar(stream=USER, user_open=True, agent_open=True),
        list(enumerate(text(words))),
    )
    scores[STOP] = 2.0
    agent.choices = lambda slot: torch.isin(torch.arange(len(scores)), torch.tensor([STOP, NEXT]))
    assert agent.draw(0, scores) == symbol


@pytest.mark.parametrize(("words", "symbol"), [(" right", ASIDE), (" how are you", STOP)])
def test_what_is_said_to_the_agent_while_it_speaks_interrupts_it(words, symbol):
    """The end of a turn that is for the agent is no symbol beside its own voice: it is to yield first."""
    agent = tiny_agent(1, Settings(next_penalty=0.0, stop_penalty=2.5))
    agent.open(0)
    session, scores = agent.sessions[0], torch.zeros(agent.lm.config.vocabulary)
    session.grammar, session.written = (
        Grammar(stream=USER, user_open=True, agent_open=True),
        list(enumerate(text(words))),
    )
    session.hearing.quiet_ticks, session.hearing.surest = QUIET_TICKS, 1.0
    scores[USER_END], scores[ASIDE] = 4.0, 2.0
    agent.choices = lambda slot: torch.isin(
        torch.arange(len(scores)), torch.tensor([STOP, USER_END, ASIDE, NEXT])
    )
    assert agent.draw(0, scores) == symbol


def test_a_turn_that_can_only_end_as_an_aside_is_not_put_off():
    """Patience is over, and it was never surely heard: one symbol is left, and it is no waiting."""
    agent = tiny_agent(1, Settings(patience_ticks=-1))
    agent.open(0)
    session = agent.sessions[0]
    assert agent.idle(0)
    session.grammar, session.hearing.quiet_ticks = Grammar(stream=USER, user_open=True), QUIET_TICKS
    assert not agent.idle(0)


def test_what_is_not_for_the_agent_is_heard_and_not_answered():
    agent = tiny_agent(1, Settings(symbols_per_tick=2, next_penalty=0.0))
    wait = [NEXT] * QUIET_TICKS
    Script(
        agent,
        [
            USER,
            *text(" mum"),
            *wait,
            ASIDE,
            AGENT,
            AGENT,
            USER,
            *text(" hi"),
            *wait,
            USER_END,
            AGENT,
            *text("Yes."),
            END,
        ],
    )
    events, _ = silent_run(agent, 40)
    assert [e.to for e in events if e.kind == "user_ended"] == ["other", "agent"]
    assert [e.kind for e in events if e.kind in ("user_ended", "agent_started")] == [
        "user_ended",
        "user_ended",
        "agent_started",
    ]


@pytest.mark.parametrize(("speech", "expected"), [(0.001, 8), (0.1, 15 + QUIET_TICKS - 1)])
def test_a_turn_does_not_end_in_the_middle_of_a_sound(speech, expected):
    """From tick 8 on the LM wants to end the turn; ticks 5 to 14 are as loud as speech, or as quiet as the rest."""
    agent = tiny_agent(1, Settings(symbols_per_tick=1, patience_ticks=100))
    agent.open(0)
    ended = []
    for tick in range(24):
        Script(agent, [USER] if tick == 6 else [USER_END] if tick >= 8 and not ended else [])
        agent.sessions[0].hearing.unwritten += [(tick, FIRST_TEXT_ID, 0.3)]
        level = speech if 5 <= tick < 15 else 0.001
        _, events = agent.step(np.full((1, TICK_SAMPLES), level, np.float32), [0])
        ended += [tick for e in events[0] if e.kind == "user_ended"]
    assert ended[0] == expected


def test_a_client_may_have_an_aside_answered():
    agent = tiny_agent(1, Settings(symbols_per_tick=2))
    Script(agent, [USER, *text(" mum"), *[NEXT] * QUIET_TICKS, ASIDE])
    silent_run(agent, 10)
    agent.answer(0)
    _, events = agent.step(np.zeros((1, TICK_SAMPLES), np.float32), [0])
    assert events[0][0].kind == "agent_started"


def test_a_turn_that_finds_no_end_is_ended():
    agent = tiny_agent(1, Settings(symbols_per_tick=2, turn_tokens=5))
    Script(agent, [AGENT, *text("go on and on and on")])
    events, _ = silent_run(agent, 60, asked=True)
    assert "".join(e.text for e in events if e.kind == "said") == "go on"
    assert [e.kind for e in events].count("agent_ended") == 1


@pytest.mark.parametrize(
    ("shares", "spoke", "quiet", "to"),
    [
        ((), 0, HASTY_TICKS, "other"),
        ((0.3, 0.4), 0, HASTY_TICKS, "other"),
        ((0.4, 0.6, 0.3), 0, HASTY_TICKS, "agent"),
        ((0.4, 0.6, 0.3), REPLY_TICKS, HASTY_TICKS, "other"),
        ((0.4, 0.6, 0.3), None, HASTY_TICKS, "other"),
        ((0.4, 0.97, 0.3), None, HASTY_TICKS, "agent"),
        ((0.4, 0.97, 0.3), 0, 0, "other"),
        ((0.4, 0.97, 0.3), 0, LATE_TICKS + 1, "other"),
        ((0.4, 1.0, 0.3), None, 0, "agent"),
    ],
)
def test_who_was_never_surely_heard_is_not_answered(shares, spoke, quiet, to):
    """The LM wants to answer; a client's wish counts all the same. spoke: how many ticks ago the agent's voice ended."""
    agent = tiny_agent(1, Settings(patience_ticks=-1))
    agent.open(0)
    session, letters = agent.sessions[0], text(" no")
    session.tick = session.heard_tick = 2 * REPLY_TICKS
    session.lately = [] if spoke is None else [("so", session.tick - spoke)]
    session.grammar, session.hearing.quiet_ticks = Grammar(stream=USER, user_open=True), quiet
    session.hearing.unwritten = [
        (0, letter, share) for letter, share in zip(letters, shares, strict=False)
    ]
    scores = torch.zeros(agent.lm.config.vocabulary)
    scores[USER_END], scores[ASIDE] = 9.0, 2.0
    for letter in letters[: len(shares)]:
        written(session.hearing, letter)
    assert agent.draw(0, scores.clone()) == (USER_END if to == "agent" else ASIDE)
    session.wish = AGENT
    assert agent.draw(0, scores.clone()) == USER_END
    session.wish = None
    turn_ended(session.hearing, True)
    assert agent.draw(0, scores.clone()) == ASIDE


def test_patience_ends_a_turn_that_the_model_would_leave_open():
    agent = tiny_agent(1, Settings(patience_ticks=5))
    Script(agent, [USER, *text(" hi")])  # and then it only waits
    events, _ = silent_run(agent, 20)
    last = max(e.tick for e in events if e.kind == "heard")
    assert [e.tick for e in events if e.kind == "user_ended"] == [last + 6]


@pytest.mark.parametrize(
    ("begins", "waited", "symbol"),
    [(8, 20, NEXT), (8, 21, USER_END), (-5, 11, USER_END), (0, 10, NEXT)],
)
def test_patience_lasts_until_the_words_of_who_goes_on_can_have_been_heard(begins, waited, symbol):
    """The user's last word came in tick 0; somebody speaks on from tick 8, or a noise goes on from before it."""
    agent = tiny_agent(1, Settings(patience_ticks=10))
    agent.open(0)
    session = agent.sessions[0]
    session.grammar, session.hearing.surest, session.tick = (
        Grammar(stream=USER, user_open=True),
        1.0,
        waited,
    )
    for tick in range(-12, waited):
        weigh(session.hearing, -20.0 if tick >= begins else -60.0)
    assert agent.draw(0, torch.zeros(agent.lm.config.vocabulary)) == symbol


def test_the_lm_tells_how_likely_texts_are():
    """As one pass over the whole text would; of more than fit into a call the first ones."""
    agent = tiny_agent(2)
    agent.open(1, instructions="be kind")
    agent.step(np.zeros((2, TICK_SAMPLES), np.float32), [1])
    texts, found = [text(" so we go"), text(" so we go now"), text(" so hi")], []
    prompt = agent.tokenizer.encode(
        "<|im_start|>system\nbe kind<|im_end|>\n", add_special_tokens=False
    ).ids
    for tokens in texts:
        tokens = torch.tensor([[*prompt, USER, *tokens]])
        causal = torch.ones(1, tokens.shape[1], tokens.shape[1], dtype=torch.bool).tril()
        with torch.no_grad():
            hidden = agent.lm(agent.lm.embed(tokens), torch.arange(tokens.shape[1])[None], causal)
            scores = agent.lm.logits(hidden)[0, :, FIRST_TEXT_ID:].log_softmax(-1)
        first = len(prompt) + 1
        found.append(
            sum(
                float(scores[at - 1, tokens[0, at] - FIRST_TEXT_ID])
                for at in range(first, tokens.shape[1])
            )
        )
    assert agent.likely(1, texts) == pytest.approx(found, rel=1e-5)
    assert agent.likely(1, [texts[0], CONSIDERED * text("x"), texts[2]]) == pytest.approx(
        found[:1], rel=1e-5
    )
    assert agent.likely(1, [(CONSIDERED + 1) * text("x")]) == []


def reviewed(
    monkeypatch,
    likely,
    own=False,
    cut=False,
    first="hi you",
    other="hi now",
    refused: int | None = None,
):
    """A user's turn is written as "hi you"; "hi now" sounds as likely -> agent, events, positions of what was written first.

    refused: for so many ticks a piece waits that was surely heard and that the LM does not write.
    """
    agent, positions = (
        tiny_agent(1, Settings(symbols_per_tick=2, fusion=0.0, patience_ticks=99)),
        [],
    )
    monkeypatch.setattr(
        agent_module.beam_search, "n_best", lambda *given: [(first.split(), -1.0), (other.split(), -1.0)]
    )
    monkeypatch.setattr(agent, "likely", lambda slot, texts: likely)
    Script(agent, [USER, *text(" " + first)])
    agent.open(0)
    session, events = agent.sessions[0], []
    for tick in range(9 + len(first) // 2):  # the LM writes two letters or more a tick
        session.words_heard.truncated = cut
        session.hearing.unwritten = [
            (tick, symbol, 0.3) for symbol in agent.lm.logits.symbols[:4] if symbol != USER
        ]
        session.reviewed, session.pure = bool(agent.lm.logits.symbols) or session.reviewed, not own
        if tick and not agent.lm.logits.symbols and not positions:
            positions, session.reviewed = [position for position, _ in session.written], False
        if positions and refused is not None:
            session.hearing.unwritten = [(tick - refused, text("x")[0], 0.9)]
        _, said = agent.step(np.zeros((1, TICK_SAMPLES), np.float32), [0])
        events += said[0]
    return agent, events, positions


@pytest.mark.parametrize(
    ("likely", "read"), [([-9.0, -2.0], " hi now"), ([-2.0, -9.0], " hi you"), ([], " hi you")]
)
def test_a_turn_is_read_once_more_in_one_piece(monkeypatch, likely, read):
    """In the likelier way, or in that which sounds best; the LM's cache holds it in place of what was written."""
    agent, events, before = reviewed(monkeypatch, likely)
    transcript = Transcript()
    for event in events:
        transcript.note(event)
    assert [e.text for e in events if e.kind == "corrected"] == [read] * (
        read != " hi you"
    ) and transcript.text == read
    positions, symbols = zip(*agent.sessions[0].written, strict=True)
    assert list(symbols) == text(read) and list(positions) == [
        *range(positions[0], positions[0] + len(text(read)))
    ]
    state = agent.lm_state
    ticks = state.tick[0, state.position[0].argsort()]
    ticks = ticks[(np.sort(state.position[0]) >= 0) & (ticks != TEXT)]
    assert (np.diff(ticks) == 1).all() and ticks[-1] == state.now[
        0
    ]  # those that were read again are counted once
    assert ((state.position[0] > positions[-1]) & (state.tick[0] != TEXT)).sum() > REREAD_TICKS
    cells = set(state.position[0].tolist())
    assert cells >= set(positions) and not cells & set(before) and positions[0] > max(before)


def test_a_long_turn_is_read_once_more_from_the_first_difference_on(monkeypatch):
    begins = "hi" + " so" * (CONSIDERED // 3)
    agent, events, before = reviewed(
        monkeypatch, [-9.0, -2.0], first=begins + " you", other=begins + " now"
    )
    assert [e.text for e in events if e.kind == "corrected"] == [f" {begins} now"]
    positions, symbols = zip(*agent.sessions[0].written, strict=True)
    kept, cells = len(text(f" {begins} ")), set(agent.lm_state.position[0].tolist())
    assert list(symbols) == text(f" {begins} now") and list(positions[:kept]) == before[:kept]
    assert (
        cells >= set(positions) and not cells & set(before[kept:]) and positions[kept] > before[-1]
    )


@pytest.mark.parametrize(("ticks", "read"), [(REFUSED_TICKS - 1, False), (REFUSED_TICKS, True)])
def test_a_turn_is_read_with_the_words_that_the_lm_would_not_write(monkeypatch, ticks, read):
    """After a while; they wait no more then."""
    agent, events, _ = reviewed(monkeypatch, [-9.0, -2.0], refused=ticks)
    assert any(e.kind == "corrected" for e in events) == read


LONG = "hi" + " so" * CONSIDERED


@pytest.mark.parametrize(
    "options", [{"own": True}, {"cut": True}, {"other": LONG}, {"first": LONG, "likely": []}]
)
def test_a_turn_stays_as_it_was_written(monkeypatch, options):
    """Some of it was the agent's own voice, or it or the likelier reading is too long, or it is long and as it should be."""
    agent, events, before = reviewed(monkeypatch, **{"likely": [-99.0, -2.0]} | options)
    said = " " + options.get("first", "hi you")
    assert (
        not any(e.kind == "corrected" for e in events)
        and "".join(e.text for e in events if e.kind == "heard") == said
    )
    assert [position for position, _ in agent.sessions[0].written] == before


def test_nothing_is_written_down_that_was_not_heard(monkeypatch):
    """The LM wants to write; no word has been heard."""
    for words, expected in (([], False), ([("hi", 0.9)], True)):
        agent = tiny_agent(1)
        monkeypatch.setattr(agent_module.beam_search, "decode", lambda *_, words=words: words)
        Script(agent, [USER, *text(" hi")])
        events, _ = silent_run(agent, 10, faint=False)
        assert any(event.kind in ("user_started", "heard") for event in events) == expected


def test_a_session_whose_hearing_fails_is_over_and_the_other_goes_on(monkeypatch):
    agent = tiny_agent(2)
    agent.open(0), agent.open(1)
    read = agent_module.beam_search.decode

    def fails(lexicon, reading, phones):
        assert reading is not agent.sessions[0].words_heard, "broken"
        return read(lexicon, reading, phones)

    monkeypatch.setattr(agent_module.beam_search, "decode", fails)
    _, events = agent.step(np.zeros((2, TICK_SAMPLES), np.float32), [0, 1])
    assert [e.kind for e in events[0]] == ["error"] and not events[1]


@pytest.mark.parametrize(
    ("word", "own", "lately", "waits"),
    [
        ("one", {0: Said("One", 0)}, [], False),
        ("zoo", {0: Said("One", 0)}, [], True),
        ("one", {}, [("one", -1)], False),
        ("one", {}, [("one", -ECHO_TICKS)], True),
    ],
)
def test_an_echo_of_its_own_words_is_not_the_user(monkeypatch, word, own, lately, waits):
    """A word is heard while the agent says it, or has said it."""
    agent = tiny_agent(1)
    monkeypatch.setattr(agent_module.beam_search, "decode", lambda *_: [(word, 0.9)])
    agent.open(0)
    agent.sessions[0].words, agent.sessions[0].lately = own, lately
    with torch.inference_mode():
        agent.listen(torch.zeros(1, TICK_SAMPLES), [[]])
    assert [token for _, token, _ in agent.sessions[0].hearing.unwritten] == (
        text(f" {word}") if waits else []
    )


def test_it_yields_only_to_somebody():
    agent = tiny_agent(1, Settings(symbols_per_tick=4))
    Script(agent, [AGENT, *text("One two three four five six."), STOP])
    events, _ = silent_run(agent, 24, asked=True)
    assert not any(event.kind == "agent_stopped" for event in events)
    assert any(event.kind == "spoken" for event in events)


def test_wrong_shape_is_a_clear_error():
    with pytest.raises(AssertionError, match="expected"):
        tiny_agent(1).step(np.zeros((1, 100), np.float32), [])


def test_taken_slot_is_a_clear_error():
    agent = tiny_agent(1)
    agent.open(0)
    with pytest.raises(AssertionError, match="taken"):
        agent.open(0)
