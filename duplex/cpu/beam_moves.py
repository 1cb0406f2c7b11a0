"""One frame of a beam search, compiled: ways to go on, merged, the best ones kept.

See duplex.model.asr.beam_search, where each step is explained. All is read and written in memory
that stays: a stream's hypotheses lie in a Room, twice, and a frame reads one half of it and writes
the other; a frame in which nothing but a blank is likely changes scores where they are.

H hypotheses that a room holds, W words of each.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from duplex.cpu.beam_tables import (
    INNER,
    KnownPairs,
    Tables,
    child,
    find_context,
    trigram,
)
from duplex.model.asr.encoder import BLANK, WORD_END
from duplex.model.asr.lexicon import SENTENCE

# A word counts in a path until eight others have followed.
FACTOR = np.int64(1_000_003 << 8)

EXPONENTS = 128 << 3

# See BeamState; what it has beside these, the words, lies in arrays of its own.
HYPOTHESIS = np.dtype(
    [
        ("node", np.int64),
        ("label", np.int64),
        ("context", np.int64),
        ("score", np.float64),
        ("phone_count", np.int64),
        ("path", np.int64),
        ("word_count", np.int64),
    ]
)

# See beam_search.Moves.
MOVE = np.dtype(
    [
        ("source", np.int64),
        ("node", np.int64),
        ("label", np.int64),
        ("context", np.int64),
        ("score", np.float64),
        ("word", np.int64),
    ]
)


class Room(NamedTuple):
    """Where a stream's hypotheses lie, in halves."""

    hypotheses: np.ndarray  # [2, H] HYPOTHESIS
    words: np.ndarray  # [2, H, W]
    word_frames: np.ndarray  # [2, H, W]


class Space(NamedTuple):
    """Room for what a frame needs meanwhile; N moves."""

    moves: np.ndarray  # [N] MOVE
    phones: np.ndarray  # [1 + phones] those that are likely
    table: np.ndarray  # [2 N or more] groups by the hash of their key
    keys: np.ndarray  # [N] of each group
    total: np.ndarray  # [N] its probability
    first: np.ndarray  # [N] its best move
    order: np.ndarray  # [N] groups, best first
    places: np.ndarray  # where in their order those of a size are
    pairs: KnownPairs


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
    segment_end_frames: int
    unmarked_end_score: float


class Search(NamedTuple):
    """What all frames are searched with."""

    tables: Tables
    space: Space
    numbers: Numbers


def new_space(moves: int, phones: int) -> Space:
    """Space for so many moves at most."""
    return Space(
        np.empty(moves, MOVE),
        np.empty(phones, np.int64),
        np.empty(2 << (moves - 1).bit_length(), np.int64),
        np.empty(moves, np.int64),
        np.empty(moves, np.float64),
        np.empty(moves, np.int64),
        np.empty(moves, np.int64),
        np.empty(EXPONENTS + 1, np.int64),
        KnownPairs(np.full(2048, -1), np.empty(2048, np.int64)),
    )


@njit(**INNER)
def likely_phones(log_probs, phones, least):
    """Fill in the phones that are likely; returns how many."""
    count = 0
    for phone in range(log_probs.size):
        if phone != BLANK and phone != WORD_END and log_probs[phone] > least:
            phones[count] = phone
            count += 1
    return count


@njit(**INNER)
def wait(hypotheses, blank):
    """All stay where they are: nothing but a blank is likely."""
    for i in range(hypotheses.size):
        hypotheses[i].score += blank
        hypotheses[i].label = BLANK


@njit(**INNER)
def find_moves(search, now, log_probs, phones, end_is_likely):
    """Ways to go on, in the order of beam_search.advance_frame; returns how many.

    phones: how many are likely. Ways are left out that are too far below the best one so far; they
    would be dropped anyway.
    """
    tables, space, numbers = search
    moves = space.moves
    width = numbers.beam_width
    size = 0
    best = now[0].score
    for i in range(now.size):
        best = max(best, now[i].score)
    best += log_probs[BLANK]
    for i in range(now.size):
        score = now[i].score + log_probs[BLANK]
        if score > best - width:
            size = put(moves, size, (i, now[i].node, BLANK, now[i].context, score, -1))
    for i in range(now.size):
        label = now[i].label
        score = now[i].score + log_probs[label]
        if label != BLANK and score > best - width:
            best = max(best, score)
            size = put(moves, size, (i, now[i].node, label, now[i].context, score, -1))
    for i in range(now.size):
        here = tables.nodes[now[i].node]
        for phone in space.phones[:phones]:
            node = child(here, phone)
            if node == 0 or now[i].label == phone:
                continue
            gain = tables.nodes[node].lookahead_score - here.lookahead_score
            gain = numbers.lm_weight * gain
            score = now[i].score + log_probs[phone] + gain + numbers.phone_bonus
            if score > best - width:
                best = max(best, score)
                size = put(moves, size, (i, node, phone, now[i].context, score, -1))
    if end_is_likely:
        mark = log_probs[WORD_END]
        for i in range(now.size):  # A mark may also stand between words, where nothing ends.
            score = now[i].score + mark
            if now[i].node == 0 and now[i].label != WORD_END and score > best - width:
                best = max(best, score)
                size = put(moves, size, (i, 0, WORD_END, now[i].context, score, -1))
        size = find_ends(search, now, (WORD_END, mark), size, best)
    return size


