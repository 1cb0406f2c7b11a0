"""The compiled beam search finds the hypotheses, words and confidences of the one in numpy."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from duplex.cpu.beam_search import CompiledBeamSearch
from duplex.model.asr.beam_search import DEFAULT, BeamState, decode, forget_committed_words
from duplex.model.asr.encoder import PHONES
from duplex.model.asr.lexicon import Lexicon, unpack
from duplex.training.lexicon import pack
from tests.model.asr.test_beam_search import SENTENCES, spoken


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return unpack(pack(SENTENCES, listed=["trees", "sea"]))


def streams(count: int) -> list[np.ndarray]:
    """Ticks [n, 4, 1 + phones] of noise over sentences, one after the other, with pauses."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(count):
        parts = [spoken(SENTENCES[i], 0.8) for i in rng.integers(len(SENTENCES), size=4)]
        frames = np.concatenate(parts)
        frames = frames + rng.normal(0, 1.0, frames.shape)
        frames -= np.log(np.exp(frames).sum(1, keepdims=True))
        ticks = len(frames) // 4
        found.append(frames[: 4 * ticks].reshape(ticks, 4, 1 + len(PHONES)).astype(np.float32))
    return found


@pytest.mark.parametrize("beam_size", [DEFAULT.beam_size, 12])
def test_the_same_hypotheses(lexicon, beam_size):
    """Turn after turn; small beams are full all the time."""
    config = replace(DEFAULT, beam_size=beam_size)
    search = CompiledBeamSearch(lexicon, config)
    said = 0
    for ticks in streams(6):
        slow = BeamState()
        fast = BeamState()
        for number, log_probs in enumerate(ticks):
            expected = decode(lexicon, slow, log_probs, config)
            found = search(fast, log_probs)
            assert [word for word, _ in found] == [word for word, _ in expected]
            np.testing.assert_allclose([c for _, c in found], [c for _, c in expected], atol=1e-9)
            for name in ("node", "label", "context", "path", "phone_count", "word_count"):
                np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name), name)
            for name in ("frame", "silent_frames", "segment_ended", "committed_words"):
                assert getattr(fast, name) == getattr(slow, name), name
            np.testing.assert_allclose(fast.score, slow.score, atol=1e-9)
            said += len(expected)
            if number % 40 == 39:
                forget_committed_words(slow)
                forget_committed_words(fast)
    assert said > 30


def test_streams_in_threads_do_not_touch_each_other(lexicon):
    search = CompiledBeamSearch(lexicon)

    def words(ticks: np.ndarray) -> list:
        state = BeamState()
        return [word for log_probs in ticks for word in search(state, log_probs)]

    sounds = streams(8)
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(words, sounds)] == [words(ticks) for ticks in sounds]


def test_many_streams_in_one_call_are_as_each_alone(lexicon):
    """Some of them are moved on by the other search in between, as in turns of very many words."""
    search = CompiledBeamSearch(lexicon)
    sounds = streams(5)
    ticks = min(map(len, sounds))
    together = [BeamState() for _ in sounds]
    alone = [BeamState() for _ in sounds]
    for tick in range(ticks):
        log_probs = np.stack([sound[tick] for sound in sounds])
        commits = search.read_all(together, log_probs)
        found = [commit() if commit else [] for commit in commits]
        assert found == [search(*one) for one in zip(alone, log_probs, strict=True)]
        if tick % 15 == 14:
            for state in (together[tick % 5], alone[tick % 5]):
                decode(lexicon, state, log_probs[0])
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(one.score, other.score)
            np.testing.assert_array_equal(one.path, other.path)


def test_a_turn_of_very_many_words(lexicon):
    """What was said first is dropped, as there."""
    search = CompiledBeamSearch(lexicon)
    frames = spoken("i see you " * 40)
    slow = BeamState()
    fast = BeamState()
    for log_probs in frames[: 4 * (len(frames) // 4)].reshape(-1, 4, frames.shape[1]):
        expected = decode(lexicon, slow, log_probs)
        found = search(fast, log_probs.astype(np.float32))
        assert [word for word, _ in found] == [word for word, _ in expected]
        assert fast.committed_words == slow.committed_words
        assert fast.truncated == slow.truncated
    assert fast.truncated
