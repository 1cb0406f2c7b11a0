"""Which words of a stream's hypotheses are final, compiled: see beam_search.commit_agreed_words."""

from typing import NamedTuple

import numpy as np
from numba import njit

from duplex.cpu.beam_tables import INNER


class Found(NamedTuple):
    """Words that are final now, of each of n streams as many as its row says; or of one stream."""

    words: np.ndarray  # [n, W], [W]
    frames: np.ndarray  # [n, W], [W]
    confidences: np.ndarray  # [n, W], [W]
    votes: np.ndarray  # [H] room for which hypotheses agree with what was found


@njit(**INNER)
def find_final(now, said, committed, clock, numbers, found):
    """Note the words of a stream that are final now: see beam_search.commit_agreed_words.

    said: words [H, W] and their frames [H, W]; clock: the stream's frames and silent frames.
    Returns how many there are, or -1 where no hypothesis begins with the committed ones.
    """
    words, frames = said
    place = committed.size
    best = -1
    for i in range(now.size):
        is_better = best < 0 or now[i].score > now[best].score
        if is_better and begins_with(now[i], words[i], committed):
            best = i
    if best < 0:
        return -1
    if now[best].word_count == place:
        return 0
    votes = found.votes
    for i in range(now.size):
        votes[i] = begins_with(now[i], words[i], committed)
    while now[best].word_count > place:
        word = words[best, place]
        frame = frames[best, place]
        agreed = share(now, words, votes, place, word, numbers.discount)
        is_old = clock[0] - frame >= numbers.commit_after_frames
        is_final = agreed >= numbers.commit_posterior or is_old
        if not (is_final or clock[1] >= numbers.commit_all_frames):
            break
        found.words[place - committed.size] = word
        found.frames[place - committed.size] = frame
        found.confidences[place - committed.size] = agreed
        best = -1
        for i in range(now.size):
            votes[i] = votes[i] and now[i].word_count > place and words[i, place] == word
            if votes[i] and (best < 0 or now[i].score > now[best].score):
                best = i
        place += 1
    return place - committed.size


@njit(**INNER)
def begins_with(hypothesis, words, committed):
    """Whether a hypothesis begins with these words."""
    if hypothesis.word_count < committed.size:
        return False
    for place in range(committed.size):
        if words[place] != committed[place]:
            return False
    return True


@njit(**INNER)
def share(now, words, votes, place, word, discount):
    """Share of the voters' probability that has this word at this place."""
    highest = -np.inf
    for i in range(now.size):
        if votes[i]:
            highest = max(highest, now[i].score - discount * now[i].phone_count)
    agreed = 0.0
    everyone = 0.0
    for i in range(now.size):
        if votes[i]:
            chance = np.exp(now[i].score - discount * now[i].phone_count - highest)
            everyone += chance
            if now[i].word_count > place and words[i, place] == word:
                agreed += chance
    return agreed / everyone