@njit(**INNER)
def find_ends(search, now, end, size, best):
    """Words that end; returns how many moves there are.

    end: with which label, and for which gain in score. size, best: of the moves before.
    """
    tables, space, numbers = search
    label, mark = end
    width = numbers.beam_width
    words = tables.unigrams.size
    for i in range(now.size):
        node = tables.nodes[now[i].node]
        outlook = node.lookahead_score
        # No word is likelier than certain.
        highest = now[i].score - numbers.lm_weight * outlook + mark
        if node.ending_count == 0 or highest <= best - width:
            continue
        context = find_context(tables, space.pairs, now[i].context)
        first = context[0] * words
        for place in range(node.ending_count):
            word = tables.ending[node.first_ending + place]
            gain = trigram(tables, space.pairs, context, word) - outlook
            score = now[i].score + numbers.lm_weight * gain + mark
            if score > best - width:
                best = max(best, score)
                size = put(space.moves, size, (i, 0, label, first + word, score, word))
    return size


@njit(**INNER)
def put(moves, size, move):
    """Add a move, the fields of MOVE in their order; returns how many there are now."""
    source, node, label, context, score, word = move
    moves[size].source = source
    moves[size].node = node
    moves[size].label = label
    moves[size].context = context
    moves[size].score = score
    moves[size].word = word
    return size + 1


@njit(**INNER)
def best_first(moves):
    """Sort moves by score: in this order beam_search.merge_and_prune adds up what it merges."""
    for i in range(1, moves.size):
        source, node, label = moves[i].source, moves[i].node, moves[i].label
        context, score, word = moves[i].context, moves[i].score, moves[i].word
        k = i
        while k > 0 and moves[k - 1].score < score:
            last = moves[k - 1]
            put(moves, k, (last.source, last.node, last.label, last.context, last.score, last.word))
            k -= 1
        put(moves, k, (source, node, label, context, score, word))


@njit(**INNER)
def merge(now, moves, nodes, space, numbers):
    """Merge what has come to the same place after the same words: fills in the groups of `space`.

    nodes: how many nodes the trie has. Returns how many groups there are.
    """
    best = moves[0].score
    for i in range(moves.size):
        best = max(best, moves[i].score)
    slots = 256
    while slots < 2 * moves.size:
        slots *= 2
    table, keys, total, first = space.table, space.keys, space.total, space.first
    table[:slots] = -1
    groups = 0
    for i in range(moves.size):
        score = moves[i].score
        if not score > best - numbers.beam_width:
            continue
        key = (path_of(now, moves[i]) * 2 + (moves[i].label != BLANK)) * nodes + moves[i].node
        slot = np.int64((np.uint64(key) * np.uint64(11400714819323198485)) >> np.uint64(20))
        slot &= slots - 1
        while table[slot] >= 0 and keys[table[slot]] != key:
            slot = (slot + 1) & (slots - 1)
        group = table[slot]
        chance = np.exp(score - best)
        if group < 0:
            table[slot] = groups
            keys[groups] = key
            total[groups] = chance
            first[groups] = i
            groups += 1
            continue
        total[group] += chance
        if score > moves[first[group]].score:
            first[group] = i
    return groups


@njit(**INNER)
def path_of(now, move):
    """What was said with a move, as one number."""
    path = now[move.source].path
    return path if move.word < 0 else path * FACTOR + move.word


@njit(**INNER)
def best_groups(groups, space, count):
    """Put the `count` likeliest groups into their order, best first; of equally likely ones the
    smaller key. Returns how many there are.

    Sorted by exponent and a few bits first, and what is left by comparing neighbours: a sort that
    only compares is wrong about every other comparison, which costs more than all else.
    """
    total, order, places = space.total, space.order, space.places
    places[:] = 0
    for group in range(groups):
        places[exponent(total[group])] += 1
    least = EXPONENTS
    taken = 0
    while taken < min(count, groups):  # From the likeliest on; places then begin where each begins.
        least -= 1
        number = places[least]
        places[least] = taken
        taken += number
    for group in range(groups):
        place = exponent(total[group])
        if place >= least:
            order[places[place]] = group
            places[place] += 1
    for i in range(1, taken):
        group = order[i]
        k = i
        while k > 0 and is_before(group, order[k - 1], space):
            order[k] = order[k - 1]
            k -= 1
        order[k] = group
    return min(taken, count)


@njit(**INNER)
def exponent(total):
    """A number that grows with a probability from 2^-96 to 2^32: its exponent and three bits."""
    bits = np.int64(np.float64(total).view(np.int64))
    return min(max((bits >> 49) - ((1023 - 96) << 3), 0), EXPONENTS - 1)


@njit(**INNER)
def is_before(one, other, space):
    """Whether a group is likelier than another, or has the smaller key."""
    total = space.total
    is_equal = total[one] == total[other]
    return total[one] > total[other] or is_equal and space.keys[one] < space.keys[other]


@njit(**INNER)
def take(room, side, moves, space, count, frame):
    """Write the hypotheses that the best groups' best moves lead to into the other half."""
    now, after = room.hypotheses[side], room.hypotheses[1 - side]
    words, new_words = room.words[side], room.words[1 - side]
    frames, new_frames = room.word_frames[side], room.word_frames[1 - side]
    for k in range(count):
        group = space.order[k]
        move = moves[space.first[group]]
        source = move.source
        has_moved = move.node > 0 and move.node != now[source].node
        after[k].phone_count = now[source].phone_count + has_moved
        after[k].node = move.node
        after[k].label = move.label
        after[k].context = move.context
        after[k].score = np.log(space.total[group])
        after[k].path = path_of(now, move)
        length = now[source].word_count
        for place in range(length):
            new_words[k, place] = words[source, place]
            new_frames[k, place] = frames[source, place]
        if move.word > SENTENCE and length < words.shape[1]:
            new_words[k, length] = move.word
            new_frames[k, length] = frame
            length += 1
        after[k].word_count = length
