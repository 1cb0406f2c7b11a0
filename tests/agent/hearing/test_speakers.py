"""Voices gathered to people: made-up vectors in, labels out."""

import numpy as np
import pytest

from duplex.agent.hearing import speakers
from duplex.agent.hearing.speakers import SpeakerPolicy, Speakers

POLICY = SpeakerPolicy()
ANNA = np.eye(8)[0]
BEN = np.eye(8)[1]
CARA = np.eye(8)[2]


def say(state: Speakers, voice, ticks: int, has_words: bool = True) -> list[int | None]:
    """So many ticks of speech in a voice; the label after each."""
    labels = []
    for _ in range(ticks):
        speakers.hear(state, voice, True, has_words, POLICY)
        labels.append(state.segment.person)
    return labels


def pause(state: Speakers, ticks: int = 10) -> None:
    for _ in range(ticks):
        speakers.hear(state, np.zeros(8), False, False, POLICY)


@pytest.mark.parametrize(
    "voices, expected",
    [
        ([ANNA, ANNA, ANNA], [1, 1, 1]),
        ([ANNA, BEN, ANNA, BEN], [1, 2, 1, 2]),
        ([ANNA, BEN, CARA, BEN, ANNA], [1, 2, 3, 2, 1]),
        (list(np.eye(8)[[0, 1, 2, 3, 0]]), [1, 2, 3, 4, 1]),
    ],
    ids=["one", "two", "three", "four"],
)
def test_people_are_counted_as_they_are_heard(voices, expected):
    """Each speaks for 1.5 s, by the end of which the label is there."""
    state = Speakers()
    found = []
    for voice in voices:
        found.append(say(state, voice, 19)[-1])
        pause(state)
    assert found == expected


def test_who_was_heard_before_has_a_label_sooner_than_a_new_voice():
    state = Speakers()
    assert say(state, ANNA, 19).index(1) == POLICY.label_ticks - 1
    pause(state)
    assert say(state, BEN, 19).index(2) == POLICY.new_ticks - 1
    pause(state)
    assert say(state, ANNA, 19).index(1) == POLICY.label_ticks - 1


def test_a_fifth_voice_is_the_most_alike_of_four():
    state = Speakers()
    for voice in np.eye(8)[:4]:
        say(state, voice, 20)
        pause(state)
    label = say(state, np.eye(8)[4] + 0.3 * np.eye(8)[2], 20)[-1]
    assert label == 3


def test_a_sound_without_words_is_nobody():
    state = Speakers()
    assert say(state, ANNA, 30, has_words=False) == [None] * 30
    pause(state)
    assert not state.people


def test_a_voice_that_begins_without_a_pause_is_told_apart():
    state = Speakers()
    say(state, ANNA, 30)
    labels = say(state, BEN - 0.2 * ANNA, 30)
    assert labels[-1] == 2
    assert [person.id for person in state.people] == [1, 2]


def test_a_label_changes_as_more_is_heard():
    """The first tenths sound like the person before."""
    state = Speakers()
    say(state, ANNA, 20)
    pause(state)
    assert say(state, 0.6 * ANNA + 0.4 * BEN, 8)[-1] == 1
    assert say(state, BEN, 20)[-1] == 2


def test_people_who_turn_out_to_be_one_are_joined():
    state = Speakers()
    say(state, ANNA, 20)
    pause(state)
    say(state, 0.3 * ANNA + BEN, 20)
    pause(state)
    assert len(state.people) == 2
    for _ in range(3):
        say(state, ANNA + 0.55 * BEN, 50)
        pause(state)
    assert [person.id for person in state.people] == [1]
    assert speakers.current_id(state, 2) == 1


def test_a_voice_that_was_introduced_is_known_when_it_speaks():
    state = Speakers()
    assert speakers.introduce(state, BEN, POLICY) == 1
    assert say(state, ANNA, 20)[-1] == 2
    pause(state)
    assert say(state, BEN, 20)[-1] == 1
