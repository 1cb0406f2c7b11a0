"""The beam search: probabilities add up over all paths, words are committed once and in time."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from duplex.model.asr.beam_search import (
    DEFAULT,
    MAX_WORDS,
    BeamState,
    advance_frame,
    commit_agreed_words,
    decode,
    forget_committed_words,
    has_uncommitted_words,
    n_best,
)
from duplex.model.asr.encoder import BLANK, PHONES, WORD_END
from duplex.model.asr.lexicon import Lexicon, trigram_log_prob, unpack
from duplex.training.data.normalize import phones
from duplex.training.lexicon import pack

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
SILENT_FRAMES = 50  # A second of nothing after each utterance.


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return unpack(pack(SENTENCES, listed=["trees", "sea"]))


def spoken(text: str, probability: float = 0.9, is_end_marked: bool = True) -> np.ndarray:
    """Log-probabilities [n, 1 + phones] in which every phone of the text fills one frame, 40 ms
    after the one before, then a second of nothing."""
    frames = []
    for phone in phones(text)[: None if is_end_marked else -1]:
        frames += [BLANK, phone]
    frames += [BLANK] * SILENT_FRAMES
    found = np.full((len(frames), 1 + len(PHONES)), (1 - probability) / len(PHONES))
    found[np.arange(len(frames)), frames] = probability
    return np.log(found).astype(np.float32)


def pairs_of_frames(log_probs: np.ndarray) -> np.ndarray:
    """[n, 1 + phones] -> [n / 2, 2, 1 + phones], the last odd frame left out."""
    return log_probs[: len(log_probs) // 2 * 2].reshape(-1, 2, 1 + len(PHONES))


def decode_all(lexicon: Lexicon, log_probs: np.ndarray) -> tuple[list[str], BeamState]:
    """The words that are committed, and the state after them."""
    state = BeamState()
    words = [
        word for tick in pairs_of_frames(log_probs) for word, _ in decode(lexicon, state, tick)
    ]
    return words, state


def commit_frames(lexicon: Lexicon, log_probs: np.ndarray) -> list[tuple[str, int]]:
    """Words with the frame by which each was committed."""
    state = BeamState()
    committed = []
    for first in range(0, len(log_probs) - 3, 4):
        words = decode(lexicon, state, log_probs[first : first + 4])
        committed += [(word, first + 4) for word, _ in words]
    return committed


def test_words_are_committed_one_by_one(lexicon):
    log_probs = spoken("you see a tree")
    committed = commit_frames(lexicon, log_probs)
    assert [word for word, _ in committed] == ["you", "see", "a", "tree"]
    end = len(log_probs) - SILENT_FRAMES
    assert committed[0][1] < committed[-1][1] <= end + DEFAULT.commit_all_frames + 4
    assert commit_frames(lexicon, log_probs[-SILENT_FRAMES:]) == []


def test_committing_needs_words(lexicon):
    assert commit_agreed_words(lexicon, BeamState()) == []


def test_word_in_progress_is_uncommitted(lexicon):
    state = BeamState()
    assert not has_uncommitted_words(state)
    committed, uncommitted = [], []
    for tick in pairs_of_frames(spoken("see")):
        committed += decode(lexicon, state, tick)
        uncommitted.append(has_uncommitted_words(state))
    begin = uncommitted.index(True)
    end = len(uncommitted) - uncommitted[::-1].index(True)
    assert committed and all(uncommitted[begin:end])
    assert begin < end < len(uncommitted)


def test_faint_word_is_committed_without_confidence(lexicon):
    """In half of the probability nobody speaks; the phones' bonus makes a word the best reading,
    not a sure one."""
    probs = np.exp(spoken("see you", probability=0.5))
    probs[:, BLANK] = np.maximum(probs[:, BLANK], 0.5)
    log_probs = np.log(probs / probs.sum(1, keepdims=True)).astype(np.float32)
    confidences = []
    for discount in (DEFAULT.confidence_phone_discount, 0.0):
        config = replace(DEFAULT, confidence_phone_discount=discount)
        state = BeamState()
        committed = []
        for tick in pairs_of_frames(log_probs):
            committed += decode(lexicon, state, tick, config)
        assert [word for word, _ in committed] == ["see", "you"]
        confidences.append(committed[0][1])
    assert confidences[0] < 0.8 < 0.9 < confidences[1]


def test_n_best_keeps_readings_that_were_not_committed(lexicon):
    """ "see" and "sea" sound alike: the trigram's choice is committed, the other is a reading."""
    committed, state = decode_all(lexicon, spoken("i sea a tree see you", probability=0.99))
    found = n_best(lexicon, state, 8)
    readings = [reading for reading, _ in found]
    assert committed == "i see a tree see you".split() == readings[0]
    assert ["i", "sea", "a", "tree", "see", "you"] in readings
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert len(found) == len(set(map(tuple, readings))) == 8
    assert n_best(lexicon, state, 3) == found[:3]


