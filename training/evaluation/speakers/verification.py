"""Are two clips of one voice? Vectors of clips in, the equal error rate out."""

import numpy as np


def pair_scores(vectors: np.ndarray, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The cosine of each pair of vectors [N, V], and whether it is of one name."""
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = np.triu_indices(len(vectors), 1)
    _, numbers = np.unique(names, return_inverse=True)
    return (vectors @ vectors.T)[first, second], numbers[first] == numbers[second]


def equal_error_rate(vectors: np.ndarray, names: list[str]) -> float:
    """The rate at which as many pairs of one voice are refused as of two are accepted.

    vectors [N, V]; at least two of one name and two names.
    """
    return threshold_at_equal_error(vectors, names)[0]


def threshold_at_equal_error(vectors: np.ndarray, names: list[str]) -> tuple[float, float]:
    """The equal error rate, and the cosine at which it is reached."""
    scores, same = pair_scores(vectors, names)
    order = np.argsort(-scores, kind="stable")
    same = same[order]
    refused = 1 - np.cumsum(same) / same.sum()
    accepted = np.cumsum(~same) / (~same).sum()
    place = int(np.argmin(np.abs(refused - accepted)))
    return float(refused[place] + accepted[place]) / 2, float(scores[order][place])
