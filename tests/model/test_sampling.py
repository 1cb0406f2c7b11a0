"""Draws follow the distribution of the best scores, and depend on their session alone."""

import pytest
import torch
from scipy import stats

from duplex.model.sampling import draw, philox, sample, sample_codes, sample_each

SCORES = torch.tensor([0.0, 2.0, -torch.inf, 1.0, 0.5, -1.0])


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [
        (0x00000000, (0x00000000, 0x00000000), (0xFF1DAE59, 0x6CD10DF2)),
        (0xFFFFFFFF, (0xFFFFFFFF, 0xFFFFFFFF), (0x2C3F628B, 0xAB4FD7AD)),
        (0x13198A2E, (0x243F6A88, 0x85A308D3), (0xDD7CE038, 0xF62A4C12)),
    ],
)
def test_philox_is_that_of_its_authors(key, counter, words):
    """Known answers of Random123, philox2x32 with 10 rounds."""
    assert philox(key, counter) == words
    tensors = philox(torch.tensor(key), tuple(map(torch.tensor, counter)))
    assert tuple(map(int, tensors)) == words


def test_numbers_and_tensors_draw_the_same():
    seeds = [0, 7, 2**31, 2**40 + 3, -5]
    ticks = [0, 1, 45_000, 2**20, 3]
    numbers = [0, 1, 5, 2, 40]
    rows = draw(*(torch.tensor(part) for part in (seeds, ticks, numbers)))
    assert rows.dtype == torch.float32
    assert rows.tolist() == [draw(*one) for one in zip(seeds, ticks, numbers, strict=True)]


@pytest.mark.parametrize("axis", range(3), ids=["seed", "tick", "number"])
def test_draws_are_uniform_along_each_counter(axis):
    counters = [torch.full((20_000,), 11) for _ in range(3)]
    counters[axis] = torch.arange(20_000)
    found = draw(*counters).double()
    cells = torch.histc(found, 64, 0, 1)
    assert stats.chisquare(cells.numpy()).pvalue > 1e-3
    pairs = torch.histc(found[::2] * 8 // 1 * 8 + found[1::2] * 8 // 1, 64, 0, 64)
    assert stats.chisquare(pairs.numpy()).pvalue > 1e-3


def test_symbols_have_the_distribution_of_a_fixed_table():
    """Of the four best at a temperature, drawn tick by tick in one session."""
    best = SCORES.clone()
    best[5] = -torch.inf
    expected = 8000 * (best.double() / 0.8).softmax(0)
    drawn = [sample(SCORES, 0.8, 4, draw(3, tick, 0)) for tick in range(8000)]
    counts = torch.bincount(torch.tensor(drawn), minlength=6)
    assert counts[expected == 0].sum() == 0
    some = expected > 0
    assert stats.chisquare(counts[some].numpy(), expected[some].numpy()).pvalue > 1e-3


def test_best_symbol_is_taken_at_temperature_zero():
    assert sample(SCORES, 0.0, 30, 0.7) == 1


def test_symbols_outside_the_best_are_never_drawn():
    drawn = {sample(SCORES, 5.0, 2, draw(0, tick, 0)) for tick in range(200)}
    assert drawn == {1, 3}


def test_rows_draw_what_each_draws_alone():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(64, 40, generator=generator).masked_fill(torch.rand(64, 40) < 0.3, -1e9)
    temperature = torch.tensor([0.0, 0.3, 0.7, 1.5]).repeat(16)
    uniform = draw(torch.arange(64), torch.tensor(5), torch.tensor(1))
    rows = sample_each(scores, temperature, 30, uniform)
    one = [sample(*row[:2], 30, row[2]) for row in zip(scores, temperature, uniform, strict=True)]
    assert rows.tolist() == one


def test_codes_are_drawn_by_the_inverse_distribution():
    """Uniform numbers evenly spaced draw each code as often as it is likely."""
    logits = torch.tensor([0.3, -1.0, 2.0, 0.5]).double()
    uniform = (torch.arange(10_000).double() + 0.5)[:, None] / 10_000
    codes = sample_codes(logits.expand(10_000, -1), 0.7, 3, uniform)
    shares = torch.bincount(codes[:, 0], minlength=4) / 10_000
    best = logits.masked_fill(logits < 0, -torch.inf)
    torch.testing.assert_close(shares.double(), (best / 0.7).softmax(0), atol=2e-4, rtol=0)
