"""The speaker head's training: voices of pools, streams of several of them, and the program."""

import itertools
import sys

import numpy as np
import pytest
import torch

from duplex.audio import SAMPLE_RATE
from duplex.checkpoint import load_config, load_tensors
from duplex.model.encoder import Encoder, EncoderConfig
from duplex.model.speaker import load_speaker_head
from duplex.training import speaker
from duplex.training.data.pool import PoolWriter
from duplex.training.data.synthesizers import synthetic_utterances
from duplex.training.data.voices import Streams, StreamWriter, read_voices, sample_segments, trim
from duplex.training.evaluation.verification import equal_error_rate
from duplex.training.objectives.voices import AngularMargin


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


def test_a_stream_tells_who_speaks_when(voice_pool, parts, tmp_path):
    encoder = Encoder(load_config(EncoderConfig, parts / "encoder"))
    encoder.load_state_dict(load_tensors(parts / "encoder"))
    voices = [read_voices(voice_pool)]
    rng = np.random.default_rng(1)
    writer = StreamWriter(tmp_path, encoder, [])
    made = [sample_segments(voices, [1.0], rng) for _ in range(4)]
    for segments in made:
        writer.append(segments, rng)
    writer.close()
    streams = Streams(tmp_path, 2 * encoder.config.width)
    early, found = streams.batch(np.arange(4))
    wanted = [(row, s.voice) for row, segments in enumerate(made) for s in segments]
    assert [(row, voice) for row, voice, _, _ in found.tolist()] == wanted
    for row, _, start, end in found.tolist():
        assert 0 <= start < end <= streams.lines[row]["ticks"]
    assert early.shape[::2] == (4, 2 * encoder.config.width)
    assert early.isfinite().all()


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


def test_the_margin_asks_for_more_than_the_right_voice():
    plain = AngularMargin(4, 3, margin=0.0)
    strict = AngularMargin(4, 3, margin=0.3)
    strict.directions = plain.directions
    vectors = torch.nn.functional.normalize(torch.randn(5, 4), dim=1)
    voices = torch.tensor([0, 1, 2, 0, 1])
    assert strict(vectors, voices) > plain(vectors, voices)


def test_the_program_leaves_a_head(voice_pool, parts, tmp_path, monkeypatch):
    out = tmp_path / "run"
    arguments = ["--pool", voice_pool, "--encoder", parts / "encoder", "--out", out]
    length = ["--streams", 6, "--batch", 3, "--steps", 2]
    monkeypatch.setattr(sys, "argv", ["speaker", *map(str, [*arguments, *length])])
    speaker.main()
    head = load_speaker_head(out / "head")
    width = load_config(EncoderConfig, parts / "encoder").width
    assert head(torch.zeros(1, 8, 2 * width)).shape == (1, 2, head.config.vector)
