"""Rates of the wire: how much comes out, how late, and what of a sound."""

import numpy as np
import pytest

from duplex.audio import SAMPLE_RATE
from duplex.serving.resampling import Resampler

RATES = [(24_000, 8_000), (8_000, 24_000), (24_000, 16_000), (16_000, 24_000), (48_000, 24_000)]


def sine(rate: int, hertz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize("from_rate, to_rate", [*RATES, (24_000, 24_000), (24_000, 48_000)])
def test_each_tick_is_whole(from_rate, to_rate):
    """From the first piece on, so that devices get frames of one length."""
    resampler = Resampler(from_rate, to_rate)
    tick = np.zeros(from_rate * 8 // 100)
    assert {len(resampler.resample(tick)) for _ in range(9)} == {to_rate * 8 // 100}


@pytest.mark.parametrize("from_rate, to_rate", RATES)
def test_pieces_of_any_length_make_the_same(from_rate, to_rate):
    sound = np.random.default_rng(0).normal(size=3_001)
    whole = Resampler(from_rate, to_rate).resample(sound)
    pieces = Resampler(from_rate, to_rate)
    parts = [pieces.resample(part) for part in np.split(sound, [0, 1, 2, 77, 1000, 1001, 2900])]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


@pytest.mark.parametrize("from_rate, to_rate", RATES)
def test_speech_passes_2_ms_late_at_most(from_rate, to_rate):
    found = Resampler(from_rate, to_rate).resample(sine(from_rate, 1_100))
    late = 16 * to_rate // min(from_rate, to_rate)
    assert late <= 0.002 * to_rate
    wanted = np.pad(sine(to_rate, 1_100), (late, 0))[: len(found)]
    settled = slice(to_rate // 10, None)
    assert np.abs(found[settled] - wanted[settled]).max() < 0.01


@pytest.mark.parametrize(
    "from_rate, to_rate, hertz", [(24_000, 8_000, 5_000), (24_000, 16_000, 9_500)]
)
def test_what_the_slower_rate_cannot_carry_is_gone(from_rate, to_rate, hertz):
    found = Resampler(from_rate, to_rate).resample(sine(from_rate, hertz))
    assert np.abs(found[to_rate // 10 :]).max() < 0.001


def test_no_image_of_the_telephone_band_is_heard():
    found = Resampler(8_000, SAMPLE_RATE).resample(sine(8_000, 2_000))
    level = np.abs(np.fft.rfft(found[2_400:21_600] * np.hanning(19_200)))
    hertz = np.fft.rfftfreq(19_200, 1 / SAMPLE_RATE)
    assert level[hertz > 4_500].max() < 1e-3 * level.max()
