"""Rates of the wire: how much comes out, how late, and what of a sound."""

import math

import numpy as np
import pytest

from duplex.audio import SAMPLE_RATE
from duplex.resampling import Resampler

RATES = [(24_000, 8_000), (8_000, 24_000), (24_000, 16_000), (16_000, 24_000), (48_000, 24_000)]


def sine(rate: int, hertz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize("from_rate, to_rate", [*RATES, (24_000, 24_000), (24_000, 48_000)])
def test_each_tick_is_whole(from_rate, to_rate):
    """From the first piece on, so that devices get frames of one length."""
    resampler = Resampler(from_rate, to_rate, is_even=True)
    tick = np.zeros(from_rate * 8 // 100)
    assert {len(resampler.process(tick)) for _ in range(9)} == {to_rate * 8 // 100}


@pytest.mark.parametrize("from_rate, to_rate", RATES)
def test_pieces_of_any_length_make_the_same(from_rate, to_rate):
    sound = np.random.default_rng(0).normal(size=3_001)
    whole = Resampler(from_rate, to_rate, is_even=True).process(sound)
    pieces = Resampler(from_rate, to_rate, is_even=True)
    parts = [pieces.process(part) for part in np.split(sound, [0, 1, 2, 77, 1000, 1001, 2900])]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


@pytest.mark.parametrize("from_rate, to_rate", RATES)
def test_speech_passes_a_little_late(from_rate, to_rate):
    """By half the filter: 16 zero crossings at 0.92 of the slower rate."""
    hertz = 1_100
    found = Resampler(from_rate, to_rate, is_even=True).process(sine(from_rate, hertz))
    late_s = math.ceil(16 / (0.92 * min(1.0, to_rate / from_rate))) / from_rate
    assert late_s < 0.0023
    times = np.arange(len(found)) / to_rate - late_s
    settled = slice(to_rate // 10, None)
    wanted = np.sin(2 * np.pi * hertz * times)
    assert np.abs(found[settled] - wanted[settled]).max() < 0.01


@pytest.mark.parametrize(
    "from_rate, to_rate, hertz", [(24_000, 8_000, 5_000), (24_000, 16_000, 9_500)]
)
def test_what_the_slower_rate_cannot_carry_is_gone(from_rate, to_rate, hertz):
    found = Resampler(from_rate, to_rate, is_even=True).process(sine(from_rate, hertz))
    assert np.abs(found[to_rate // 10 :]).max() < 0.001


def test_no_image_of_the_telephone_band_is_heard():
    found = Resampler(8_000, SAMPLE_RATE, is_even=True).process(sine(8_000, 2_000))
    level = np.abs(np.fft.rfft(found[2_400:21_600] * np.hanning(19_200)))
    hertz = np.fft.rfftfreq(19_200, 1 / SAMPLE_RATE)
    assert level[hertz > 4_500].max() < 1e-3 * level.max()
