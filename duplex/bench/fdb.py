"""The rules of Full-Duplex-Bench v1 (arXiv 2503.04721) and v1.5 (2507.23159).

They are written again from their definitions; where v1.5 asks a paid judge which of its tags fits,
the times decide here. Times are seconds of the recording.
"""

import numpy as np

from duplex.bench.recognizer import Heard
from duplex.bench.scenes import Word

# A segment of speech, from when to when.
Segment = tuple[float, float]

# Speech shorter than this, of a few words, is no turn.
SHORT_S = 1.0
# Words that may be in a back-channel.
MAX_BACK_CHANNEL_WORDS = 2


def within(words: list[Word], start_s: float, end_s: float) -> list[Word]:
    """The words that begin in the interval."""
    return [word for word in words if start_s <= word.start_s < end_s]


def takes_over(words: list[Word], max_short_words: int = 3) -> bool:
    """v1: whether there is more than a word or two.

    Less than SHORT_S of at most max_short_words is no turn.
    """
    if not words:
        return False
    seconds = words[-1].end_s - words[0].start_s
    return not (seconds < SHORT_S and len(words) <= max_short_words)


def clipped_latency(words: list[Word], end_s: float) -> float:
    """v1: from the end of the user's turn to the first word, whenever that began; never below 0."""
    return max(0.0, words[0].start_s - end_s)


def back_channels(heard: Heard, long_s: float = 3.0) -> tuple[bool, list[Segment]]:
    """v1, of an agent that listens: whether it took over, and its back-channels.

    The last segment decides whether it did, unless one is longer than long_s.
    """
    took_over = False
    collected = []
    for start, end in heard.voice:
        words = len(within(heard.words, start, end))
        if end - start > long_s:
            return True, collected
        took_over = not (end - start < SHORT_S and words <= MAX_BACK_CHANNEL_WORDS)
        if not took_over:
            collected.append((start, end))
    return took_over, collected


def js_distance(p: np.ndarray, q: np.ndarray) -> float:
    """Square root of the Jensen-Shannon divergence, in bits, of two histograms [N].

    From 0, where they are equal, to 1, where they are disjoint.
    """
    p = (p + 1e-10) / (p + 1e-10).sum()
    q = (q + 1e-10) / (q + 1e-10).sum()
    m = (p + q) / 2
    divergence = (p * np.log2(p / m)).sum() / 2 + (q * np.log2(q / m)).sum() / 2
    return float(np.sqrt(max(0.0, divergence)))


def histogram(segments: list[Segment], seconds: float, bin_s: float = 0.2) -> np.ndarray:
    """How much of each bin of bin_s the segments cover, [bins] in 0 to 1."""
    edges = np.arange(int(np.ceil(seconds / bin_s))) * bin_s
    covered = np.zeros(len(edges))
    for start, end in segments:
        part = np.minimum(edges + bin_s, end) - np.maximum(edges, start)
        covered += np.clip(part, 0, None) / bin_s
    return covered


def overlap_s(user: Segment, voice: list[Segment]) -> float:
    """v1.5's stop latency: seconds both speak."""
    return sum(max(0.0, min(user[1], end) - max(user[0], start)) for start, end in voice)


def response_s(end_s: float, voice: list[Segment]) -> float | None:
    """v1.5: from the end of the user's segment to the next beginning of the agent's voice."""
    return next((start - end_s for start, _ in voice if start >= end_s), None)
