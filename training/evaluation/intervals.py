"""Rates over clips, and how far they might lie from what all such clips would give."""

import numpy as np

# Of one clip: errors and words, words found and words wanted, 1 or 0 and 1. The rate of several
# clips is the sum of the first over the sum of the second.
Score = tuple[float, float]


def rate(scores: list[Score]) -> float:
    """The sum of the parts over the sum of the wholes."""
    part, whole = np.sum(scores, axis=0)
    return float(part / max(whole, 1e-9))


def interval(
    scores: list[Score], share: float = 0.95, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap: where the rate of as many clips, drawn with replacement, lies.

    share: of the draws that are inside. Clips are drawn, not words, since the words of a clip are
    heard well or badly together.
    """
    table = np.asarray(scores, float)
    chosen = np.random.default_rng(seed).integers(len(table), size=(draws, len(table)))
    part, whole = table[chosen].sum(1).T
    ends = np.quantile(part / np.maximum(whole, 1e-9), [(1 - share) / 2, (1 + share) / 2])
    return float(ends[0]), float(ends[1])
