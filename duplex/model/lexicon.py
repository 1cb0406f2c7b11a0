"""The recogniser's words: a pronouncing dictionary as a tree of phones, and a trigram with back-off."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duplex.model.encoder import PHONES, WORD_END

SENTENCE = 0  # the word that begins and ends one
AFTER_ALL = np.iinfo(np.int64).max  # a key behind all others, so that every search ends at one


@dataclass(frozen=True)
class Lexicon:
    words: list[str]  # as they are written inside a sentence; word 0 is SENTENCE
    child: (
        np.ndarray
    )  # [nodes, 1 + phones] the node after a node and a phone; 0: no word goes on so
    outlook: np.ndarray  # [nodes] the best unigram score of a word below; of the root: 0
    ending: np.ndarray  # words by the node they end at
    first_ending: np.ndarray  # [nodes] where a node's words begin in `ending`
    endings: np.ndarray  # [nodes] how many they are
    unigrams: np.ndarray  # [V] log-probabilities
    backoffs: np.ndarray  # [V]
    bigram_keys: np.ndarray  # first * V + second, sorted, and AFTER_ALL
    bigrams: np.ndarray
    bigram_backoffs: np.ndarray
    trigram_keys: np.ndarray  # (first * V + second) * V + third, sorted, and AFTER_ALL
    trigrams: np.ndarray


def load_lexicon(folder: Path) -> Lexicon:
    """The lexicon that duplex.training.lexicon wrote. Raises FileNotFoundError."""
    from safetensors.numpy import load_file

    return unpack(load_file(folder / "model.safetensors"))


def written(lexicon: Lexicon) -> dict[str, str]:
    """Lower-case words -> as they are written: Paris, I'm, house."""
    return {word.lower(): word for word in lexicon.words}


def unpack(stored: dict[str, np.ndarray]) -> Lexicon:
    """Tensors as in the file, see duplex.training.lexicon.pack -> the lexicon."""
    words = ["", *stored["words"].tobytes().decode().split("\n")]
    size = len(words)
    bigram_keys = (
        np.repeat(np.arange(size), stored["bigram_counts"]) * size + stored["bigram_words"]
    )
    trigram_keys = np.repeat(bigram_keys, stored["trigram_counts"]) * size + stored["trigram_words"]
    scores = {
        name: stored[name].astype(np.float32)
        for name in ("unigrams", "backoffs", "bigrams", "bigram_backoffs", "trigrams")
    }
    scores |= {
        name: np.append(scores[name], np.float32(0))
        for name in ("bigrams", "bigram_backoffs", "trigrams")
    }
    keys = {
        "bigram_keys": np.append(bigram_keys, AFTER_ALL),
        "trigram_keys": np.append(trigram_keys, AFTER_ALL),
    }
    return Lexicon(words=words, **keys, **scores, **grow(stored["phones"], scores["unigrams"]))


def grow(phones: np.ndarray, unigrams: np.ndarray) -> dict[str, np.ndarray]:
    """The phones of all words but SENTENCE, each word's with a WORD_END after them -> the tree's arrays of a Lexicon."""
    ends = np.flatnonzero(phones == WORD_END)
    begins = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - begins
    child = np.zeros((lengths.sum() + 1, len(PHONES) + 1), np.int32)
    outlook = np.full(len(child), -np.inf, np.float32)
    node, nodes = np.zeros(len(ends), np.int64), 1
    for depth in range(lengths.max()):
        longer = np.flatnonzero(lengths > depth)
        step = node[longer] * child.shape[1] + phones[begins[longer] + depth]
        steps, which = np.unique(step, return_inverse=True)
        child.flat[steps] = nodes + np.arange(len(steps))
        node[longer] = nodes + which
        np.maximum.at(outlook, node[longer], unigrams[longer + 1])
        nodes += len(steps)
    outlook[0] = 0.0
    endings = np.bincount(node, minlength=nodes)
    return {
        "child": child[:nodes].copy(), "outlook": outlook[:nodes].copy(), "ending": np.argsort(node, kind="stable") + 1,
        "first_ending": np.cumsum(endings) - endings, "endings": endings,
    }  # fmt: skip


def expected(lexicon: Lexicon, context: np.ndarray, word: np.ndarray) -> np.ndarray:
    """Log-probability of each word after its two words before, by the trigram with its back-off."""
    size = len(lexicon.words)
    last = context % size
    bigram, known = find(lexicon.bigram_keys, last * size + word)
    lower = np.where(
        known, lexicon.bigrams[bigram], lexicon.backoffs[last] + lexicon.unigrams[word]
    )
    before, seen = find(lexicon.bigram_keys, context)
    trigram, known = find(lexicon.trigram_keys, context * size + word)
    return np.where(
        known,
        lexicon.trigrams[trigram],
        np.where(seen, lexicon.bigram_backoffs[before], 0.0) + lower,
    )


def find(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted keys -> where each wanted one would stand, and whether it is there."""
    place = np.searchsorted(keys, wanted)
    return place, keys[place] == wanted
