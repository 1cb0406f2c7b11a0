"""How often drafted codes would be kept: what rejection sampling does, draw by draw."""

import pytest
import torch
from duplex.training.evaluation.drafts import drawn_from, kept

from duplex.model.synthesis import similar


def test_kept_is_the_share_that_rejection_sampling_keeps():
    torch.manual_seed(0)
    p, q = (drawn_from(torch.randn(1, 12) * 2, 0.7, 8) for _ in range(2))
    assert ((p > 0).sum(), q.sum()) == (8, pytest.approx(1.0))
    draws = torch.multinomial(q[0], 100_000, replacement=True)
    share = (torch.rand(100_000) < p[0, draws] / q[0, draws]).float().mean()
    assert kept(p, q) == pytest.approx(float(share), abs=0.006)
    assert kept(p, p) == pytest.approx(1.0)


def test_what_sounds_alike_counts_as_one():
    entries = torch.tensor([[0.0, 0.0], [5.0, 5.0], [0.1, 0.0], [5.0, 5.1], [0.0, 0.1]])
    group = similar(entries, 2)
    assert group.tolist() == [0, 1, 0, 1, 0]
    p, q = torch.eye(5)[[0]], torch.eye(5)[[2]]
    assert kept(p, q) == 0 and kept(p, q, group) == 1 and kept(p, torch.eye(5)[[3]], group) == 0
