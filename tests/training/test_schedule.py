"""The learning rate over a run."""

import math

import pytest
import torch

from duplex.training.common import schedule


@pytest.mark.parametrize("step", [1, 10, 30, 31, 500])
@pytest.mark.parametrize("done", [0.0, 0.25, 0.5, 1.0])
def test_it_warms_up_and_falls_as_a_cosine(step, done):
    factor = schedule.warm_up(step, 30) * schedule.cosine(done, floor=0.05)
    rise = min(1.0, step / 30)
    assert factor == rise * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def test_decays_end_at_their_floor():
    assert schedule.cosine(2.0, floor=0.02) == pytest.approx(0.02)
    assert [schedule.linear(done, floor=0.02) for done in (0.0, 0.5, 1.0)] == [1.0, 0.5, 0.02]


def test_every_group_has_its_own_highest_rate():
    groups = [{"params": torch.nn.Parameter(torch.zeros(1)), "peak": peak} for peak in (1.0, 0.1)]
    optimizer = torch.optim.AdamW(groups)
    schedule.set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.05]
    schedule.set_learning_rate(optimizer, [0.2, 1.0])
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.1]


def test_a_run_is_done_by_its_steps_or_by_its_minutes():
    assert schedule.share_done(4, 1.0, 3, 600.0) == 0.75
    assert schedule.share_done(None, 10.0, 3, 300.0) == 0.5
