"""From phones to words: probabilities add up as in the long way, words are given once and in time, the trigram is one."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from duplex.training.data.normalize import phones
from duplex.training.lexicon import DISCOUNT, pack, spellings

from duplex.model import beam_search, lexicon
from duplex.model.beam_search import (
    LM_WEIGHT,
    LONGEST_TURN,
    PHONE_BONUS,
    QUIET_FRAMES,
    REST_FRAMES,
    Reading,
    commit,
    read,
    settle,
    ways,
)
from duplex.model.encoder import BLANK, PHONES, WORD_END
from duplex.model.lexicon import expected, unpack, written

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
        given += [
            (word, first + 4) for word, _ in read(words, reading, log_probs[first : first + 4])
        ]
    return given


def test_what_is_said_is_heard_word_by_word(words):
    log_probs = spoken("you see a tree")
    given = heard(words, log_probs)
    assert [word for word, _ in given] == ["you", "see", "a", "tree"]
    last = len(log_probs) - 50
    assert given[0][1] < given[-1][1] <= last + QUIET_FRAMES + 4
    assert heard(words, log_probs[-50:]) == []


def read_all(words, log_probs) -> tuple[list[str], Reading]:
    reading = Reading()
    given = [
        word
        for tick in log_probs.reshape(-1, 2, 1 + len(PHONES))
        for word, _ in read(words, reading, tick)
    ]
    return given, reading


def test_all_ways_to_read_a_turn_live_on_beside_what_was_given(words):
    """ "see" and "sea" sound alike: the trigram's choice is given, the other is another way, in a long turn as well."""
    given, reading = read_all(words, spoken("i sea a tree see you", sure=0.99))
    found = ways(words, reading, 8)
    assert given == "i see a tree see you".split() == found[0][0] and len(found) == 8
    assert ["i", "sea", "a", "tree", "see", "you"] in [way for way, _ in found]
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True) and len({tuple(way) for way, _ in found}) == 8
    assert ways(words, reading, 3) == found[:3]


