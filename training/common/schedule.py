"""The learning rate over a run: it warms up, then falls.

Every group of an optimizer has its highest rate in "peak"; a schedule is a factor of it between 0
and 1. What of a run is done is a number between 0 and 1, by its time or by its steps.
"""

import math

from torch.optim import Optimizer


def warm_up(step: int, steps: int) -> float:
    """The factor of step 1, 2, ... while the rate rises over so many `steps`; 1 after them."""
    return min(1.0, step / steps)


def cosine(done: float, floor: float = 0.0) -> float:
    """Half a cosine from 1 to `floor`, over the run."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def linear(done: float, floor: float = 0.0) -> float:
    """A line from 1 to 0, over the run, that ends at `floor`."""
    return max(floor, 1 - done)


def set_learning_rate(optimizer: Optimizer, factor: float | list[float]) -> None:
    """Give every group `factor` times its own highest rate; a list has one for each group."""
    groups = optimizer.param_groups
    factors = factor if isinstance(factor, list) else [factor] * len(groups)
    for group, share in zip(groups, factors, strict=True):
        group["lr"] = group["peak"] * share


def share_done(steps: int | None, minutes: float, step: int, seconds: float) -> float:
    """How much of a run lies behind: by its `steps`, or by its `minutes` if it has none."""
    return step / steps if steps else seconds / (60 * minutes)
