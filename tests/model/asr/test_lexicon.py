"""The lexicon: the trigram is that of the counts, words are written as in the texts."""

from collections import Counter

import numpy as np
import pytest

from duplex.model.asr.lexicon import Lexicon, surface_forms, trigram_log_prob, unpack
from duplex.training.lexicon import DISCOUNT, pack, spellings

SENTENCES = [
    "i see a tree",
    "i see you",
    "you see a tree",
    "a tree",
    "we see a bee",
    "i see a bee",
    "bee a tree",
    "see you",
]
LISTED = ["trees", "sea"]


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return unpack(pack(SENTENCES, listed=LISTED))


def test_trigram_probabilities_add_up_to_one(lexicon):
    size = len(lexicon.words)
    index = {word: i for i, word in enumerate(lexicon.words)}
    for first, second in [("i", "see"), ("see", "a"), ("a", "tree"), ("tree", "you"), ("", "i")]:
        context = np.full(size, index[first] * size + index[second])
        total = np.exp(trigram_log_prob(lexicon, context, np.arange(size))).sum()
        assert total == pytest.approx(1, abs=0.01)  # They are stored in 16 bits.


def test_trigram_is_that_of_the_counts(lexicon):
    """One probability, "tree" after "see a", worked out by hand."""
    size = len(lexicon.words)
    index = {word: i for i, word in enumerate(lexicon.words)}
    lines = [["", *sentence.split(), ""] for sentence in SENTENCES]
    pairs = Counter(pair for line in lines for pair in zip(line, line[1:], strict=False))
    triples = Counter(t for line in lines for t in zip(line, line[1:], line[2:], strict=False))
    singles = Counter(word for line in lines for word in line[1:])
    total = sum(singles.values()) + len(LISTED) * 0.2
    followed = {pair: n for pair, n in pairs.items() if pair[0] == "a"}
    lower = (pairs["a", "tree"] - DISCOUNT) / sum(followed.values())
    lower += DISCOUNT * len(followed) / sum(followed.values()) * singles["tree"] / total
    kept = {triple: n for triple, n in triples.items() if triple[:2] == ("see", "a") and n > 1}
    left = 1 - sum(n - DISCOUNT for n in kept.values()) / pairs["see", "a"]
    wanted = (triples["see", "a", "tree"] - DISCOUNT) / pairs["see", "a"] + left * lower
    context = np.array([index["see"] * size + index["a"]])
    got = trigram_log_prob(lexicon, context, np.array([index["tree"]]))
    assert float(np.exp(got[0])) == pytest.approx(wanted, rel=0.01)


def test_words_are_written_as_inside_sentences():
    """At a sentence's beginning, and in lines all of one size, capitals mean nothing; the list is
    asked last."""
    lines = [
        "Where is Paris, Tom? Paris I know.",
        "The march to Rome was long. March on!",
        "paris rome",
        "WHERE IS THE MARCH",
    ]
    listed = ["Eleanor", "Polish", "polish", "Rome"]
    asked = ["paris", "tom", "i", "march", "rome", "where", "eleanor", "polish", "zzz"]
    found = ["Paris", "Tom", "I", "march", "Rome", "where", "Eleanor", "polish", "zzz"]
    assert spellings(asked, lines, listed) == found


def test_surface_forms_are_found_by_lower_case_words():
    spelled = unpack(pack(SENTENCES, spell=lambda words: [word.title() for word in words]))
    assert surface_forms(spelled) == {word.lower(): word.title() for word in spelled.words}
    assert [word.lower() for word in spelled.words] == unpack(pack(SENTENCES)).words
