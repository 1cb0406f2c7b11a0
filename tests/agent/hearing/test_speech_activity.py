"""Levels tell speech from noise, and near from far."""

import pytest
import torch

from duplex.agent.hearing.speech_activity import (
    SILENT_DB,
    SpeechActivity,
    end_turn,
    is_far,
    levels,
    update_levels,
)
from duplex.agent.turn_policy import TurnPolicy

POLICY = TurnPolicy()


def hear(activity: SpeechActivity, *levels_db: float) -> None:
    """Ticks of these levels."""
    for level_db in levels_db:
        update_levels(activity, level_db, POLICY)


def speak(activity: SpeechActivity, level_db: float) -> None:
    """Half a second of speech and one of quiet."""
    hear(activity, *[level_db] * 6, *[-60.0] * 12)


def test_speech_is_told_from_steady_noise_by_its_level():
    activity = SpeechActivity()
    hear(activity, *[-40.0] * 20)
    assert activity.silence_ticks == 20
    hear(activity, -15.0)
    assert activity.silence_ticks == 0
    hear(activity, -36.0)  # another talker, far behind
    assert activity.silence_ticks == 1
    hear(activity, *[-15.0] * 200)  # what never stops is no speech
    assert activity.silence_ticks > 0


def test_near_is_who_is_about_as_loud_as_the_user_was():
    activity = SpeechActivity()
    hear(activity, -60.0, -20.0, -20.0)
    assert activity.near_ticks == 0, "nobody has been the user yet"
    assert not is_far(activity, POLICY)
    speak(activity, -20.0)
    end_turn(activity, True, POLICY)
    hear(activity, -30.0)  # a television
    assert is_far(activity, POLICY) and activity.near_ticks == 0 and activity.far_ticks > 10
    hear(activity, -25.0, -22.0)
    assert not is_far(activity, POLICY) and activity.near_ticks == 2 and activity.far_ticks == 0


def test_one_loud_turn_makes_nobody_far():
    activity = SpeechActivity()
    hear(activity, -60.0)
    for level_db in (-28.0, -18.0, -28.0):
        speak(activity, level_db)
        assert not is_far(activity, POLICY)
        end_turn(activity, True, POLICY)


def test_who_talks_on_from_afar_is_the_user_in_the_end():
    activity = SpeechActivity()
    hear(activity, -60.0)
    speak(activity, -24.0)
    end_turn(activity, True, POLICY)
    turns = 0
    while turns == 0 or is_far(activity, POLICY):
        speak(activity, -36.0)
        end_turn(activity, False, POLICY)
        turns += 1
    assert 2 <= turns <= 10


def test_levels_of_a_batch():
    audio = torch.stack([torch.zeros(100), torch.full((100,), 0.1)])
    assert levels(audio) == pytest.approx([SILENT_DB, -20.0])
