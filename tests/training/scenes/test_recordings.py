"""Recorded conversations as scenes: who answers whom, and windows that obey the runtime."""

import numpy as np
import pytest

from duplex.audio import SAMPLE_RATE, TICK_S
from duplex.model import tokens
from duplex.model.tokens import Grammar, advance, allowed_mask
from duplex.training.scenes.recordings import (
    MIN_SILENCE_S,
    WINDOW_S,
    end_some_late,
    mask_agent_side,
    parse_conversation,
    time_agent_turns_as_recorded,
    window_end,
    window_scene,
    window_starts,
)
from duplex.training.scenes.scene import POLICY, VOICE_DELAY_S, Scene, end_of_turn
from duplex.training.scenes.sequence import IGNORE, NEVER, build_sequence, user_symbols
from tests.training.helpers import encode, spell


def entry(user: list, agent: list | None, seconds: float) -> dict:
    """An index line of a prepared folder."""
    return {"words": user, "agent": agent, "samples": int(seconds * SAMPLE_RATE)}


def words_every_half_second(text: str, start: float) -> list[list]:
    return [[w, start + 0.5 * i, start + 0.4 + 0.5 * i] for i, w in enumerate(text.split())]


def random_talk(seed: int) -> dict:
    """Two speakers with pauses, overlaps, backchannels and interruptions."""
    rng = np.random.default_rng(seed)
    sides = {"user": [], "agent": []}
    ends = {"user": 0.0, "agent": 0.0}
    now = float(rng.uniform(0, 2))
    for _ in range(24):
        side = str(rng.choice(["user", "agent"]))
        at = max(ends[side], now + float(rng.normal(0.4, 0.8)))
        short = side == "user" and rng.uniform() < 0.2
        known = ["yeah", "mhm"] if short else ["so", "wonderful", "well", "indeed.", "I", "think"]
        for _ in range(int(rng.integers(1, 3 if short else 14))):
            word = str(rng.choice(known))
            length = 0.08 + 0.05 * len(word)
            sides[side].append([word, round(at, 3), round(at + length, 3)])
            at += length + (float(rng.uniform(0.2, 2.0)) if rng.uniform() < 0.15 else 0.02)
        ends[side] = now = at
    return entry(sides["user"], sides["agent"], max(ends.values()) + 0.5)


def heard_in(scene: Scene) -> list[tuple[int, int]]:
    """What the user says, recognised two ticks after each word's end; moves the agent's turns."""
    due = []
    last = -1
    for turn in scene.user:
        due.append([])
        for word in turn.words:
            for _ in spell(word.text):
                last = max(int(word.end / TICK_S) + 2, last + 1)
                due[-1].append(last)
    time_agent_turns_as_recorded(scene, due, spell)
    return user_symbols(scene, due, spell)


@pytest.mark.parametrize("seed", range(25))
def test_a_window_begins_in_silence_with_a_whole_turn(seed):
    talk = random_talk(seed)
    conversation = parse_conversation(talk)
    starts = window_starts(conversation)
    words = talk["words"] + talk["agent"]
    assert starts
    for earliest, latest in starts:
        assert 0 <= earliest <= latest
        scene = window_scene(conversation, latest)
        assert 0 < scene.seconds <= WINDOW_S + 1e-6 and scene.user
        assert window_end(conversation, latest) - latest == scene.seconds
        silent_until = latest + (MIN_SILENCE_S - 0.01 if latest > 0 else 0)
        for _, start, end in words:
            assert not start < latest < end and not latest < start < silent_until


@pytest.mark.parametrize("cap", [1, 3])
@pytest.mark.parametrize("seed", range(25))
def test_windows_obey_the_runtime(seed, cap):
    """Every symbol is one the runtime would allow, and all whole turns are heard in order."""
    conversation = parse_conversation(random_talk(seed))
    for _, latest in window_starts(conversation):
        scene = window_scene(conversation, latest)
        heard = heard_in(scene)
        sequence = build_sequence(scene, heard, [], encode, cap)
        check_symbols(sequence, cap)
        said = [symbol for _, symbol in heard if symbol >= tokens.FIRST_TEXT_ID]
        got = [token for token in sequence.token if 100 <= token < 300]
        assert got == said[: len(got)] and len(got) >= len(said) - 3
        answers = [token for turn in scene.agent for token, _ in encode(turn.text)]
        spoken = [token for token in sequence.token if token >= 300]
        assert len(spoken) <= len(answers) and (not spoken or spoken[0] == answers[0])


def check_symbols(sequence, cap: int) -> None:
    """All symbols are allowed_mask, and there are no more of them a tick than the runtime takes."""
    grammar = Grammar()
    in_tick = 0
    budget = POLICY.onset_symbols
    for token, label in zip(sequence.token, sequence.label, strict=True):
        if token < 0:
            in_tick = 0
            silent = max(cap, POLICY.silent_symbols)
            budget = silent if grammar.agent_open else POLICY.onset_symbols
        else:
            in_tick += 1
            assert allowed_mask(grammar, 512, True, True)[token]
            grammar = advance(grammar, int(token))
        assert in_tick <= budget
        assert label == IGNORE or allowed_mask(grammar, 512, True, True)[label]


