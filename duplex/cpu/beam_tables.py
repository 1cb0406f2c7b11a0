"""A lexicon as the compiled beam search looks things up in it.

A node of the trie is one record of 24 bytes, and its children are the nodes from `first_child` on,
in the order of their phones: the trie is numbered so. Pairs and triples that begin alike lie
together, so that a search is among a few of them and not among all.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from duplex.model.asr.lexicon import Lexicon

# Without fastmath: scores are compared.
OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}
# For what runs in loops: references are not counted, which would take longer than all else. Such a
# function makes and returns no array, it is given all that it needs.
INNER = OPTIONS | {"_nrt": False}

NODE = np.dtype(
    [
        ("phones", np.uint64),  # by which words go on from here, as bits
        ("first_child", np.int32),
        ("lookahead_score", np.float32),
        ("first_ending", np.int32),
        ("ending_count", np.int32),
    ]
)


class Tables(NamedTuple):
    """See Lexicon, whose names most of these are; P pairs, T triples."""

    nodes: np.ndarray  # [nodes] NODE
    ending: np.ndarray
    unigrams: np.ndarray
    backoffs: np.ndarray
    bigrams: np.ndarray
    bigram_backoffs: np.ndarray
    trigrams: np.ndarray
    # [V + 1], [P] Where the pairs begin that have this first word, and the second word of each.
    first_pair: np.ndarray
    pair_words: np.ndarray
    # [P + 1], [T] Where the triples begin that begin with this pair, and the third word of each.
    first_triple: np.ndarray
    triple_words: np.ndarray


class KnownPairs(NamedTuple):
    """Pairs that were looked for of late, by their hash: the same ones are asked for again."""

    keys: np.ndarray  # [2048] the first word times V, plus the second; -1: none
    places: np.ndarray  # [2048]


def pack_tables(lexicon: Lexicon) -> Tables:
    """Raises ValueError where the lexicon is not numbered as those of duplex.training.lexicon."""
    nodes = np.zeros(len(lexicon.child), NODE)
    parent, phone = np.nonzero(lexicon.child)
    np.bitwise_or.at(nodes["phones"], parent, np.uint64(1) << phone.astype(np.uint64))
    begins = np.flatnonzero(np.diff(parent, prepend=-1))
    rank = np.arange(len(parent)) - np.repeat(begins, np.diff([*begins, len(parent)]))
    children = lexicon.child[parent, phone]
    nodes["first_child"][parent[begins]] = children[begins]
    for name in ("lookahead_score", "first_ending", "ending_count"):
        nodes[name] = getattr(lexicon, name)
    size = len(lexicon.words)
    pairs = lexicon.bigram_keys[:-1]
    triples = lexicon.trigram_keys[:-1]
    first_triple = np.searchsorted(triples, np.append(pairs, size * size) * size)
    is_usual = (
        lexicon.child.shape[1] <= 64
        and (children == nodes["first_child"][parent] + rank).all()
        and (np.repeat(pairs, np.diff(first_triple)) == triples // size).all()
    )
    if not is_usual:
        raise ValueError("a lexicon whose nodes or triples are not in their order")
    return Tables(
        nodes=nodes,
        **{name: getattr(lexicon, name) for name in Tables._fields[1:7]},
        first_pair=np.searchsorted(pairs, np.arange(size + 1) * size),
        pair_words=(pairs % size).astype(np.int32),
        first_triple=first_triple,
        triple_words=(triples % size).astype(np.int32),
    )


@intrinsic
def count_bits(typingctx, bits):
    """How many bits of 64 are set."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


@njit(**INNER)
def child(node, phone):
    """The node after a node by a phone; 0: no word goes on so."""
    bit = np.uint64(1) << np.uint64(phone)
    if not node.phones & bit:
        return 0
    return node.first_child + np.int64(count_bits(node.phones & (bit - np.uint64(1))))


@njit(**INNER)
def find_pair(tables, known, first, second):
    """Where a pair of words stands; -1: nowhere."""
    key = first * tables.unigrams.size + second
    place = np.int64((np.uint64(key) * np.uint64(11400714819323198485)) >> np.uint64(53))
    if known.keys[place] != key:
        begin, end = tables.first_pair[first], tables.first_pair[first + 1]
        known.places[place] = find(tables.pair_words, second, begin, end)
        known.keys[place] = key
    return known.places[place]


@njit(**INNER)
def find_context(tables, known, context):
    """The last word of a context, where its two words stand as a pair, and the backoff from it."""
    first = context // tables.unigrams.size
    last = context - first * tables.unigrams.size
    pair = find_pair(tables, known, first, last)
    return last, pair, tables.bigram_backoffs[pair] if pair >= 0 else np.float32(0.0)


@njit(**INNER)
def trigram(tables, known, context, word):
    """Log-probability of a word after what find_context gives: see lexicon.trigram_log_prob."""
    last, pair, backoff = context
    if pair >= 0:
        begin, end = tables.first_triple[pair], tables.first_triple[pair + 1]
        at = find(tables.triple_words, word, begin, end)
        if at >= 0:
            return tables.trigrams[at]
    at = find_pair(tables, known, last, word)
    lower = tables.bigrams[at] if at >= 0 else tables.backoffs[last] + tables.unigrams[word]
    return backoff + lower


@njit(**INNER)
def find(words, wanted, begin, end):
    """Where a word stands among sorted ones from `begin` on and before `end`; -1: nowhere."""
    if begin == end:
        return -1
    left = end - begin
    while left > 1:
        half = left >> 1
        begin += half * (words[begin + half - 1] < wanted)  # without a branch to be mistaken about
        left -= half
    return begin if words[begin] == wanted else -1