def test_n_best_may_end_with_an_unmarked_word(lexicon):
    log_probs = spoken("see you", is_end_marked=False)
    log_probs = log_probs[: DEFAULT.commit_all_frames - SILENT_FRAMES]
    _, state = decode_all(lexicon, log_probs)
    assert ["see", "you"] in [reading for reading, _ in n_best(lexicon, state, 4)]


def test_forgotten_words_are_over_and_the_rest_goes_on(lexicon):
    state = BeamState()
    committed = []
    first = spoken("i see a", probability=0.8)[:-SILENT_FRAMES]
    for part in (first, spoken("tree", probability=0.8)):
        for tick in pairs_of_frames(part):
            committed += [word for word, _ in decode(lexicon, state, tick)]
        forget_committed_words(state)
        assert not state.committed_words
        assert (state.word_count <= 2).all()
    assert committed == ["i", "see", "a", "tree"]
    assert n_best(lexicon, state, 4)[0][0] == []


def test_best_hypothesis_goes_on_where_none_is_consistent(lexicon):
    committed, state = decode_all(lexicon, spoken("i see a tree")[:-SILENT_FRAMES])
    state.committed_words[0] = lexicon.words.index("bee")  # As if all others had been dropped.
    for tick in pairs_of_frames(spoken("see you")):
        committed += [word for word, _ in decode(lexicon, state, tick)]
    assert committed[-2:] == ["see", "you"]
    assert len(committed) <= 6


def test_unmarked_word_is_committed_when_its_segment_ends(lexicon):
    log_probs = spoken("i see a tree", probability=0.9999, is_end_marked=False)
    committed = commit_frames(lexicon, log_probs)
    assert [word for word, _ in committed] == ["i", "see", "a", "tree"]
    end = len(log_probs) - SILENT_FRAMES
    assert committed[-1][1] >= end + DEFAULT.segment_end_frames - 4


def test_segment_end_leaves_open_whether_the_sentence_is_over(lexicon):
    state = BeamState()
    ticks = iter(pairs_of_frames(spoken("i see")))
    while not (state.segment_ended and state.frame > DEFAULT.segment_end_frames):
        decode(lexicon, state, next(ticks))
    said = [lexicon.words.index(word) for word in ("i", "see")]
    both = [
        i for i, count in enumerate(state.word_count) if state.words[i, :count].tolist() == said
    ]
    assert len(both) == 2
    going_on, over = sorted(both, key=lambda i: -state.context[i])
    assert state.context[going_on] == said[0] * len(lexicon.words) + said[1]
    assert state.context[over] == 0
    assert not state.node.any()
    gain = trigram_log_prob(lexicon, state.context[[going_on]], np.array([0]))[0]
    assert state.score[over] - state.score[going_on] == pytest.approx(
        DEFAULT.lm_weight * gain, rel=1e-5
    )


def test_unfinished_word_is_none(lexicon):
    """Sounds begin a word and break off; all hypotheses are within it when the segment ends."""
    log_probs = np.full((60, 1 + len(PHONES)), -99.0, np.float32)
    log_probs[np.arange(60), [phones("tree")[0]] + [BLANK] * 59] = 0.0
    committed, state = decode_all(lexicon, log_probs)
    assert committed == []
    assert state.segment_ended
    assert not state.node.any()
    assert not has_uncommitted_words(state)


