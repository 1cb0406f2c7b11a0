"""Draws follow the distribution of the best scores."""

import torch

from duplex.model.sampling import sample, sample_codes


def test_best_symbol_is_taken_at_temperature_zero():
    generator = torch.Generator().manual_seed(0)
    assert sample(torch.tensor([0.0, 2.0, -torch.inf, 1.0]), 0.0, 30, generator) == 1


def test_symbols_outside_the_best_are_never_drawn():
    generator = torch.Generator().manual_seed(0)
    scores = torch.tensor([0.0, 2.0, -torch.inf, 1.0])
    drawn = {sample(scores, 5.0, 2, generator) for _ in range(200)}
    assert drawn == {1, 3}


def test_codes_are_drawn_by_the_inverse_distribution():
    """Uniform numbers evenly spaced draw each code as often as it is likely."""
    logits = torch.tensor([0.3, -1.0, 2.0, 0.5]).double()
    uniform = (torch.arange(10_000).double() + 0.5)[:, None] / 10_000
    codes = sample_codes(logits.expand(10_000, -1), 0.7, 3, uniform)
    shares = torch.bincount(codes[:, 0], minlength=4) / 10_000
    best = logits.masked_fill(logits < 0, -torch.inf)
    torch.testing.assert_close(shares.double(), (best / 0.7).softmax(0), atol=2e-4, rtol=0)
