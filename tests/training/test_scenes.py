"""Scenes laid out as sequences: the grammar holds, times hold, and yielding forgets what was not said."""

from dataclasses import replace

import numpy as np
import pytest
from duplex.training import dialogues
from duplex.training.scenes.sequence import (
    IGNORE,
    NEVER,
    VOICE_DELAY_SECONDS,
    AgentTurn,
    Scene,
    UserTurn,
    Word,
    converse,
    follow,
    guess_times,
    heard_symbols,
    lay_out,
    lay_out_text,
)

from duplex.agent.turn_policy import TurnPolicy
from duplex.audio import SAMPLE_RATE, TICK_S
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
    advance,
    allowed_mask,
)

POLICY = TurnPolicy()

DIALOGUE = [
    {"role": "user", "text": "what is the capital of france"},
    {"role": "agent", "text": "The capital of France is Paris, a city on the river Seine."},
    {"role": "user", "text": "say that again please"},
    {"role": "agent", "text": "Paris is the capital of France."},
]


def spell(word: str) -> list[int]:
    return [100 + ord(letter) for letter in word[::3]]  # a piece for every third letter


def encode(text: str) -> list[tuple[int, str]]:
    return [(300 + len(word), " " + word) for word in text.split()]


def scene_and_due(seed: int):
    rng = np.random.default_rng(seed)
    scene = converse(DIALOGUE, lambda text: guess_times(text, rng), rng)
    due, last = [], -1
    for turn in scene.user:
        ticks = []
        for word in turn.words:
            for _ in spell(word.text):
                last = max(int(word.end / TICK_S), last + 1)
                ticks.append(last)
        due.append(ticks)
    follow(scene, due, spell)
    return scene, heard_symbols(scene, due, spell)


@pytest.mark.parametrize("cap", [1, 2, 3])
@pytest.mark.parametrize("seed", range(12))
def test_layout_obeys_the_runtime(seed, cap):
    """Every symbol is one the runtime would allow, no more a tick than it takes, and all hearing arrives in order."""
    scene, heard = scene_and_due(seed)
    sequence = lay_out(scene, heard, [1, 2], encode, cap)
    grammar, in_tick, most, open_ticks = Grammar(), 0, 0, 0
    for token, label in zip(sequence.token[2:], sequence.label[2:], strict=True):
        if token < 0:
            open_ticks = open_ticks + 1 if grammar.agent_open else 0  # after two of them it sounds
            in_tick, most = (
                0,
                (cap if open_ticks > 2 else max(cap, POLICY.silent_symbols))
                if grammar.agent_open
                else POLICY.onset_symbols,
            )
        else:
            in_tick += 1
            assert allowed_mask(grammar, 512, True, True)[token]
            grammar = advance(grammar, int(token))
        assert in_tick <= most
        assert label == IGNORE or allowed_mask(grammar, 512, True, True)[label]
    pieces = [s for _, s in heard if s >= FIRST_TEXT_ID]
    got = [t for t in sequence.token if 100 <= t < 300]
    assert (
        got == pieces[: len(got)] and len(got) >= len(pieces) - 3
    )  # the scene's end may cut the last
    assert (sequence.token == USER_END).sum() == sum(turn.answered for turn in scene.user)
    assert (sequence.token == ASIDE).sum() == sum(not turn.answered for turn in scene.user)


def test_labels_are_the_next_symbol_of_the_tick():
    scene, heard = scene_and_due(1)
    sequence = lay_out(scene, heard, [], encode, 2)
    for i in range(len(sequence.token) - 1):
        following = sequence.token[i + 1]
        if following >= 0:
            assert sequence.label[i] == following
        else:
            assert sequence.label[i] in (NEXT, IGNORE)


def test_barge_in_drops_what_was_not_said():
    greeting, order = (
        UserTurn([Word("hi", 0.2, 0.5)]),
        UserTurn([Word("yeah", 1.8, 2.0), Word("stop", 2.0, 2.3)]),
    )
    scene = Scene(
        6.0,
        [greeting, order],
        [AgentTurn("one two three four five six seven eight nine ten", 0.5, greeting, order)],
    )
    due = [[5], [25, 26, 28, 29]]
    follow(scene, due, spell)
    sequence = lay_out(scene, heard_symbols(scene, due, spell), [], encode, 1)
    assert scene.agent[0].stop == 29 * TICK_S  # not at "yeah"
    stop = int(np.flatnonzero(sequence.token == STOP)[0])
    dropped = np.flatnonzero(sequence.dropped_at < NEVER)
    assert len(dropped) and (sequence.dropped_at[dropped] == stop).all()
    spoken = [i for i, t in enumerate(sequence.token) if t > 300 and i not in dropped]
    assert spoken and max(spoken) < min(dropped)  # the beginning was said and stays


def test_text_leads_the_voice_by_no_more_than_the_bound():
    text = " ".join(["word"] * 40)
    scene = Scene(8.0, [], [AgentTurn(text, 0.0)])
    sequence = lay_out(scene, [], [], encode, 3)
    decided = 0.0
    for token, tick in zip(sequence.token, sequence.tick, strict=True):
        if token > 300:
            decided += 0.06 * 5 + 0.02
            assert decided - max(0.0, tick * TICK_S - VOICE_DELAY_SECONDS) <= POLICY.lead_s + 0.33
    assert (sequence.label == IGNORE).any()  # and while it waits, nothing is asked


def test_an_utterance_is_performed_as_it_was_spoken(monkeypatch):
    """Its words one after the other at their times: the silence before the first one is not part of it."""
    monkeypatch.setattr(dialogues, "augment", lambda wave, *_: wave)
    times = [["Good", 0.5, 0.7], ["day.", 0.75, 1.0]]
    wave = np.random.default_rng(0).normal(0, 0.1, int(1.2 * SAMPLE_RATE)).astype(np.float32)
    words = [
        replace(w, start=w.start + 1.0, end=w.end + 1.0) for w in dialogues.voiced(wave, times)
    ]
    channel = dialogues.perform(Scene(3.2, [UserTurn(words)]), [], None)
    begin = round((0.5 - dialogues.ONSET_SECONDS) * SAMPLE_RATE)
    shifted = np.zeros_like(channel)
    shifted[SAMPLE_RATE + begin : SAMPLE_RATE + len(wave)] = wave[begin:]
    assert [w.text for w in words] == ["good", "day"]
    np.testing.assert_allclose(channel, shifted, atol=1e-6)


def test_no_answer_to_a_back_channel():
    scene = Scene(4.0, [UserTurn([Word("yeah", 1.0, 1.3)], answered=False)], [])
    sequence = lay_out(scene, heard_symbols(scene, [[16, 17]], spell), [], encode, 1)
    assert AGENT not in sequence.token and END not in sequence.token
    assert [t for t in sequence.token if t in (USER, USER_END, ASIDE)] == [USER, ASIDE]


def test_text_alone_teaches_what_the_agent_says():
    turns = DIALOGUE[:2]
    sequence = lay_out_text(turns, [1, 2], encode, spell)
    begin = sequence.token.tolist().index(AGENT)
    assert sequence.token[2] == USER and sequence.token[begin - 1] == USER_END
    said = [token for token, _ in encode(turns[1]["text"])]
    assert sequence.label[begin : begin + len(said) + 1].tolist() == [*said, END]
    assert sequence.token[begin + 1 : -1].tolist() == said and sequence.token[-1] == END
    assert (sequence.label[:begin] == IGNORE).all() and sequence.label[
        -1
    ] == IGNORE  # nothing else can be known without ticks
    assert (sequence.token >= 0).all()
