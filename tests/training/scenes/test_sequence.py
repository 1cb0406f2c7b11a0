"""Scenes as sequences: the grammar holds, times hold, yielding forgets what was not said."""

import numpy as np
import pytest

from duplex.audio import TICK_S
from duplex.model import tokens
from duplex.model.tokens import Grammar, advance, allowed_mask
from duplex.training.scenes.scene import (
    POLICY,
    VOICE_DELAY_S,
    AgentTurn,
    Scene,
    UserTurn,
    Word,
    guess_times,
    scene_from_turns,
)
from duplex.training.scenes.sequence import (
    IGNORE,
    NEVER,
    build_sequence,
    build_text_sequence,
    time_agent_turns,
    time_to_yield,
    user_symbols,
)
from tests.training.helpers import encode, spell

DIALOGUE = [
    {"role": "user", "text": "what is the capital of france"},
    {"role": "agent", "text": "The capital of France is Paris, a city on the river Seine."},
    {"role": "user", "text": "say that again please"},
    {"role": "agent", "text": "Paris is the capital of France."},
]


def scene_and_symbols(seed: int) -> tuple[Scene, list[tuple[int, int]]]:
    """A scene of DIALOGUE, and what the user says in it, recognised at the words' ends."""
    rng = np.random.default_rng(seed)
    scene = scene_from_turns(DIALOGUE, lambda text: guess_times(text, rng), rng)
    due = []
    last = -1
    for turn in scene.user:
        due.append([])
        for word in turn.words:
            for _ in spell(word.text):
                last = max(int(word.end / TICK_S), last + 1)
                due[-1].append(last)
    time_agent_turns(scene, due, spell)
    return scene, user_symbols(scene, due, spell)


@pytest.mark.parametrize("cap", [1, 2, 3])
@pytest.mark.parametrize("seed", range(12))
def test_sequence_obeys_the_runtime(seed, cap):
    """Every symbol is one the runtime would allow, no more a tick than it takes."""
    scene, heard = scene_and_symbols(seed)
    sequence = build_sequence(scene, heard, [1, 2], encode, cap)
    grammar = Grammar()
    in_tick = budget = open_ticks = 0
    for token, label in zip(sequence.token[2:], sequence.label[2:], strict=True):
        if token < 0:
            in_tick = 0
            open_ticks = open_ticks + 1 if grammar.agent_open else 0
            silent = max(cap, POLICY.silent_symbols)
            speaking = cap if open_ticks > 2 else silent  # After two ticks it sounds.
            budget = speaking if grammar.agent_open else POLICY.onset_symbols
        else:
            in_tick += 1
            assert allowed_mask(grammar, 512, True, True)[token]
            grammar = advance(grammar, int(token))
        assert in_tick <= budget
        assert label == IGNORE or allowed_mask(grammar, 512, True, True)[label]


@pytest.mark.parametrize("seed", range(12))
def test_sequence_holds_all_that_is_heard_in_order(seed):
    scene, heard = scene_and_symbols(seed)
    sequence = build_sequence(scene, heard, [1, 2], encode, 2)
    said = [symbol for _, symbol in heard if symbol >= tokens.FIRST_TEXT_ID]
    got = [token for token in sequence.token if 100 <= token < 300]
    # The scene's end may cut the last ones.
    assert got == said[: len(got)] and len(got) >= len(said) - 3
    answered = sum(turn.answered for turn in scene.user)
    assert (sequence.token == tokens.USER_END).sum() == answered
    assert (sequence.token == tokens.ASIDE).sum() == len(scene.user) - answered


def test_labels_are_the_next_symbol_of_the_tick():
    scene, heard = scene_and_symbols(1)
    sequence = build_sequence(scene, heard, [], encode, 2)
    for label, following in zip(sequence.label, sequence.token[1:], strict=False):
        assert label == following if following >= 0 else label in (tokens.NEXT, IGNORE)


def test_interruption_drops_what_was_not_said():
    greeting = UserTurn([Word("hi", 0.2, 0.5)])
    order = UserTurn([Word("yeah", 1.8, 2.0), Word("stop", 2.0, 2.3)])
    speech = AgentTurn("one two three four five six seven eight nine ten", 0.5, greeting, order)
    scene = Scene(6.0, [greeting, order], [speech])
    due = [[5], [25, 26, 28, 29]]
    time_agent_turns(scene, due, spell)
    sequence = build_sequence(scene, user_symbols(scene, due, spell), [], encode, 1)
    assert scene.agent[0].stop == 29 * TICK_S, "not at the backchannel"
    stop = int(np.flatnonzero(sequence.token == tokens.STOP)[0])
    dropped = np.flatnonzero(sequence.dropped_at < NEVER)
    assert len(dropped) and (sequence.dropped_at[dropped] == stop).all()
    kept = [i for i, token in enumerate(sequence.token) if token > 300 and i not in dropped]
    assert kept and max(kept) < min(dropped), "the beginning was said and stays"


def test_text_leads_the_voice_by_no_more_than_the_bound():
    scene = Scene(8.0, [], [AgentTurn(" ".join(["word"] * 40), 0.0)])
    sequence = build_sequence(scene, [], [], encode, 3)
    decided = 0.0
    for token, tick in zip(sequence.token, sequence.tick, strict=True):
        if token > 300:
            decided += 0.06 * 5 + 0.02
            played = max(0.0, tick * TICK_S - VOICE_DELAY_S)
            assert decided - played <= POLICY.lead_s + 0.33
    assert (sequence.label == IGNORE).any(), "while it waits, nothing is asked"


def test_a_backchannel_has_no_answer():
    scene = Scene(4.0, [UserTurn([Word("yeah", 1.0, 1.3)], answered=False)], [])
    symbols = user_symbols(scene, [[16, 17]], spell)
    sequence = build_sequence(scene, symbols, [], encode, 1)
    controls = [token for token in sequence.token if 0 <= token < tokens.FIRST_TEXT_ID]
    assert controls == [tokens.USER, tokens.ASIDE]


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ("what is that", 1),
        ("yeah but why", 2),
        ("that's good but why", 3),
        ("that's not what i meant", 2),
        ("yeah that's right", 3),
    ],
)
def test_agent_yields_when_it_is_no_longer_assent(said, count):
    words = [Word(text, i, i + 1) for i, text in enumerate(said.split())]
    ticks = list(range(100, 100 + sum(len(spell(word.text)) for word in words)))
    heard = sum(len(spell(word.text)) for word in words[:count])
    assert time_to_yield(UserTurn(words), ticks, spell) == ticks[heard - 1] * TICK_S


def test_text_alone_teaches_what_the_agent_says():
    turns = DIALOGUE[:2]
    sequence = build_text_sequence(turns, [1, 2], encode, spell)
    begin = sequence.token.tolist().index(tokens.AGENT)
    assert sequence.token[2] == tokens.USER and sequence.token[begin - 1] == tokens.USER_END
    said = [token for token, _ in encode(turns[1]["text"])]
    end = begin + len(said) + 1
    assert sequence.label[begin:end].tolist() == [*said, tokens.END]
    assert sequence.token[begin + 1 :].tolist() == [*said, tokens.END]
    # Nothing else can be known without ticks.
    assert (sequence.label[:begin] == IGNORE).all() and sequence.label[-1] == IGNORE
    assert (sequence.token >= 0).all()
