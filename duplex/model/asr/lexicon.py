"""The recogniser's words: a pronouncing dictionary as a trie, and a trigram with back-off.

`duplex.training.lexicon` makes it, `duplex.model.asr.beam_search` searches it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duplex import checkpoint
from duplex.model.asr.encoder import PHONES, WORD_END

# The word that begins and ends a sentence.
SENTENCE = 0


@dataclass(frozen=True)
class Lexicon:
    """V words, the trie of their phones, and the log-probabilities of words, pairs and triples.

    A pair's key is first * V + second, a triple's (first * V + second) * V + third. Both lists of
    keys are sorted and end with the largest number.
    """

    # The words as they are written inside a sentence; word 0 is SENTENCE.
    words: list[str]
    # [nodes, 1 + phones] The node after a node and a phone; 0: no word goes on so.
    child: np.ndarray
    # [nodes] The best unigram score of a word below; 0 at the root.
    lookahead_score: np.ndarray
    # [V - 1] Words by the node they end at.
    ending: np.ndarray
    # [nodes] Where a node's words begin in `ending`.
    first_ending: np.ndarray
    # [nodes] How many words end at a node.
    ending_count: np.ndarray
    # [V] Log-probabilities of single words.
    unigrams: np.ndarray
    # [V] Log of the weight of the unigrams after a word, for a pair that is not listed.
    backoffs: np.ndarray
    bigram_keys: np.ndarray
    bigrams: np.ndarray
    bigram_backoffs: np.ndarray
    trigram_keys: np.ndarray
    trigrams: np.ndarray


def load_lexicon(folder: Path) -> Lexicon:
    """The lexicon of a folder that duplex.training.lexicon wrote. Raises FileNotFoundError."""
    stored = checkpoint.read(folder / "model.safetensors")
    return unpack({name: value.numpy() for name, value in stored.items()})


def surface_forms(lexicon: Lexicon) -> dict[str, str]:
    """Lower-case words -> how they are written: Paris, I'm, house."""
    return {word.lower(): word for word in lexicon.words}


def unpack(stored: dict[str, np.ndarray]) -> Lexicon:
    """Tensors as in the file (see duplex.training.lexicon.pack) -> the lexicon."""
    words = ["", *stored["words"].tobytes().decode().split("\n")]
    size = len(words)
    first = np.repeat(np.arange(size), stored["bigram_counts"])
    bigram_keys = first * size + stored["bigram_words"]
    pair = np.repeat(bigram_keys, stored["trigram_counts"])
    trigram_keys = pair * size + stored["trigram_words"]
    unigrams = stored["unigrams"].astype(np.float32)
    # A key behind all others, so that every search in sorted keys ends at one.
    sentinel = np.iinfo(np.int64).max

    def scores(name: str) -> np.ndarray:
        """As float32, and one more for the sentinel."""
        return np.append(stored[name].astype(np.float32), np.float32(0))

    return Lexicon(
        words=words,
        unigrams=unigrams,
        backoffs=stored["backoffs"].astype(np.float32),
        bigram_keys=np.append(bigram_keys, sentinel),
        bigrams=scores("bigrams"),
        bigram_backoffs=scores("bigram_backoffs"),
        trigram_keys=np.append(trigram_keys, sentinel),
        trigrams=scores("trigrams"),
        **build_trie(stored["phones"], unigrams),
    )


def build_trie(phones: np.ndarray, unigrams: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of a Lexicon that make its trie.

    Args:
        phones: [n] of all words but SENTENCE, a WORD_END after those of each word.
        unigrams: [V] log-probabilities.
    """
    ends = np.flatnonzero(phones == WORD_END)
    begins = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - begins
    child = np.zeros((lengths.sum() + 1, len(PHONES) + 1), np.int32)
    lookahead_score = np.full(len(child), -np.inf, np.float32)
    node = np.zeros(len(ends), np.int64)
    nodes = 1
    # One level of the trie after the other: all words that are longer go on by a phone at once.
    for depth in range(lengths.max()):
        longer = np.flatnonzero(lengths > depth)
        step = node[longer] * child.shape[1] + phones[begins[longer] + depth]
        steps, which = np.unique(step, return_inverse=True)
        child.flat[steps] = nodes + np.arange(len(steps))
        node[longer] = nodes + which
        np.maximum.at(lookahead_score, node[longer], unigrams[longer + 1])
        nodes += len(steps)
    lookahead_score[0] = 0.0
    ending_count = np.bincount(node, minlength=nodes)
    return {
        "child": child[:nodes].copy(),
        "lookahead_score": lookahead_score[:nodes].copy(),
        "ending": np.argsort(node, kind="stable") + 1,
        "first_ending": np.cumsum(ending_count) - ending_count,
        "ending_count": ending_count,
    }


def trigram_log_prob(lexicon: Lexicon, context: np.ndarray, word: np.ndarray) -> np.ndarray:
    """Log-probability of each word [n] after the two words of its context [n], with back-off.

    Args:
        context: the key of a pair of words.
    """
    size = len(lexicon.words)
    last = context % size
    bigram, has_bigram = find_keys(lexicon.bigram_keys, last * size + word)
    backed_off = lexicon.backoffs[last] + lexicon.unigrams[word]
    lower = np.where(has_bigram, lexicon.bigrams[bigram], backed_off)
    before, has_context = find_keys(lexicon.bigram_keys, context)
    trigram, has_trigram = find_keys(lexicon.trigram_keys, context * size + word)
    backed_off = np.where(has_context, lexicon.bigram_backoffs[before], 0.0) + lower
    return np.where(has_trigram, lexicon.trigrams[trigram], backed_off)


def find_keys(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each wanted key stands, or would stand, in sorted keys, and whether it is there."""
    place = np.searchsorted(keys, wanted)
    return place, keys[place] == wanted
