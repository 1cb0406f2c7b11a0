"""The speaker head's training: voices of pools, streams of several of them, and the program."""

import itertools
import sys

import numpy as np
import pytest
import torch

from duplex.audio import ENCODER_FRAMES_PER_TICK, SAMPLE_RATE, TICK_SAMPLES
from duplex.checkpoint import load_config
from duplex.model.asr.encoder import Encoder, EncoderConfig
from duplex.model.speaker import load_speaker_head
from duplex.training import speaker
from duplex.training.data.pool import PoolWriter
from duplex.training.data.synthesizers import synthetic_utterances
from duplex.training.data.voices import hear, mix, read_voices, sample_segments, trim
from duplex.training.evaluation.speakers.verification import equal_error_rate


@pytest.fixture(scope="module")
def voice_pool(tmp_path_factory):
    """Four voices, each a tone of its own, two of them recorded."""
    folder = tmp_path_factory.mktemp("pools") / "voices"
    rng = np.random.default_rng(0)
    seconds = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    with PoolWriter(folder) as pool:
        for number, voice in enumerate(["real:a", "real:b", "kokoro:c", "kokoro:d", "real:None"]):
            for _ in range(3):
                tone = 0.2 * np.sin(2 * np.pi * 150 * (number + 1) * seconds)
                wave = np.concatenate([np.zeros(4800), tone + 0.01 * rng.normal(size=len(tone))])
                fields = {"voice": voice, "split": "train", "words": []}
                pool.append("so", wave.astype(np.float32), fields)
    return folder


def test_recorded_speakers_have_three_sizes_and_unknown_ones_are_left_out(voice_pool):
    names = [voice.name.partition(",")[0] for voice in read_voices(voice_pool)]
    assert {name: names.count(name) for name in names} == {
        "real:a": 3,
        "real:b": 3,
        "kokoro:c": 1,
        "kokoro:d": 1,
    }


def test_silence_around_speech_is_cut_off():
    wave = np.concatenate([np.zeros(4800), np.ones(4800), np.zeros(9600)])
    assert np.array_equal(trim(wave), np.ones(4800))


def test_a_stream_tells_who_speaks_when(voice_pool, parts):
    encoder = Encoder(load_config(EncoderConfig, parts / "encoder"))
    rng = np.random.default_rng(1)
    for _ in range(4):
        segments = sample_segments([read_voices(voice_pool)], [1.0], rng)
        stream = mix(segments, [], rng)
        early = hear(encoder, stream)
        ticks = len(stream) // TICK_SAMPLES
        assert early.shape == (1, ticks * ENCODER_FRAMES_PER_TICK, 2 * encoder.config.width)
        places = [segment.ticks(ticks) for segment in segments]
        assert all(0 <= start < end <= ticks for start, end in places)
        assert places == sorted(places)


def test_so_many_utterances_in_a_row_are_by_one_voice():
    def speak(text, rng):
        return np.zeros(1), {"voice": f"{rng.uniform():.6f}"}

    made = synthetic_utterances(["a", "b", "c"], speak, 1, first=0, each=3)
    voices = [fields["voice"] for _, _, fields in itertools.islice(made, 9)]
    assert [len(list(group)) for _, group in itertools.groupby(voices)] == [3, 3, 3]


@pytest.mark.parametrize(
    ("angles", "rate"),
    [([0, 5, 90, 95], 0.0), ([0, 0, 0, 0], 0.5)],
    ids=["apart", "all alike"],
)
def test_equal_error_rate(angles, rate):
    radians = np.radians(angles)
    vectors = np.stack([np.cos(radians), np.sin(radians)], 1)
    found = equal_error_rate(vectors, ["anna", "anna", "ben", "ben"])
    assert found == pytest.approx(rate)


def test_discriminant_analysis_finds_where_voices_differ():
    """Of three directions one tells the two voices apart; another varies far more."""
    rng = np.random.default_rng(0)
    names = np.repeat([0, 1], 50)
    x = rng.normal(size=(100, 3)) * [0.1, 10.0, 1.0]
    x[names == 1, 0] += 1.0
    mean, matrix = speaker.discriminant(x, names, 1, shrinkage=0.0)
    np.testing.assert_allclose(mean, x.mean(0))
    found = (x - mean) @ matrix
    assert abs(found[names == 0].mean() - found[names == 1].mean()) > 5 * found[names == 0].std()


def test_the_program_leaves_a_head(voice_pool, parts, tmp_path, monkeypatch):
    out = tmp_path / "run"
    arguments = ["--pool", voice_pool, "--encoder", parts / "encoder", "--out", out]
    length = ["--streams", 20, "--vector", 3]
    monkeypatch.setattr(sys, "argv", ["speaker", *map(str, [*arguments, *length])])
    speaker.main()
    head = load_speaker_head(out)
    width = load_config(EncoderConfig, parts / "encoder").width
    vectors = head(torch.randn(1, 8, 2 * width))
    assert vectors.shape == (1, 2, 3)
    assert vectors.isfinite().all()
