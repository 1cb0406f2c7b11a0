"""The sound of a scene: every word where the scene puts it."""

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.training.scenes.render import ONSET_S, mix_user_words, words_with_sound
from duplex.training.scenes.scene import Scene, UserTurn, shift_words


def test_an_utterance_sounds_as_it_was_spoken():
    """Its words one after the other at their times, without the silence before the first one."""
    times = [["Good", 0.5, 0.7], ["day.", 0.75, 1.0]]
    wave = np.random.default_rng(0).normal(0, 0.1, int(1.2 * SAMPLE_RATE)).astype(np.float32)
    words = shift_words(words_with_sound(wave, times), 1.0)
    channel = mix_user_words(Scene(3.2, [UserTurn(words)]))
    begin = round((0.5 - ONSET_S) * SAMPLE_RATE)
    expected = np.zeros_like(channel)
    expected[SAMPLE_RATE + begin : SAMPLE_RATE + len(wave)] = wave[begin:]
    assert [word.text for word in words] == ["good", "day"]
    np.testing.assert_allclose(channel, expected, atol=1e-6)
