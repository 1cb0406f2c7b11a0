"""Speech pools: an interrupted one goes on with the same utterances."""

import json
from functools import partial

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.training.data.pool import Pool, write_pool
from duplex.training.data.synthesizers import synthetic_utterances

TEXTS = [f"sentence {i}" for i in range(30)]


def speak(text: str, rng: np.random.Generator):
    """Noise, longer for a later sentence."""
    samples = 1000 + 10 * int(text.split()[1])
    return rng.normal(0, 0.1, samples).astype(np.float32), {"voice": "noise", "words": []}


def test_an_interrupted_pool_goes_on_with_the_same_utterances(tmp_path):
    utterances = partial(synthetic_utterances, TEXTS, speak, 7)
    hours = 40_000 / SAMPLE_RATE / 3600
    write_pool(utterances, tmp_path / "once", hours)
    write_pool(utterances, tmp_path / "twice", hours / 2)
    lines = (tmp_path / "twice" / "index.jsonl").read_text().splitlines()
    with open(tmp_path / "twice" / "audio.i16", "ab") as audio:
        audio.write(b"\0" * 999)  # A wave whose line was not written any more.
    write_pool(utterances, tmp_path / "twice", hours)
    once = Pool(tmp_path / "once")
    twice = Pool(tmp_path / "twice")
    assert once.entries == twice.entries and len(once) > len(lines) > 10
    assert np.array_equal(once.audio, twice.audio)
    splits = {json.dumps([entry["text"], entry["split"]]) for entry in once.entries}
    assert len(splits) == len({entry["text"] for entry in once.entries}), "a text is in one split"


def test_silent_and_infinite_waves_are_left_out(tmp_path):
    waves = [np.zeros(100), np.full(100, np.inf), np.full(100, 2.0)]
    fields = {"split": "train"}
    write_pool(lambda first: [("a", wave, fields) for wave in waves[first:]], tmp_path, 1.0)
    pool = Pool(tmp_path)
    assert len(pool) == 1 and (tmp_path / "READY").exists()
    assert abs(pool.wave(0) - 0.98).max() < 1e-4, "a wave that is too loud is made softer"
