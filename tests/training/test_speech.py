"""Synthetic speech: which voices speak, when each word is said, and pools that an interrupted run goes on with."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from duplex.training.data.pool import Pool
from duplex.training.speech import (
    HIBARI_FRAME_SECONDS,
    SPACE,
    KokoroVoice,
    kokoro_voices,
    synthetic_utterances,
    word_times,
    write_pool,
)

from duplex.audio import SAMPLE_RATE

FRAME = round(HIBARI_FRAME_SECONDS * SAMPLE_RATE)
TEXT, PHONES = "So, go", [0, 50, 51, 3, SPACE, 60, 61, 0]  # a comma is 3, pads are 0
DURATIONS = np.array([4, 3, 5, 2, 1, 2, 6, 3])


def test_words_are_where_their_phones_are():
    """The last phone before a pause holds the pause: no more than two frames of it are the word's."""
    times = [(word, round(begin / HIBARI_FRAME_SECONDS), round(end / HIBARI_FRAME_SECONDS)) for word, begin, end in
             word_times(TEXT, PHONES, DURATIONS)]  # fmt: skip
    assert times == [("So,", 4, 9), ("go", 15, 19)]
    assert word_times("So go on", PHONES, DURATIONS) == [], "what cannot be told is left out"


def test_voices_that_measure_do_not_speak_in_training(tmp_path):
    for name in ("af_bella", "af_kore", "am_liam", "bm_george", "jf_alpha", "jm_kumo"):
        np.full((510, 256), len(name), np.float32).tofile(tmp_path / f"{name}.bin")
    assert list(voices := kokoro_voices(tmp_path)) == ["af_bella", "bm_george"]
    assert all(voice.shape == (510, 256) for voice in voices.values())
    (tmp_path / "af_bella.bin").unlink()
    with pytest.raises(SystemExit, match="npm pack kokoro-js"):
        kokoro_voices(tmp_path)


class ToneKokoro:
    """In place of the network: one tone as long as the durations say, and louder for a louder voice."""

    def __init__(self):
        self.session = SimpleNamespace(run=self.run)

    def feeds(self, text, voice, speed):
        return {"tokens": np.array([PHONES]), "style": voice[0], "speed": speed}

    def run(self, _, feeds):
        wave = feeds["style"].mean() * np.sin(np.arange(DURATIONS.sum() * FRAME) * 0.1)
        return [wave[None].astype(np.float32), DURATIONS[None].astype(np.float32)]


def test_kokoro_speaks_with_one_voice_or_a_mixture_of_another_size(tmp_path):
    voice = KokoroVoice.__new__(KokoroVoice)
    voice.kokoro, voice.voices = (
        ToneKokoro(),
        {"a": np.full((510, 256), 0.2), "b": np.full((510, 256), 0.4)},
    )
    names = set()
    for seed in range(12):
        wave, entry = voice.say(TEXT, np.random.default_rng(seed))
        size = len(wave) / (DURATIONS.sum() * FRAME)
        assert (
            float(entry["voice"].split("size=")[1]) == pytest.approx(size, abs=6e-3)
            and 0.87 < size < 1.15
        )
        (_, begin, _), (_, _, end) = entry["words"]
        assert begin == pytest.approx(4 * HIBARI_FRAME_SECONDS * size, abs=2e-3)
        assert end == pytest.approx(19 * HIBARI_FRAME_SECONDS * size, abs=2e-3)
        names.add("+" in entry["voice"])
        loudness = np.sqrt(2 * np.square(wave).mean())
        assert (
            0.22 < loudness < 0.38
            if "+" in entry["voice"]
            else loudness == pytest.approx(0.2, rel=0.05) or loudness > 0.38
        )
    assert names == {True, False}


def test_an_interrupted_pool_goes_on_with_the_same_utterances(tmp_path):
    texts = [f"sentence {i}" for i in range(30)]

    def speak(text, rng):
        return rng.normal(0, 0.1, 1000 + 10 * int(text.split()[1])).astype(np.float32), {
            "voice": "noise",
            "words": [],
        }

    hours = 40_000 / SAMPLE_RATE / 3600
    write_pool(lambda first: synthetic_utterances(texts, speak, 7, first), tmp_path / "once", hours)
    write_pool(
        lambda first: synthetic_utterances(texts, speak, 7, first), tmp_path / "twice", hours / 2
    )
    lines = (tmp_path / "twice" / "index.jsonl").read_text()
    with open(tmp_path / "twice" / "audio.i16", "ab") as audio:
        audio.write(b"\0" * 999)  # a wave whose line was not written any more
    write_pool(
        lambda first: synthetic_utterances(texts, speak, 7, first), tmp_path / "twice", hours
    )
    once, twice = Pool(tmp_path / "once"), Pool(tmp_path / "twice")
    assert once.entries == twice.entries and len(once) > len(lines.splitlines()) > 10
    assert np.array_equal(once.audio, twice.audio)
    splits = {json.dumps([e["text"], e["split"]]) for e in once.entries}
    assert len(splits) == len({e["text"] for e in once.entries}), "a text is in one split"