def test_a_way_may_end_with_a_word_whose_end_is_not_marked(words):
    log_probs = spoken("see you", marked=False)[: -50 + QUIET_FRAMES]
    _, reading = read_all(words, log_probs[: len(log_probs) // 2 * 2])
    assert ["see", "you"] in [way for way, _ in ways(words, reading, 4)]


def test_what_is_committed_is_over_and_the_rest_goes_on(words):
    reading, given = Reading(), []
    first, second = spoken("i see a", sure=0.8)[:-50], spoken("tree", sure=0.8)
    for part in (first[: len(first) // 2 * 2], second):
        for tick in part[: len(part) // 2 * 2].reshape(-1, 2, 1 + len(PHONES)):
            given += [word for word, _ in read(words, reading, tick)]
        commit(reading, len(reading.given))
        assert not reading.given and (reading.count <= 2).all()
    assert given == ["i", "see", "a", "tree"]
    assert ways(words, reading, 4)[0][0] == []


def test_where_no_hypothesis_agrees_with_what_was_given_the_best_goes_on(words):
    reading = Reading()
    given, reading = read_all(words, spoken("i see a tree")[:-50])
    reading.given[0] = words.words.index("bee")  # as if all others had gone out
    for tick in spoken("see you").reshape(-1, 2, 1 + len(PHONES)):
        given += [word for word, _ in read(words, reading, tick)]
    assert given[-2:] == ["see", "you"] and len(given) <= 6


def test_a_faint_word_is_given_and_not_sure(words, monkeypatch):
    """In half of the probability nobody speaks; the bonus for its phones makes it the best way, not a sure one."""
    log_probs = np.exp(spoken("see you", sure=0.5))
    log_probs[:, BLANK] = np.maximum(log_probs[:, BLANK], 0.5)
    ticks, shares = (
        np.log(log_probs / log_probs.sum(1, keepdims=True))
        .astype(np.float32)
        .reshape(-1, 2, 1 + len(PHONES)),
        [],
    )
    for doubted in (beam_search.DOUBTED, 0.0):
        monkeypatch.setattr(lexicon, "DOUBTED", doubted)
        reading = Reading()
        given = [word for tick in ticks for word in read(words, reading, tick)]
        assert [word for word, _ in given] == ["see", "you"]
        shares.append(given[0][1])
    assert shares[0] < 0.8 < 0.9 < shares[1]


def test_until_a_word_is_given_it_is_undecided(words):
    reading, given, undecided = Reading(), [], []
    for tick in spoken("see").reshape(-1, 2, 1 + len(PHONES)):
        given += read(words, reading, tick)
        undecided.append(beam_search.undecided(reading))
    begun, over = undecided.index(True), len(undecided) - undecided[::-1].index(True)
    assert (
        given
        and begun < over < len(undecided)
        and all(undecided[begun:over])
        and not beam_search.undecided(Reading())
    )


def test_a_word_whose_end_is_not_marked_is_given_in_a_rest(words):
    log_probs = spoken("i see a tree", marked=False, sure=0.9999)  # or each frame might be its end
    given = heard(words, log_probs)
    assert [word for word, _ in given] == ["i", "see", "a", "tree"]
    assert given[-1][1] >= len(log_probs) - 50 + REST_FRAMES - 4


def test_after_a_rest_a_sentence_may_begin_or_the_last_go_on(words):
    reading, ticks = Reading(), iter(spoken("i see").reshape(-1, 2, 1 + len(PHONES)))
    while not (reading.resting and reading.frame > REST_FRAMES):
        read(words, reading, next(ticks))
    size, said = len(words.words), [words.words.index(word) for word in ("i", "see")]
    both = [
        i for i in range(len(reading.node)) if reading.words[i, : reading.count[i]].tolist() == said
    ]
    going_on, over = sorted(both, key=lambda i: -reading.context[i])
    assert (
        len(both) == 2
        and reading.context[[going_on, over]].tolist() == [said[0] * size + said[1], 0]
        and not reading.node.any()
    )
    ends = expected(words, reading.context[[going_on]], np.array([0]))[0]
    assert reading.score[over] - reading.score[going_on] == pytest.approx(
        LM_WEIGHT * ends, rel=1e-5
    )


def test_a_word_that_nobody_finishes_is_none(words):
    """A run of sounds begins a word and breaks off; all hypotheses are within it when a rest begins."""
    log_probs = np.full((60, 1 + len(PHONES)), -99.0, np.float32)
    log_probs[np.arange(60), [phones("tree")[0]] + [BLANK] * 59] = 0.0
    reading = Reading()
    given = [
        word
        for tick in log_probs.reshape(-1, 4, 1 + len(PHONES))
        for word, _ in read(words, reading, tick)
    ]
    assert (
        given == []
        and reading.resting
        and not reading.node.any()
        and not beam_search.undecided(reading)
    )


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
    log_probs = torch.randn(
        frames, 1 + len(PHONES), generator=torch.Generator().manual_seed(seed)
    ).log_softmax(-1)
    reading = Reading()
    for frame in log_probs.numpy():
        beam_search.hear(words, reading, frame)
    found, said = {}, {}
    for i in np.flatnonzero(reading.node == 0):
        key = tuple(reading.words[i, : reading.count[i]])
        found.setdefault(key, []).append(reading.score[i])
        said[key] = sum(len(phones(words.words[word])) - 1 for word in key)  # its end is no phone
        assert reading.phones[i] == said[key]
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
                loss = torch.nn.functional.ctc_loss(
                    log_probs[:, None], torch.tensor([target]), *lengths, reduction="sum"
                )
                ways.append(-float(loss))
        contexts = np.array([0, pair[0]])
        prior = (
            LM_WEIGHT * float(expected(words, contexts, np.array(pair)).sum())
            + PHONE_BONUS * said[pair]
        )
        differences.append(np.logaddexp.reduce(ways) + prior - np.logaddexp.reduce(found[pair]))
    assert len(differences) > 3 and np.ptp(differences) < 1e-3, (
        "all by the same: the best score is taken off in every frame"
    )


def test_the_trigram_is_that_of_the_counts(words):
    """Every context's probabilities add up to 1, and one is worked out by hand."""
    size = len(words.words)
    index = {word: i for i, word in enumerate(words.words)}
    everything = np.arange(size)
    for first, second in [("i", "see"), ("see", "a"), ("a", "tree"), ("tree", "you"), ("", "i")]:
        context = np.full(size, index[first] * size + index[second])
        assert np.exp(expected(words, context, everything)).sum() == pytest.approx(
            1, abs=0.01
        )  # stored in 16 bits
    ends = [["", *sentence.split(), ""] for sentence in SENTENCES]
    counts = [
        Counter(zip(*(said[i:] for said in [line] for i in range(n)), strict=False))
        for line in ends
        for n in (2, 3)
    ]
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
    spelled = unpack(pack(SENTENCES, spell=lambda words: [word.title() for word in words]))
    assert written(spelled) == {word.lower(): word.title() for word in spelled.words}
    assert [word.lower() for word in spelled.words] == unpack(pack(SENTENCES)).words


def test_a_long_stream_costs_no_more_than_a_short_one(words):
    """Babble for 40 s: the hypotheses stay few, their scores finite, and no word waits for ever."""
    rng = np.random.default_rng(0)
    reading, given = Reading(), 0
    for _ in range(500):
        noise = rng.normal(0, 2, (4, 1 + len(PHONES)))
        given += len(
            read(
                words,
                reading,
                (noise - np.log(np.exp(noise).sum(1, keepdims=True))).astype(np.float32),
            )
        )
        assert len(reading.node) <= beam_search.HYPOTHESES and np.isfinite(reading.score).all()
        assert reading.words.shape[1] == LONGEST_TURN and reading.count.max() <= LONGEST_TURN > len(
            reading.given
        )
    assert given > 10


def test_a_long_turn_is_cut(words):
    """Until it is committed as a whole, which it is over then."""
    given, reading = read_all(words, spoken("i see you " * 17))
    assert (
        given == ["i", "see", "you"] * 17
        and reading.cut
        and len(reading.given) == 51 - beam_search.COMMITTED
    )
    commit(reading, LONGEST_TURN)
    assert not reading.cut and not reading.given


def test_nothing_to_settle_is_nothing_given(words):
    assert settle(words, Reading()) == []