@pytest.mark.parametrize("seed", range(4))
def test_hypothesis_has_the_probability_of_all_its_paths(seed):
    """Nothing pruned: against PyTorch's CTC loss over every way to write two words with their
    ends, and the trigram.

    Words of at least two phones: three of them do not fit, whose last two words would be another
    pair's.
    """
    lexicon = unpack(pack(["see you", "you be", "see be", "be you", "he see"]))
    config = replace(DEFAULT, min_phone_log_prob=-np.inf, beam_width=np.inf, beam_size=10**6)
    frames = 8
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(frames, 1 + len(PHONES), generator=generator).log_softmax(-1)
    state = BeamState()
    for frame in log_probs.numpy():
        advance_frame(lexicon, state, frame, config)
    scores: dict[tuple[int, ...], list[float]] = {}
    phone_counts = {}
    for i in np.flatnonzero(state.node == 0):
        said = tuple(state.words[i, : state.word_count[i]])
        scores.setdefault(said, []).append(state.score[i])
        # The mark of a word's end is no phone.
        phone_counts[said] = sum(len(phones(lexicon.words[word])) - 1 for word in said)
        assert state.phone_count[i] == phone_counts[said]
    differences = []
    for pair in itertools.product(range(1, len(lexicon.words)), repeat=2):
        written = [phones(lexicon.words[word]) for word in pair]
        if sum(map(len, written)) > frames or pair not in scores:
            continue
        prior = trigram_log_prob(lexicon, np.array([0, pair[0]]), np.array(pair)).sum()
        score = np.logaddexp.reduce(ctc_scores(log_probs, written)) + float(prior)
        score += config.phone_bonus * phone_counts[pair]
        differences.append(score - np.logaddexp.reduce(scores[pair]))
    assert len(differences) > 3
    # All differ by the same: the best score is taken off in every frame.
    assert np.ptp(differences) < 1e-3


def ctc_scores(log_probs: torch.Tensor, written: list[list[int]]) -> list[float]:
    """The scores of all ways to write two words, with further ends where no word is."""
    found = []
    for more in itertools.product(range(len(log_probs)), repeat=3):
        gaps = [[WORD_END] * n for n in more]
        target = [*gaps[0], *written[0], *gaps[1], *written[1], *gaps[2]]
        repeats = sum(a == b for a, b in itertools.pairwise(target))
        if len(target) + repeats > len(log_probs):
            continue
        lengths = torch.tensor([len(log_probs)]), torch.tensor([len(target)])
        loss = torch.nn.functional.ctc_loss(
            log_probs[:, None], torch.tensor([target]), *lengths, reduction="sum"
        )
        found.append(-float(loss))
    return found


def test_long_stream_costs_no_more_than_a_short_one(lexicon):
    """Babble for 40 s: few hypotheses, finite scores, and no word waits for ever."""
    rng = np.random.default_rng(0)
    state = BeamState()
    count = 0
    for _ in range(500):
        noise = rng.normal(0, 2, (4, 1 + len(PHONES)))
        log_probs = noise - np.log(np.exp(noise).sum(1, keepdims=True))
        count += len(decode(lexicon, state, log_probs.astype(np.float32)))
        assert len(state.node) <= DEFAULT.beam_size
        assert np.isfinite(state.score).all()
        assert state.words.shape[1] == MAX_WORDS >= state.word_count.max()
        assert len(state.committed_words) < MAX_WORDS
    assert count > 10


def test_long_turn_is_truncated(lexicon):
    """Until all of it is forgotten: then the next turn begins."""
    committed, state = decode_all(lexicon, spoken("i see you " * 17))
    assert committed == ["i", "see", "you"] * 17
    assert state.truncated
    assert len(state.committed_words) == 51 - DEFAULT.truncated_words
    forget_committed_words(state)
    assert not state.truncated
    assert not state.committed_words
