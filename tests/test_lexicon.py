"""From phones to words: probabilities add up as in the long way, words are given once and in time, the trigram is one."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from duplex import lexicon
from duplex.encoder import BLANK, PHONES, WORD_END
from duplex.lexicon import LM_WEIGHT, QUIET_FRAMES, REST_FRAMES, WORD_BONUS, Reading, expected, read, settle, unpack, written
from training.lexicon import DISCOUNT, pack, spellings
from training.transcript import phones

SENTENCES = ["i see a tree", "i see you", "you see a tree", "a tree", "we see a bee", "i see a bee", "bee a tree", "see you"]


@pytest.fixture(scope="module")
def words() -> lexicon.Lexicon:
    return unpack(pack(SENTENCES, listed=["trees", "sea"]))


def spoken(text: str, sure: float = 0.9, marked: bool = True) -> np.ndarray:
    """A stream in which every phone of the text is heard in one frame, 40 ms after the one before, then a second of nothing."""
    frames = []
    for phone in phones(text)[: None if marked else -1]:
        frames += [BLANK, phone]
    frames += [BLANK] * 50
    found = np.full((len(frames), 1 + len(PHONES)), (1 - sure) / len(PHONES))
    found[np.arange(len(frames)), frames] = sure
    return np.log(found).astype(np.float32)


def heard(words: lexicon.Lexicon, log_probs: np.ndarray) -> list[tuple[str, int]]:
    """Words with the frame after which each was given."""
    reading, given = Reading(), []
    for first in range(0, len(log_probs) - 3, 4):
        given += [(word, first + 4) for word, _ in read(words, reading, log_probs[first : first + 4])]
    return given


def test_what_is_said_is_heard_word_by_word(words):
    log_probs = spoken("you see a tree")
    given = heard(words, log_probs)
    assert [word for word, _ in given] == ["you", "see", "a", "tree"]
    last = len(log_probs) - 50
    assert given[0][1] < given[-1][1] <= last + QUIET_FRAMES + 4
    assert heard(words, log_probs[-50:]) == []


def judged(words, log_probs, judge) -> list[str]:
    reading = Reading()
    return [word for tick in log_probs.reshape(-1, 2, 1 + len(PHONES)) for word, _ in read(words, reading, tick, judge)]


def test_a_judge_decides_between_words_that_sound_alike(words):
    """"see" and "sea": the trigram's choice, and the judge's; what is certain it is not asked."""
    asked = []

    def judge(ways):
        asked.extend(ways)
        return [0.0 if "sea" in way else -40.0 for way in ways]

    one = spoken("sea")
    assert judged(words, one, None) == ["see"] and judged(words, one, judge) == ["sea"]
    assert ["see"] in asked and ["sea"] in asked and all(asked)
    asked.clear()
    assert judged(words, spoken("tree", sure=0.999), judge) == ["tree"] and not asked


@pytest.mark.parametrize("likely", [-1000.0, None])
def test_a_judge_that_likes_or_reads_nothing_takes_no_word_away(words, likely):
    log_probs = spoken("i see a tree", sure=0.6)
    given = judged(words, log_probs, lambda ways: [] if likely is None else [likely] * len(ways))
    assert given == judged(words, log_probs, None)


def test_until_a_word_is_given_it_is_undecided(words):
    reading, given, undecided = Reading(), [], []
    for tick in spoken("see").reshape(-1, 2, 1 + len(PHONES)):
        given += read(words, reading, tick)
        undecided.append(lexicon.undecided(reading))
    begun, over = undecided.index(True), len(undecided) - undecided[::-1].index(True)
    assert given and begun < over < len(undecided) and all(undecided[begun:over]) and not lexicon.undecided(Reading())


def test_a_word_whose_end_is_not_marked_is_given_in_a_rest(words):
    log_probs = spoken("i see a tree", marked=False)
    given = heard(words, log_probs)
    assert [word for word, _ in given] == ["i", "see", "a", "tree"]
    assert given[-1][1] >= len(log_probs) - 50 + REST_FRAMES - 4


def test_after_a_rest_a_sentence_may_begin_or_the_last_go_on(words):
    reading, ticks = Reading(), iter(spoken("i see").reshape(-1, 2, 1 + len(PHONES)))
    while not (reading.resting and reading.frame > REST_FRAMES):
        read(words, reading, next(ticks))
    contexts, size = reading.context.tolist(), len(words.words)
    assert contexts == [words.words.index("i") * size + words.words.index("see"), 0] and reading.said == [(), ()]
    over = expected(words, np.array(contexts[:1]), np.array([0]))[0]
    assert reading.score[1] - reading.score[0] == pytest.approx(LM_WEIGHT * over, rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_a_hypothesis_has_the_probability_of_all_its_paths(seed, monkeypatch):
    """Nothing pruned: against PyTorch's CTC loss over every way to write two words with their ends, and the trigram.

    Words of at least two phones: three of them do not fit, whose last two words would be another pair's.
    """
    words = unpack(pack(["see you", "you be", "see be", "be you", "he see"]))
    monkeypatch.setattr(lexicon, "LEAST_PHONE", -np.inf)
    monkeypatch.setattr(lexicon, "SCORE_WIDTH", np.inf)
    monkeypatch.setattr(lexicon, "HYPOTHESES", 10**6)
    frames = 8
    log_probs = torch.randn(frames, 1 + len(PHONES), generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
    reading = Reading()
    for frame in log_probs.numpy():
        lexicon.hear(words, reading, frame)
    found = {}
    for i in np.flatnonzero(reading.node == 0):
        found.setdefault(tuple(word for word, _ in reading.said[i]), []).append(reading.score[i])
    size = len(words.words)
    differences = []
    for pair in itertools.product(range(1, size), repeat=2):
        written = [phones(words.words[word]) for word in pair]
        if sum(map(len, written)) > frames or pair not in found:
            continue
        ways = []
        for more in itertools.product(range(frames), repeat=3):  # further ends, where no word is
            gaps = [[WORD_END] * n for n in more]
            target = [*gaps[0], *written[0], *gaps[1], *written[1], *gaps[2]]
            if len(target) + sum(a == b for a, b in itertools.pairwise(target)) <= frames:
                lengths = torch.tensor([frames]), torch.tensor([len(target)])
                loss = torch.nn.functional.ctc_loss(log_probs[:, None], torch.tensor([target]), *lengths, reduction="sum")
                ways.append(-float(loss))
        contexts = np.array([0, pair[0]])
        prior = LM_WEIGHT * float(expected(words, contexts, np.array(pair)).sum()) + 2 * WORD_BONUS
        differences.append(np.logaddexp.reduce(ways) + prior - np.logaddexp.reduce(found[pair]))
    assert len(differences) > 3 and np.ptp(differences) < 1e-3, "all by the same: the best score is taken off in every frame"


def test_the_trigram_is_that_of_the_counts(words):
    """Every context's probabilities add up to 1, and one is worked out by hand."""
    size = len(words.words)
    index = {word: i for i, word in enumerate(words.words)}
    everything = np.arange(size)
    for first, second in [("i", "see"), ("see", "a"), ("a", "tree"), ("tree", "you"), ("", "i")]:
        context = np.full(size, index[first] * size + index[second])
        assert np.exp(expected(words, context, everything)).sum() == pytest.approx(1, abs=0.01)  # stored in 16 bits
    ends = [["", *sentence.split(), ""] for sentence in SENTENCES]
    counts = [Counter(zip(*(said[i:] for said in [line] for i in range(n)), strict=False)) for line in ends for n in (2, 3)]
    pairs, triples = sum(counts[::2], Counter()), sum(counts[1::2], Counter())
    singles = Counter(word for line in ends for word in line[1:])
    total = sum(singles.values()) + 2 * 0.2
    followed = {pair: n for pair, n in pairs.items() if pair[0] == "a"}
    lower = (pairs["a", "tree"] - DISCOUNT) / sum(followed.values())
    lower += DISCOUNT * len(followed) / sum(followed.values()) * singles["tree"] / total
    kept = {triple: n for triple, n in triples.items() if triple[:2] == ("see", "a") and n > 1}
    left = 1 - sum(n - DISCOUNT for n in kept.values()) / pairs["see", "a"]
    wanted = (triples["see", "a", "tree"] - DISCOUNT) / pairs["see", "a"] + left * lower
    got = expected(words, np.array([index["see"] * size + index["a"]]), np.array([index["tree"]]))
    assert float(np.exp(got[0])) == pytest.approx(wanted, rel=0.01)


