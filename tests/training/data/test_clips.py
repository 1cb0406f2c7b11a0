"""Batches for the encoder: clips of several utterances, padded to whole ticks, disturbed."""

import numpy as np
import torch

from duplex.audio import ENCODER_FRAMES_PER_TICK, SAMPLE_RATE, TICK_SAMPLES
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.data.clips import open_source, sample_batches
from duplex.training.data.normalize import phones


def batches(tone_pool, hard_share: float) -> list:
    sources = [open_source(tone_pool, 1.0)]
    return list(sample_batches(sources, [], hard_share, np.random.default_rng(3), 12.0))


def test_batches_fit_their_clips(tone_pool):
    found = batches(tone_pool, 1.0)
    assert sum(len(batch.targets) for batch in found) > 50
    for batch in found:
        assert batch.clean.shape == batch.wave.shape
        assert batch.wave.shape[1] == batch.ticks.max() * TICK_SAMPLES
        assert batch.wave.numel() <= 12 * SAMPLE_RATE or len(batch.ticks) == 1
        assert batch.wave.abs().max() <= 1
        for ticks, target, clean in zip(batch.ticks, batch.targets, batch.clean, strict=True):
            assert len(target) <= ticks * ENCODER_FRAMES_PER_TICK
            assert not clean[ticks * TICK_SAMPLES :].any()


def test_targets_are_the_phones_of_whole_utterances(tone_pool):
    source = open_source(tone_pool, 1.0)
    known = [phones(spoken_form(entry["text"])) for entry in source.pool.entries]
    assert source.targets == known
    for batch in batches(tone_pool, 0.0):
        for target in batch.targets:
            while target:  # Take away one utterance after the other.
                first = next(one for one in known if target[: len(one)] == one)
                target = target[len(first) :]


def test_the_same_seed_gives_the_same_batches(tone_pool):
    pairs = zip(batches(tone_pool, 1.0), batches(tone_pool, 1.0), strict=True)
    assert all(torch.equal(one.wave, other.wave) for one, other in pairs)