USER = [
    ["Is", 1.0, 1.2],
    ["it?", 1.3, 1.6],
    ["Yeah,", 3.5, 3.8],
    ["wait", 5.6, 5.9],
    ["a", 6.0, 6.1],
    ["bit", 6.2, 6.9],
]
AGENT = [
    ["Yes,", 2.0, 2.4],
    *words_every_half_second("it is and it always was so", 2.5),
    ["I", 7.5, 7.6],
    ["wait.", 7.7, 8.2],
]


def test_turns_answers_backchannels_and_interruptions():
    conversation = parse_conversation(entry(USER, AGENT, 10.0))
    question, assent, order = conversation.user
    first, second = conversation.agent
    assert [word.text for word in question.words] == ["is", "it"]
    assert first.text == "Yes, it is and it always was so"
    assert question.answered and order.answered and not assent.answered
    assert first.answers is question and second.answers is order and second.stopped_by is None
    assert first.stopped_by is order and first.cut and first.stop == pytest.approx(5.9)


def test_a_sentence_that_is_over_is_not_interrupted():
    agent = [[word + "." if word == "so" else word, start, end] for word, start, end in AGENT]
    assert parse_conversation(entry(USER, agent, 10.0)).agent[0].stopped_by is None


def test_yeah_in_a_silence_is_answered():
    assert parse_conversation(entry(USER[2:3], AGENT[-2:], 10.0)).user[0].answered


def test_a_cut_turn_stops_and_drops_nothing():
    """Its text may be over before the <stop>: nothing is asked there, least of all an <end>."""
    user = [["hi", 0.5, 0.8], ["no", 4.0, 4.3], ["wait", 4.4, 4.8], ["please", 4.9, 5.4]]
    text = "one two three four five six"
    agent = words_every_half_second(text, 2.0)
    scene = window_scene(parse_conversation(entry(user, agent, 8.0)), 0.0)
    sequence = build_sequence(scene, heard_in(scene), [], encode, 2)
    yielded = scene.agent[0].stop
    assert yielded == pytest.approx(max(4.9, (int(4.3 / TICK_S) + 3) * TICK_S))
    assert (sequence.dropped_at == NEVER).all()
    assert tokens.END not in sequence.token and tokens.END not in sequence.label
    symbols = sequence.token.tolist()
    stop_tick = sequence.tick[symbols.index(tokens.STOP)]
    assert stop_tick == int(np.ceil(yielded / TICK_S))
    assert [t for t in symbols if t > 300] == [token for token, _ in encode(text)]
    waiting = (sequence.tick > 4.2 / TICK_S) & (sequence.tick < stop_tick)
    assert (sequence.label[waiting] == IGNORE).any()
    assert (sequence.label[sequence.tick > stop_tick] == tokens.NEXT).any()
    # It begins a little before its first sound, as in the recording.
    start = sequence.tick[symbols.index(tokens.AGENT)] * TICK_S
    assert 0 <= start - (2.0 - VOICE_DELAY_S) <= TICK_S


def test_some_turns_end_late_but_before_the_next_one():
    """Else the LM learns that an end that was missed never comes, and waits for the timeout."""
    user = [["hi", 0.5, 0.9], ["so", 2.0, 2.4], ["and", 5.0, 5.4]]
    late = np.zeros(3, int)
    for seed in range(400):
        scene = window_scene(parse_conversation(entry(user, [], 9.0)), 0.0)
        end_some_late(scene, np.random.default_rng(seed))
        waits = [turn.end_ticks - POLICY.end_silence_ticks for turn in scene.user]
        late += [wait > 0 for wait in waits]
        begins = [turn.words[0].start for turn in scene.user[1:]]
        ends = [end_of_turn(turn) for turn in scene.user]
        assert all(end < begin for end, begin in zip(ends, begins, strict=False))
        assert all(0 <= wait <= 16 for wait in waits)
    assert all(0.1 < share < 0.2 for share in late / 400)
    end_some_late(Scene(9.0), np.random.default_rng(0))  # nobody spoke in this window


def test_an_agent_that_came_in_too_early_learns_to_wait():
    user = [["so", 0.5, 0.8], ["wonderful", 0.9, 1.9]]
    scene = window_scene(parse_conversation(entry(user, [["Yes.", 1.2, 1.6]], 5.0)), 0.0)
    sequence = build_sequence(scene, heard_in(scene), [], encode, 1)
    controls = [token for token in sequence.token if 0 <= token < tokens.FIRST_TEXT_ID]
    assert controls == [tokens.USER, tokens.USER_END, tokens.AGENT, tokens.END]


def test_without_the_agents_side_only_hearing_is_learned():
    user = [["hi", 0.5, 0.8], ["you", 3.0, 3.4]]
    scene = window_scene(parse_conversation(entry(user, None, 6.0)), 0.0)
    whole = build_sequence(scene, heard_in(scene), [1, 2], encode, 1)
    masked = mask_agent_side(whole)
    grammar = Grammar()
    rows = zip(masked.token[2:], masked.label[2:], whole.label[2:], strict=True)
    for token, label, before in rows:
        grammar = grammar if token < 0 else advance(grammar, int(token))
        hidden = before == tokens.NEXT and not grammar.user_open
        assert label == (IGNORE if hidden else before)
    assert (masked.label == tokens.NEXT).any()
    assert (masked.label == tokens.USER).sum() == 2
    assert (masked.label == tokens.USER_END).sum() == 2
