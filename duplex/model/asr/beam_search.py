"""Words from phones: a beam search over a pronouncing dictionary and a trigram, one stream each.

    phones [4, 1 + phones] of a tick -> hypotheses: a node of the trie, the last two words, a score
                                     -> words, as soon as the hypotheses agree on them

It is token passing (Young et al., 1989) over CTC outputs: paths that lead to the same node after
the same words (the last eight) are one hypothesis, whose probabilities add up. The trigram's score
enters at a word's end; until then the best word below a node stands for it (language model
look-ahead, Ortmanns et al., 1996).

Words are committed while the user speaks. Hypotheses that disagree live on: at the end of a turn
`n_best` lists the likeliest readings of all of it, among which a larger language model chooses
(N-best rescoring).

Scores are natural logarithms (nats). A frame is 20 ms. H hypotheses, W words that each can hold.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from duplex.model.asr.encoder import BLANK, WORD_END
from duplex.model.asr.lexicon import SENTENCE, Lexicon, trigram_log_prob


@dataclass(frozen=True)
class BeamSearchConfig:
    """What is kept, what is favoured, and when a word is committed."""

    # Hypotheses kept after a frame.
    beam_size: int = 192
    # Nats below the best hypothesis from which on one is dropped.
    beam_width: float = 25.0
    # Log-probability below which a phone is not tried.
    min_phone_log_prob: float = -10.0
    # Weight of the trigram's score beside that of the phones.
    lm_weight: float = 1.0
    # Nats for each phone. They make up for the CTC's preference for blanks and the trigram's for
    # few words.
    phone_bonus: float = 2.5
    # Nats of that bonus left out of a word's confidence. Otherwise faint phones in noise would
    # yield confident words.
    confidence_phone_discount: float = 1.5
    # Share of the hypotheses' probability from which on a word is committed.
    commit_posterior: float = 0.9
    # Frames after a word's end at which it is committed in any case.
    commit_after_frames: int = 20
    # Frames without a phone after which all words of the best hypothesis are committed.
    commit_all_frames: int = 8
    # Frames without a phone after which a segment ends: no word goes on, a sentence may have ended.
    segment_end_frames: int = 25
    # Score of a word whose end the CTC has not marked when its segment ends.
    unmarked_end_score: float = -6.0
    # Words dropped from the beginning of a turn when it is truncated.
    truncated_words: int = 32


DEFAULT = BeamSearchConfig()

# Words that a hypothesis can hold; a turn that needs more is truncated.
MAX_WORDS = 64


def _zeros(*shape: int, dtype: type = np.int64):
    """A field that begins as one hypothesis of zeros."""
    return field(default_factory=lambda: np.zeros((1, *shape), dtype))


@dataclass
class BeamState:
    """What one stream may have said in this turn."""

    # [H] The node of the trie that a hypothesis has reached.
    node: np.ndarray = _zeros()
    # [H] The phone that goes on in this frame; BLANK: none does.
    label: np.ndarray = _zeros()
    # [H] The last two words: the first times the number of words, plus the second.
    context: np.ndarray = _zeros()
    # [H] Log-probability, less that of the best hypothesis one frame before.
    score: np.ndarray = _zeros(dtype=np.float64)
    # [H] How many phones were said.
    phone_count: np.ndarray = _zeros()
    # [H] What was said, as one number; see merge_and_prune.
    path: np.ndarray = _zeros()
    # [H, W] The words that were said.
    words: np.ndarray = _zeros(MAX_WORDS, dtype=np.int32)
    # [H, W] The frames in which they ended.
    word_frames: np.ndarray = _zeros(MAX_WORDS, dtype=np.int32)
    # [H] How many words were said.
    word_count: np.ndarray = _zeros()
    # The words that are final, as numbers of the lexicon.
    committed_words: list[int] = field(default_factory=list)
    # The frame in which the last of them ended.
    committed_frame: int = 0
    # Whether the turn was so long that its first words were dropped.
    truncated: bool = False
    # Frames since the stream began.
    frame: int = 0
    # Frames since a phone was likely.
    silent_frames: int = 0
    # Whether the last segment has ended and nothing was said since.
    segment_ended: bool = True
    # Where a compiled search keeps all this, see duplex.cpu.beam_search.
    memory: object = None


class Moves(NamedTuple):
    """Hypotheses that go on in one way within a frame; all arrays are [n]."""

    source: np.ndarray  # Which hypothesis each comes from.
    node: np.ndarray
    label: np.ndarray
    context: np.ndarray
    score: np.ndarray
    word: np.ndarray  # The word that ends with it; -1: none does.


class WordEnds(NamedTuple):
    """Words that may end where the hypotheses are; all arrays are [n]."""

    source: np.ndarray
    word: np.ndarray
    context: np.ndarray
    score: np.ndarray


def decode(
    lexicon: Lexicon, state: BeamState, log_probs: np.ndarray, config: BeamSearchConfig = DEFAULT
) -> list[tuple[str, float]]:
    """Read a tick's frames.

    Args:
        log_probs: [n, 1 + phones], the encoder's CTC log-probabilities.

    Returns the words that are committed now, each with its confidence: the share of the
    hypotheses' probability that agrees on it. The state is changed in place.
    """
    for frame in log_probs:
        advance_frame(lexicon, state, frame, config)
    return commit_agreed_words(lexicon, state, config)


def advance_frame(
    lexicon: Lexicon, state: BeamState, log_probs: np.ndarray, config: BeamSearchConfig = DEFAULT
) -> None:
    """One frame, log_probs [1 + phones]: each hypothesis stays, or goes on by a phone or a word."""
    state.frame += 1
    is_silent = max(log_probs[BLANK], log_probs[WORD_END]) > np.log(0.5)
    state.silent_frames = state.silent_frames + 1 if is_silent else 0
    phones = np.flatnonzero(log_probs > config.min_phone_log_prob)
    phones = phones[(phones != BLANK) & (phones != WORD_END)]
    end_is_likely = log_probs[WORD_END] > config.min_phone_log_prob
    if not len(phones) and not end_is_likely:
        # Nothing but a blank is likely, so all hypotheses stay where they are.
        state.score = state.score + log_probs[BLANK]
        state.label = np.zeros_like(state.label)
        return
    moves = [
        _stay(state, np.arange(len(state.node)), BLANK, log_probs[BLANK]),
        _go_on_sounding(state, log_probs),
        _next_phone(lexicon, state, phones, log_probs, config),
    ]
    if end_is_likely:
        # A mark may also stand between words, where nothing ends.
        between = np.flatnonzero((state.node == 0) & (state.label != WORD_END))
        moves.append(_stay(state, between, WORD_END, log_probs[WORD_END]))
        ends = find_word_ends(lexicon, state, config)
        moves.append(_end_words(ends, WORD_END, ends.score + log_probs[WORD_END]))
    merge_and_prune(state, len(lexicon.child), moves, config)


def _stay(state: BeamState, source: np.ndarray, label: int, gain: float) -> Moves:
    """These hypotheses stay at their node with this label, for a gain in score."""
    return Moves(
        source,
        state.node[source],
        np.full_like(source, label),
        state.context[source],
        state.score[source] + gain,
        np.full_like(source, -1),
    )


def _go_on_sounding(state: BeamState, log_probs: np.ndarray) -> Moves:
    """Phones last longer than a frame: the same label again."""
    source = np.flatnonzero(state.label)
    label = state.label[source]
    stay = _stay(state, source, BLANK, log_probs[label])
    return stay._replace(label=label)


def _next_phone(
    lexicon: Lexicon,
    state: BeamState,
    phones: np.ndarray,
    log_probs: np.ndarray,
    config: BeamSearchConfig,
) -> Moves:
    """Every hypothesis goes on by each of the likely phones that lead to a node."""
    child = lexicon.child[state.node[:, None], phones]
    source, which = np.nonzero((child > 0) & (state.label[:, None] != phones))
    node = child[source, which].astype(np.int64)
    phone = phones[which]
    lookahead = lexicon.lookahead_score[node] - lexicon.lookahead_score[state.node[source]]
    score = (
        state.score[source] + log_probs[phone] + config.lm_weight * lookahead + config.phone_bonus
    )
    return Moves(source, node, phone, state.context[source], score, np.full_like(source, -1))


def _end_words(ends: WordEnds, label: int, score: np.ndarray) -> Moves:
    """The words end, and their hypotheses are at the root of the trie again."""
    root = np.zeros_like(ends.word)
    return Moves(ends.source, root, root + label, ends.context, score, ends.word)


def find_word_ends(lexicon: Lexicon, state: BeamState, config: BeamSearchConfig) -> WordEnds:
    """All words that may end where the hypotheses are, the trigram's score in place of the
    look-ahead."""
    count = lexicon.ending_count[state.node]
    source = np.repeat(np.arange(len(count)), count)
    place = np.arange(len(source)) - np.repeat(np.cumsum(count) - count, count)
    node = state.node[source]
    word = lexicon.ending[lexicon.first_ending[node] + place]
    gain = trigram_log_prob(lexicon, state.context[source], word) - lexicon.lookahead_score[node]
    size = len(lexicon.words)
    context = state.context[source] % size * size + word
    return WordEnds(source, word, context, state.score[source] + config.lm_weight * gain)


def merge_and_prune(
    state: BeamState, nodes: int, moves: list[Moves], config: BeamSearchConfig
) -> None:
    """Merge what has come to the same place after the same words, and keep the best.

    Args:
        nodes: how many nodes the trie has.
    """
    source, node, label, context, score, word = map(np.concatenate, zip(*moves, strict=True))
    # What was said is kept as one number: that of the words before times a factor, plus the last
    # word. In 64 bits a word counts until eight others have followed; hypotheses that differ only
    # in still older words become one.
    factor = 1_000_003 << 8
    path = np.where(word < 0, state.path[source], state.path[source] * factor + word)
    # 1. Drop what is far below the best, and sort: of those that merge the first one goes on.
    best = score.max()
    near = np.flatnonzero(score > best - config.beam_width)
    near = near[np.argsort(-score[near], kind="stable")]
    # 2. Merge: the probabilities of all that is at one place add up.
    place = (path[near] * 2 + (label[near] != BLANK)) * nodes + node[near]
    _, first, same = np.unique(place, return_index=True, return_inverse=True)
    total = np.bincount(same, np.exp(score[near] - best))
    # 3. Keep the likeliest of the merged ones.
    chosen = np.argsort(-total, kind="stable")[: config.beam_size]
    kept = near[first[chosen]]
    has_moved = (node[kept] > 0) & (node[kept] != state.node[source[kept]])
    state.phone_count = state.phone_count[source[kept]] + has_moved
    state.node = node[kept]
    state.label = label[kept]
    state.context = context[kept]
    state.path = path[kept]
    state.score = np.log(total[chosen])  # The best stays near 0 in a stream without end.
    append_words(state, source[kept], word[kept])


def append_words(state: BeamState, source: np.ndarray, word: np.ndarray) -> None:
    """Hypotheses go on from what those in `source` [H] have said, by `word` [H] if it is one.

    Args:
        word: -1 for none; SENTENCE, the end of a sentence, is not written either.
    """
    state.words = state.words[source]
    state.word_frames = state.word_frames[source]
    state.word_count = state.word_count[source]
    new = np.flatnonzero((word > SENTENCE) & (state.word_count < state.words.shape[1]))
    state.words[new, state.word_count[new]] = word[new]
    state.word_frames[new, state.word_count[new]] = state.frame
    state.word_count[new] += 1


def commit_agreed_words(
    lexicon: Lexicon, state: BeamState, config: BeamSearchConfig = DEFAULT
) -> list[tuple[str, float]]:
    """Commit the words that the hypotheses agree on, or that have waited long enough.

    Hypotheses that contradict a committed word have no vote. Returns the words with their
    confidence.
    """
    if state.silent_frames < config.segment_end_frames:
        state.segment_ended = False
    elif not state.segment_ended:
        state.segment_ended = True
        end_segment(lexicon, state, config)
    found = []
    while True:
        voters = consistent_hypotheses(state)
        n = len(state.committed_words)
        best = voters[state.score[voters].argmax()]
        if state.word_count[best] == n:
            break
        word = state.words[best, n]
        frame = int(state.word_frames[best, n])
        score = state.score[voters] - config.confidence_phone_discount * state.phone_count[voters]
        chance = np.exp(score - score.max())
        agrees = (state.word_count[voters] > n) & (state.words[voters, n] == word)
        confidence = float(chance[agrees].sum() / chance.sum())
        must_wait = (
            confidence < config.commit_posterior
            and state.frame - frame < config.commit_after_frames
            and state.silent_frames < config.commit_all_frames
        )
        if must_wait:
            break
        state.committed_words = [*state.committed_words, int(word)]
        state.committed_frame = frame
        found.append((lexicon.words[word], confidence))
        if len(state.committed_words) > MAX_WORDS - config.truncated_words // 2:
            forget_committed_words(state, config.truncated_words)
            state.truncated = True
    return found


def consistent_hypotheses(state: BeamState) -> np.ndarray:
    """The hypotheses [n] that begin with the committed words.

    Where none is left, the words of the best one up to then are taken for the committed ones.
    """
    while True:
        n = len(state.committed_words)
        begins_alike = (state.words[:, :n] == state.committed_words).all(1)
        consistent = np.flatnonzero((state.word_count >= n) & begins_alike)
        if len(consistent):
            return consistent
        best = int(state.score.argmax())
        frames = state.word_frames[best, : state.word_count[best]]
        old = int((frames <= state.committed_frame).sum())
        state.committed_words = state.words[best, :old].tolist()


def forget_committed_words(state: BeamState, count: int | None = None) -> None:
    """Drop the first `count` committed words, or all, for a new turn.

    Hypotheses that contradict a committed word end here, and the others forget those words.
    """
    state.truncated = False
    if not state.committed_words:
        return
    _select(state, consistent_hypotheses(state))
    committed = len(state.committed_words)
    count = committed if count is None else min(count, committed)
    width = state.words.shape[1]
    for said in (state.words, state.word_frames):
        said[:, : width - count] = said[:, count:].copy()
    state.word_count = state.word_count - count
    state.committed_words = state.committed_words[count:]


def n_best(
    lexicon: Lexicon, state: BeamState, count: int, config: BeamSearchConfig = DEFAULT
) -> list[tuple[list[str], float]]:
    """The `count` likeliest readings of the whole turn if it ends here, with scores, best first."""
    ends = find_word_ends(lexicon, state, config)
    between = np.flatnonzero(state.node == 0)
    source = np.concatenate([between, ends.source])
    word = np.concatenate([np.full(len(between), -1), ends.word])
    context = np.concatenate([state.context[between], ends.context])
    score = np.concatenate([state.score[between], ends.score + config.unmarked_end_score])
    sentence_end = np.full(len(source), SENTENCE)
    score = score + config.lm_weight * trigram_log_prob(lexicon, context, sentence_end)
    found: dict[tuple[int, ...], float] = {}
    said_before = [
        tuple(words[:number])
        for words, number in zip(state.words.tolist(), state.word_count.tolist(), strict=True)
    ]
    for at, last, one in zip(source.tolist(), word.tolist(), score.tolist(), strict=True):
        said = said_before[at] if last < 0 else (*said_before[at], last)
        found[said] = float(np.logaddexp(found[said], one)) if said in found else one
    best = sorted(found.items(), key=lambda reading: -reading[1])[:count]
    return [([lexicon.words[word] for word in said], score) for said, score in best]


def copy(state: BeamState) -> BeamState:
    """What `n_best` reads, as it is now."""
    names = ("node", "context", "score", "words", "word_count")
    return BeamState(**{name: getattr(state, name).copy() for name in names})


def has_uncommitted_words(state: BeamState) -> bool:
    """Whether, as far as one can tell, something was said that is not committed yet."""
    consistent = consistent_hypotheses(state)
    best = consistent[state.score[consistent].argmax()]
    return bool(state.word_count[best] > len(state.committed_words) or state.node[best] != 0)


def end_segment(lexicon: Lexicon, state: BeamState, config: BeamSearchConfig = DEFAULT) -> None:
    """Nobody has spoken for a while: no word goes on, and a sentence may have ended."""
    # 1. Words end although the CTC has not marked it. Hypotheses within a word have no other way.
    between = np.flatnonzero(state.node == 0)
    ends = find_word_ends(lexicon, state, config)
    if not len(between) + len(ends.source):
        # All are within a word that nobody has finished, so it was none.
        between = np.arange(len(state.node))
    waits = _stay(state, between, BLANK, 0.0)._replace(node=np.zeros_like(between))
    over = _end_words(ends, BLANK, ends.score + config.unmarked_end_score)
    merge_and_prune(state, 1, [waits, over], config)
    # 2. Each hypothesis goes on in two: one whose sentence has ended, and one whose has not.
    everyone = np.arange(len(state.node))
    waits = _stay(state, everyone, BLANK, 0.0)
    end = np.full(len(everyone), SENTENCE)
    gain = config.lm_weight * trigram_log_prob(lexicon, state.context, end)
    sentence_over = waits._replace(context=end, score=state.score + gain, word=end)
    merge_and_prune(state, 1, [waits, sentence_over], config)


def _select(state: BeamState, which: np.ndarray) -> None:
    """Keep these hypotheses alone."""
    names = ("node", "label", "context", "score", "phone_count", "path")
    for name in (*names, "words", "word_frames", "word_count"):
        setattr(state, name, getattr(state, name)[which])
