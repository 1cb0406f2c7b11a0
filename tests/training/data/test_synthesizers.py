"""Synthetic voices: which of them speak, and when each word is said."""

from types import SimpleNamespace

import numpy as np
import pytest

from duplex.audio import SAMPLE_RATE
from duplex.training.data.synthesizers import (
    DURATION_UNIT_S,
    SPACE_ID,
    KokoroVoice,
    kokoro_voices,
    word_times,
)

TEXT = "So, go"
PHONES = [0, 50, 51, 3, SPACE_ID, 60, 61, 0]  # A comma is 3, the pads are 0.
DURATIONS = np.array([4, 3, 5, 2, 1, 2, 6, 3])


def test_words_are_where_their_phones_are():
    """The last phone before a pause holds the pause: at most two units of it are the word's."""
    found = word_times(TEXT, PHONES, DURATIONS)
    units = [[w, round(a / DURATION_UNIT_S), round(b / DURATION_UNIT_S)] for w, a, b in found]
    assert units == [["So,", 4, 9], ["go", 15, 19]]
    assert word_times("So go on", PHONES, DURATIONS) == [], "what cannot be told is left out"


def test_held_out_kokoro_voices_do_not_speak_in_training(tmp_path):
    for name in ("af_bella", "af_kore", "am_liam", "bm_george", "jf_alpha", "jm_kumo"):
        np.full((510, 256), len(name), np.float32).tofile(tmp_path / f"{name}.bin")
    voices = kokoro_voices(tmp_path)
    assert list(voices) == ["af_bella", "bm_george"]
    assert all(voice.shape == (510, 256) for voice in voices.values())
    (tmp_path / "af_bella.bin").unlink()
    with pytest.raises(SystemExit, match="npm pack kokoro-js"):
        kokoro_voices(tmp_path)


class ToneKokoro:
    """In place of the network: a tone as long as the durations, louder for a louder voice."""

    def __init__(self):
        self.session = SimpleNamespace(run=self.run)

    def feeds(self, text, voice, speed):
        return {"tokens": np.array([PHONES]), "style": voice[0], "speed": speed}

    def run(self, _, feeds):
        samples = round(DURATIONS.sum() * DURATION_UNIT_S * SAMPLE_RATE)
        wave = feeds["style"].mean() * np.sin(np.arange(samples) * 0.1)
        return [wave[None].astype(np.float32), DURATIONS[None].astype(np.float32)]


def test_kokoro_speaks_with_one_voice_or_a_mixture_of_another_size():
    voices = {"a": np.full((510, 256), 0.2), "b": np.full((510, 256), 0.4)}
    voice = KokoroVoice(ToneKokoro(), voices)
    mixed = set()
    for seed in range(12):
        wave, entry = voice.say(TEXT, np.random.default_rng(seed))
        size = len(wave) / (DURATIONS.sum() * DURATION_UNIT_S * SAMPLE_RATE)
        assert float(entry["voice"].split("size=")[1]) == pytest.approx(size, abs=6e-3)
        assert 0.87 < size < 1.15
        (_, begin, _), (_, _, end) = entry["words"]
        assert begin == pytest.approx(4 * DURATION_UNIT_S * size, abs=2e-3)
        assert end == pytest.approx(19 * DURATION_UNIT_S * size, abs=2e-3)
        loudness = np.sqrt(2 * np.square(wave).mean())
        mixed.add("+" in entry["voice"])
        if "+" in entry["voice"]:
            assert 0.22 < loudness < 0.38
        else:
            assert loudness == pytest.approx(0.2, rel=0.05) or loudness > 0.38
    assert mixed == {True, False}
