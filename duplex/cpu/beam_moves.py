"""One frame of a beam search, compiled: ways to go on, merged, the best ones kept.

See duplex.model.asr.beam_search, where each step is explained.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from duplex.model.asr.encoder import BLANK, WORD_END
from duplex.model.asr.lexicon import SENTENCE

# Without fastmath: scores are compared.
OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}
# A word counts in a path until eight others have followed.
FACTOR = np.int64(1_000_003 << 8)


class Tables(NamedTuple):
    """The arrays of a Lexicon."""

    child: np.ndarray
    lookahead_score: np.ndarray
    ending: np.ndarray
    first_ending: np.ndarray
    ending_count: np.ndarray
    unigrams: np.ndarray
    backoffs: np.ndarray
    bigram_keys: np.ndarray
    bigrams: np.ndarray
    bigram_backoffs: np.ndarray
    trigram_keys: np.ndarray
    trigrams: np.ndarray


class Hypotheses(NamedTuple):
    """The arrays of a BeamState, [H] or [H, W]."""

    node: np.ndarray
    label: np.ndarray
    context: np.ndarray
    score: np.ndarray
    phone_count: np.ndarray
    path: np.ndarray
    words: np.ndarray
    word_frames: np.ndarray
    word_count: np.ndarray


class Moves(NamedTuple):
    """Room for all ways in which hypotheses may go on; see beam_search.Moves."""

    source: np.ndarray
    node: np.ndarray
    label: np.ndarray
    context: np.ndarray
    score: np.ndarray
    word: np.ndarray


class Numbers(NamedTuple):
    """Of a BeamSearchConfig, what a frame and a commitment need."""

    beam_size: int
    beam_width: float
    min_phone_log_prob: float
    lm_weight: np.float32
    phone_bonus: float
    discount: float
    commit_posterior: float
    commit_after_frames: int
    commit_all_frames: int


@njit(**OPTIONS)
def advance(tables, now, log_probs, frame, numbers):
    """One frame: see beam_search.advance_frame."""
    phones = np.empty(log_probs.size, np.int64)
    count = 0
    for phone in range(log_probs.size):
        if phone != BLANK and phone != WORD_END and log_probs[phone] > numbers.min_phone_log_prob:
            phones[count] = phone
            count += 1
    end_is_likely = log_probs[WORD_END] > numbers.min_phone_log_prob
    if count == 0 and not end_is_likely:
        return Hypotheses(
            now.node,
            np.zeros_like(now.label),
            now.context,
            now.score + log_probs[BLANK],
            now.phone_count,
            now.path,
            now.words,
            now.word_frames,
            now.word_count,
        )
    moves, size = find_moves(tables, now, log_probs, phones[:count], end_is_likely, numbers)
    return merge(tables, now, moves, size, frame, numbers)


@njit(**OPTIONS)
def find_moves(tables, now, log_probs, phones, end_is_likely, numbers):
    """Ways to go on, in the order of beam_search.advance_frame, and how many they are.

    Those are left out that are too far below the best one so far; they would be dropped anyway.
    """
    hypotheses = now.node.size
    room = hypotheses * (3 + phones.size)
    for i in range(hypotheses if end_is_likely else 0):
        room += tables.ending_count[now.node[i]]
    moves = Moves(
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room, np.float64),
        np.empty(room, np.int64),
    )
    size = 0
    best = now.score.max() + log_probs[BLANK]
    for i in range(hypotheses):
        score = now.score[i] + log_probs[BLANK]
        if score > best - numbers.beam_width:
            size = put(moves, size, i, now.node[i], BLANK, now.context[i], score, -1)
    for i in range(hypotheses):
        label = now.label[i]
        score = now.score[i] + log_probs[label]
        if label != BLANK and score > best - numbers.beam_width:
            best = max(best, score)
            size = put(moves, size, i, now.node[i], label, now.context[i], score, -1)
    for i in range(hypotheses):
        outlook = tables.lookahead_score[now.node[i]]
        for phone in phones:
            node = tables.child[now.node[i], phone]
            if node == 0 or now.label[i] == phone:
                continue
            gain = numbers.lm_weight * (tables.lookahead_score[node] - outlook)
            score = now.score[i] + log_probs[phone] + gain + numbers.phone_bonus
            if score > best - numbers.beam_width:
                best = max(best, score)
                size = put(moves, size, i, node, phone, now.context[i], score, -1)
    if end_is_likely:
        size = find_ends(tables, now, log_probs[WORD_END], moves, size, best, numbers)
    return moves, size


@njit(**OPTIONS)
def find_ends(tables, now, mark, moves, size, best, numbers):
    """Words that end; a mark may also stand between words, where nothing ends."""
    words = tables.unigrams.size
    for i in range(now.node.size):
        score = now.score[i] + mark
        if now.node[i] == 0 and now.label[i] != WORD_END and score > best - numbers.beam_width:
            best = max(best, score)
            size = put(moves, size, i, 0, WORD_END, now.context[i], score, -1)
    for i in range(now.node.size):
        node = now.node[i]
        outlook = tables.lookahead_score[node]
        # No word is likelier than certain.
        highest = now.score[i] - numbers.lm_weight * outlook + mark
        if tables.ending_count[node] == 0 or highest <= best - numbers.beam_width:
            continue
        at = find(tables.bigram_keys, now.context[i])
        backoff = tables.bigram_backoffs[at] if at >= 0 else np.float32(0.0)
        for place in range(tables.ending_count[node]):
            word = tables.ending[tables.first_ending[node] + place]
            gain = trigram(tables, now.context[i], word, backoff) - outlook
            score = now.score[i] + numbers.lm_weight * gain + mark
            if score > best - numbers.beam_width:
                best = max(best, score)
                context = now.context[i] % words * words + word
                size = put(moves, size, i, 0, WORD_END, context, score, word)
    return size


@njit(**OPTIONS)
def put(moves, size, source, node, label, context, score, word):
    """Add a move; returns how many there are now."""
    moves.source[size] = source
    moves.node[size] = node
    moves.label[size] = label
    moves.context[size] = context
    moves.score[size] = score
    moves.word[size] = word
    return size + 1


@njit(**OPTIONS)
def trigram(tables, context, word, backoff):
    """Log-probability of a word after the two of its context: see lexicon.trigram_log_prob.

    backoff: log of the weight of the pairs after this context.
    """
    words = tables.unigrams.size
    at = find(tables.trigram_keys, context * words + word)
    if at >= 0:
        return tables.trigrams[at]
    last = context % words
    at = find(tables.bigram_keys, last * words + word)
    lower = tables.bigrams[at] if at >= 0 else tables.backoffs[last] + tables.unigrams[word]
    return backoff + lower


@njit(**OPTIONS)
def find(keys, wanted):
    """Where a key stands in sorted keys; -1: nowhere."""
    low = 0
    high = keys.size
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low if low < keys.size and keys[low] == wanted else -1


@njit(**OPTIONS)
def merge(tables, now, moves, size, frame, numbers):
    """Merge what has come to the same place after the same words, and keep the best."""
    best = moves.score[:size].max()
    slots = 1
    while slots < 2 * size:
        slots *= 2
    table = np.full(slots, -1, np.int64)
    keys = np.empty(size, np.int64)
    total = np.empty(size, np.float64)
    first = np.empty(size, np.int64)
    groups = 0
    nodes = tables.child.shape[0]
    for i in range(size):
        if not moves.score[i] > best - numbers.beam_width:
            continue
        key = (path_of(now, moves, i) * 2 + (moves.label[i] != BLANK)) * nodes + moves.node[i]
        slot = np.int64((np.uint64(key) * np.uint64(11400714819323198485)) >> np.uint64(20))
        slot &= slots - 1
        while table[slot] >= 0 and keys[table[slot]] != key:
            slot = (slot + 1) & (slots - 1)
        group = table[slot]
        chance = np.exp(moves.score[i] - best)
        if group < 0:
            table[slot] = groups
            keys[groups] = key
            total[groups] = chance
            first[groups] = i
            groups += 1
            continue
        total[group] += chance
        if moves.score[i] > moves.score[first[group]]:
            first[group] = i
    order = best_groups(total[:groups], keys[:groups], numbers.beam_size)
    return take(now, moves, first[order], np.log(total[order]), frame)


@njit(**OPTIONS)
def path_of(now, moves, i):
    """What was said with a move, as one number."""
    path = now.path[moves.source[i]]
    return path if moves.word[i] < 0 else path * FACTOR + moves.word[i]


@njit(**OPTIONS)
def best_groups(total, keys, count):
    """The `count` likeliest groups, best first; of equally likely ones the smaller key."""
    chosen = np.arange(total.size)
    if total.size > count:
        least = np.partition(total, total.size - count)[total.size - count]
        chosen = np.flatnonzero(total >= least)
    order = chosen[np.argsort(-total[chosen])]
    for i in range(1, order.size):
        k = i
        while k > 0 and total[order[k - 1]] == total[order[k]]:
            if keys[order[k - 1]] < keys[order[k]]:
                break
            order[k - 1], order[k] = order[k], order[k - 1]
            k -= 1
    return order[:count]


@njit(**OPTIONS)
def take(now, moves, kept, score, frame):
    """The hypotheses that these moves lead to."""
    count = kept.size
    width = now.words.shape[1]
    after = Hypotheses(
        moves.node[kept],
        moves.label[kept],
        moves.context[kept],
        score,
        np.empty(count, np.int64),
        np.empty(count, np.int64),
        np.empty((count, width), np.int32),
        np.empty((count, width), np.int32),
        np.empty(count, np.int64),
    )
    for k in range(count):
        i = kept[k]
        source = moves.source[i]
        has_moved = moves.node[i] > 0 and moves.node[i] != now.node[source]
        after.phone_count[k] = now.phone_count[source] + has_moved
        after.path[k] = path_of(now, moves, i)
        words = now.word_count[source]
        for place in range(words):
            after.words[k, place] = now.words[source, place]
            after.word_frames[k, place] = now.word_frames[source, place]
        if moves.word[i] > SENTENCE and words < width:
            after.words[k, words] = moves.word[i]
            after.word_frames[k, words] = frame
            words += 1
        after.word_count[k] = words
    return after
