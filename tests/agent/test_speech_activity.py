"""What was heard and is not written yet: order is kept; levels tell speech from noise."""

import pytest
import torch

from duplex.agent import speech_activity as hearing
from duplex.agent.speech_activity import (
    FORGOTTEN_TICKS,
    Hearing,
    expect,
    of_its_own,
    pressing,
    read_anew,
    sure,
    turn_ended,
    weigh,
    written,
)


def test_sure_pieces_come_in_order_and_are_not_passed_over():
    state = Hearing()
    expect(state, 0, [(1, 0.3)])
    expect(state, 1, [(2, 0.9), (3, 0.8)])
    assert pressing(state) == {1: 0.3, 2: 0.9}  # the faint one may be left out, 3 has to wait for 2
    written(state, 2)
    assert pressing(state) == {3: 0.8}
    written(state, 9)  # the LM knows better: it stands for the oldest
    assert pressing(state) == {}
    written(state, 9)  # and with nothing waiting nothing happens
    assert state.unwritten == []


def test_a_word_said_twice_is_written_twice():
    state = Hearing()
    expect(state, 5, [(7, 0.9), (7, 0.6)])
    written(state, 7)
    assert pressing(state) == {7: 0.6}


def test_what_was_not_written_is_forgotten():
    state = Hearing()
    expect(state, 0, [(1, 0.9)])
    expect(state, FORGOTTEN_TICKS - 1, [])
    assert pressing(state)
    expect(state, FORGOTTEN_TICKS, [])
    assert not pressing(state)


def test_speech_is_told_from_steady_noise_by_its_level():
    state = Hearing()
    for _ in range(20):
        weigh(state, -40.0)
    assert state.quiet_ticks == 20
    weigh(state, -15.0)
    assert state.quiet_ticks == 0
    weigh(state, -36.0)  # another talker, far behind
    assert state.quiet_ticks == 1
    for _ in range(200):
        weigh(state, -15.0)  # what never stops is no speech
    assert state.quiet_ticks > 0


def speak(state: Hearing, level: float) -> None:
    """Half a second of speech and one of quiet."""
    for tick in range(18):
        weigh(state, level if tick < 6 else -60.0)


def test_near_is_who_is_about_as_loud_as_the_user_was():
    state = Hearing()
    weigh(state, -60.0)
    weigh(state, -20.0), weigh(state, -20.0)
    assert state.near_ticks == 0 and not hearing.far(state), "nobody has been the user yet"
    speak(state, -20.0)
    turn_ended(state, True)
    weigh(state, -30.0)  # a television
    assert hearing.far(state) and state.near_ticks == 0 and state.far_ticks > 10
    weigh(state, -25.0), weigh(state, -22.0)
    assert not hearing.far(state) and state.near_ticks == 2 and state.far_ticks == 0


def test_one_loud_turn_makes_nobody_far_and_who_talks_on_from_afar_is_the_user_in_the_end():
    state = Hearing()
    weigh(state, -60.0)
    for level in (-28.0, -18.0, -28.0):
        speak(state, level)
        assert not hearing.far(state)
        turn_ended(state, True)
    turns = 0
    while turns == 0 or hearing.far(state):
        speak(state, -36.0)
        turn_ended(state, False)
        turns += 1
    assert 2 <= turns <= 10


def test_levels_of_a_batch():
    audio = torch.stack([torch.zeros(100), torch.full((100,), 0.1)])
    assert hearing.levels(audio) == pytest.approx([hearing.QUIETEST_DB, -20.0])


@pytest.mark.parametrize(
    ("word", "own"),
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
def test_the_agents_own_words_are_its_echo(word, own):
    assert of_its_own(word, ["The", "capital", "is", "Paris."]) == own


def test_only_what_is_sure_is_foreseen():
    state = Hearing()
    for tick, heard in enumerate([[(1, 0.9)], [(2, 0.4)], [(3, 0.6), (4, 0.2)]]):
        expect(state, tick, heard)
    assert sure(state) == [1, 3]


def test_a_turn_that_is_read_anew_is_no_surer():
    heard = Hearing()
    expect(heard, 0, [(70, 0.3), (71, 0.4)])
    read_anew(heard)
    assert heard.surest == 0.4 and not heard.unwritten
    read_anew(heard)
    assert heard.surest == 0.4
