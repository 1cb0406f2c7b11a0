"""Scenes told by the agent's own channel, without the bench's judges."""

import numpy as np
import pytest

from duplex.audio import SAMPLE_RATE
from duplex.bench.controls import Silent, Talking
from duplex.training.evaluation.behaviour import handled_scenes, voice_of
from tests.bench.test_run import SCENES, Cascade, parts, sound


def test_voice_is_what_is_audible():
    wave = np.zeros(SAMPLE_RATE, np.float32)
    wave[: SAMPLE_RATE // 10] = 0.1
    wave[SAMPLE_RATE // 2 :] = -0.1
    assert voice_of(wave) == [(0.0, pytest.approx(0.1)), (0.5, 1.0)]
    assert voice_of(np.zeros(7, np.float32)) == []


def test_controls_handle_nothing_and_a_cascade_answers():
    for agent in (Silent(1), Talking(1, sound(1.0))):
        found = handled_scenes(agent, SCENES)
        assert list(found) == [scene.kind for scene in SCENES]
        assert sum(handled for handled, _ in found.values()) == 0
    found = handled_scenes(Cascade(1, parts()), SCENES)
    assert found["turn"] == [1, 1] and found["pause"] == [0, 1]
