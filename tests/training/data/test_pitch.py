"""The fundamental frequency of clean speech."""

import torch

from duplex.audio import CODEC_FRAME_SAMPLES, SAMPLE_RATE
from duplex.training.data.pitch import pitch


def test_pitch_finds_the_fundamental():
    time = torch.arange(40 * CODEC_FRAME_SAMPLES) / SAMPLE_RATE
    for hz in (90.0, 215.0, 370.0):
        wave = 0.1 * sum(torch.cos(2 * torch.pi * hz * k * time) / k for k in range(1, 20))
        found, voiced = pitch(wave[None])
        assert voiced[0, 5:-5].all() and (found[0, 5:-5] / hz - 1).abs().max() < 0.01


def test_noise_is_unvoiced():
    assert pitch(0.1 * torch.randn(1, 40 * CODEC_FRAME_SAMPLES))[1].float().mean() <= 0.1