def test_words_are_written_as_they_stand_inside_sentences(words):
    """At a sentence's beginning, and in lines all of one size, capitals mean nothing; the list is asked last."""
    lines = ["Where is Paris, Tom? Paris I know.", "The march to Rome was long. March on!", "paris rome", "WHERE IS THE MARCH"]
    listed = ["Eleanor", "Polish", "polish", "Rome"]
    asked = ["paris", "tom", "i", "march", "rome", "where", "eleanor", "polish", "zzz"]
    found = ["Paris", "Tom", "I", "march", "Rome", "where", "Eleanor", "polish", "zzz"]
    assert spellings(asked, lines, listed) == found
    spelled = unpack(pack(SENTENCES, spell=lambda words: [word.title() for word in words]))
    assert written(spelled) == {word.lower(): word.title() for word in spelled.words}
    assert [word.lower() for word in spelled.words] == unpack(pack(SENTENCES)).words


def test_a_long_stream_costs_no_more_than_a_short_one(words):
    """Babble for 40 s: the hypotheses stay few, their scores finite, and no word waits for ever."""
    rng = np.random.default_rng(0)
    reading, given = Reading(), 0
    for _ in range(500):
        noise = rng.normal(0, 2, (4, 1 + len(PHONES)))
        given += len(read(words, reading, (noise - np.log(np.exp(noise).sum(1, keepdims=True))).astype(np.float32)))
        assert len(reading.node) <= lexicon.HYPOTHESES and np.isfinite(reading.score).all()
        assert max(map(len, reading.said)) < 40
    assert given > 10


def test_nothing_to_settle_is_nothing_given(words):
    assert settle(words, Reading()) == []
