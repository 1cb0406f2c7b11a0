"""Sample rates of sound cards: the same sound at another rate, in the terminal and in the page."""

import numpy as np
import pytest

from duplex.resampling import Resampler
from tests.client.page import node

RATES = [(48000, 24000), (44100, 24000), (16000, 24000), (24000, 44100), (24000, 48000)]


def sine(rate: int, hertz: float, seconds: float = 0.5) -> np.ndarray:
    times = np.arange(round(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def in_pieces(sound: np.ndarray, size: int) -> list[np.ndarray]:
    return [sound[at : at + size] for at in range(0, len(sound), size)]


@pytest.mark.parametrize(("source", "target"), [*RATES, (24000, 24000)])
@pytest.mark.parametrize("size", [128, 441, 960])
def test_a_tone_keeps_its_pitch_level_and_place(source, target, size):
    resampler = Resampler(source, target)
    pieces = [resampler.process(piece) for piece in in_pieces(sine(source, 1000), size)]
    sound = np.concatenate(pieces)
    expected = sine(target, 1000)[: len(sound)]
    assert 0 <= len(sine(target, 1000)) - len(sound) < target // 500
    np.testing.assert_allclose(sound[100:-50], expected[100:-50], atol=2e-3)


def test_what_the_lower_rate_cannot_hold_is_taken_out():
    sound = Resampler(48000, 24000).process(sine(48000, 15000))
    assert np.abs(sound[100:]).max() < 5e-3


@node.needs_node
@pytest.mark.parametrize(("source", "target"), RATES)
def test_page_resamples_as_the_terminal(source, target):
    pieces = in_pieces(sine(source, 700, 0.1), 128)
    resampler = Resampler(source, target)
    given = {"source": source, "target": target, "pieces": [piece.tolist() for piece in pieces]}
    for page, piece in zip(node.run("resample", given), pieces, strict=True):
        np.testing.assert_allclose(page, resampler.process(piece), atol=1e-6)
