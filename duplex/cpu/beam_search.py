"""duplex.model.asr.beam_search in compiled code that lets other threads run: one tick of a stream.

The same hypotheses, words and confidences as there, where each step is explained; sums of
probabilities may differ in their last bit. What is rare stays there: the end of a segment, streams
without a hypothesis that fits, turns of very many words.
"""

import numpy as np
from numba import njit

from duplex.cpu.beam_moves import OPTIONS, Hypotheses, Numbers, Tables, advance
from duplex.model.asr import beam_search
from duplex.model.asr.beam_search import DEFAULT, MAX_WORDS, BeamSearchConfig, BeamState
from duplex.model.asr.encoder import BLANK, WORD_END
from duplex.model.asr.lexicon import Lexicon

HALF = np.log(0.5)


class CompiledBeamSearch:
    """Called as beam_search.decode is, without its lexicon; from any thread, a stream in one."""

    def __init__(self, lexicon: Lexicon, config: BeamSearchConfig = DEFAULT):
        self.lexicon = lexicon
        self.config = config
        self.tables = Tables(*(getattr(lexicon, name) for name in Tables._fields))
        self.numbers = Numbers(
            config.beam_size,
            config.beam_width,
            config.min_phone_log_prob,
            np.float32(config.lm_weight),
            config.phone_bonus,
            config.confidence_phone_discount,
            config.commit_posterior,
            config.commit_after_frames,
            config.commit_all_frames,
        )
        self(BeamState(), np.zeros((1, lexicon.child.shape[1]), np.float32))  # compiles

    def __call__(self, state: BeamState, log_probs: np.ndarray) -> list[tuple[str, float]]:
        """Read a tick's frames [n, 1 + phones]; the words that are committed, with confidences."""
        before = Hypotheses(*(getattr(state, name) for name in Hypotheses._fields))
        frames = np.ascontiguousarray(log_probs, np.float32)
        clock = np.array([state.frame, state.silent_frames])
        after = read_frames(self.tables, before, frames, clock, self.numbers)
        for name, array in zip(Hypotheses._fields, after, strict=True):
            setattr(state, name, array)
        state.frame, state.silent_frames = clock.tolist()
        is_segment_over = state.silent_frames >= self.config.segment_end_frames
        room = MAX_WORDS - self.config.truncated_words // 2 - len(state.committed_words)
        if is_segment_over and not state.segment_ended or room < len(frames):
            return beam_search.commit_agreed_words(self.lexicon, state, self.config)
        state.segment_ended = is_segment_over
        committed = np.array(state.committed_words, np.int32)
        words, ended, confidences = commit_words(after, committed, clock, self.numbers, room)
        if words.size and words[0] < 0:  # No hypothesis begins with the committed words.
            return beam_search.commit_agreed_words(self.lexicon, state, self.config)
        if words.size:
            state.committed_words = [*state.committed_words, *words.tolist()]
            state.committed_frame = int(ended[-1])
        found = zip(words, confidences.tolist(), strict=True)
        return [(self.lexicon.words[word], confidence) for word, confidence in found]


@njit(**OPTIONS)
def read_frames(tables, now, frames, clock, numbers):
    """The hypotheses after frames [n, 1 + phones]; clock: frame and silent frames, moved on."""
    for log_probs in frames:
        clock[0] += 1
        is_silent = max(log_probs[BLANK], log_probs[WORD_END]) > HALF
        clock[1] = clock[1] + 1 if is_silent else 0
        now = advance(tables, now, log_probs, clock[0], numbers)
    return now


@njit(**OPTIONS)
def commit_words(now, committed, clock, numbers, room):
    """Words that are final now, their frames and confidences: beam_search.commit_agreed_words.

    One word -1 where no hypothesis begins with the committed ones; at most `room` words.
    """
    votes = np.empty(now.node.size, np.bool_)
    for i in range(votes.size):
        votes[i] = now.word_count[i] >= committed.size
        for place in range(committed.size if votes[i] else 0):
            votes[i] &= now.words[i, place] == committed[place]
    words = np.empty(room, np.int32)
    frames = np.empty(room, np.int64)
    confidences = np.empty(room, np.float64)
    found = 0
    n = committed.size
    while found < room:
        best = -1
        highest = -np.inf
        for i in range(votes.size):
            if votes[i]:
                if best < 0 or now.score[i] > now.score[best]:
                    best = i
                highest = max(highest, now.score[i] - numbers.discount * now.phone_count[i])
        if best < 0:
            words[0] = -1
            return words[:1], frames[:1], confidences[:1]
        if now.word_count[best] == n:
            break
        word = now.words[best, n]
        agreed = 0.0
        everyone = 0.0
        for i in range(votes.size):
            if votes[i]:
                chance = np.exp(now.score[i] - numbers.discount * now.phone_count[i] - highest)
                everyone += chance
                if now.word_count[i] > n and now.words[i, n] == word:
                    agreed += chance
        frame = now.word_frames[best, n]
        is_sure = agreed / everyone >= numbers.commit_posterior
        is_old = clock[0] - frame >= numbers.commit_after_frames
        if not (is_sure or is_old or clock[1] >= numbers.commit_all_frames):
            break
        words[found] = word
        frames[found] = frame
        confidences[found] = agreed / everyone
        found += 1
        for i in range(votes.size):
            votes[i] = votes[i] and now.word_count[i] > n and now.words[i, n] == word
        n += 1
    return words[:found], frames[:found], confidences[:found]
