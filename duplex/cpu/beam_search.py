"""duplex.model.asr.beam_search compiled: a tick of many streams, while other threads may run.

The same hypotheses, words and confidences as there, where each step is explained; sums of
probabilities may differ in their last bit. What is rare stays there: streams without a hypothesis
that fits, turns of very many words.

A stream's hypotheses lie in memory of its own that stays, and the arrays of its BeamState are views
of it; where somebody has put others in their place, these are copied into it first.
"""

import threading
from collections.abc import Callable
from functools import partial

import numpy as np
from numba import carray, njit

from duplex.cpu.beam_moves import (
    HYPOTHESIS,
    Numbers,
    Room,
    Search,
    Space,
    best_first,
    best_groups,
    find_ends,
    find_moves,
    likely_phones,
    merge,
    new_space,
    put,
    take,
    wait,
)
from duplex.cpu.beam_tables import INNER, OPTIONS, find_context, pack_tables, trigram
from duplex.cpu.beam_words import Found, find_final
from duplex.cpu.shared_work import pointer
from duplex.model.asr import beam_search
from duplex.model.asr.beam_search import DEFAULT, MAX_WORDS, BeamSearchConfig, BeamState
from duplex.model.asr.encoder import BLANK, WORD_END
from duplex.model.asr.lexicon import SENTENCE, Lexicon

HALF = np.log(0.5)
HYPOTHESIS_BYTES = HYPOTHESIS.itemsize
WORDS_BYTES = 4 * MAX_WORDS  # of a hypothesis

# Columns of the rows in which streams are handed over: where its memory is, which half is in use,
# hypotheses, committed words, whether the segment has ended, frames, silent frames, and what was
# found: how many words are final now, or -1 where no hypothesis begins with the committed ones.
MEMORY = 0
SIDE = 1
HYPOTHESES = 2
COMMITTED = 3
ENDED = 4
FRAME = 5
SILENT = 6
FINAL = 7

Words = list[tuple[str, float]]  # that are committed, each with its confidence


class StreamMemory:
    """A stream's hypotheses, in two halves, and the words that it has committed."""

    def __init__(self, size: int):
        said = (np.int32, (2, size, MAX_WORDS))
        kept = np.zeros(
            1,
            [
                ("hypotheses", HYPOTHESIS, (2, size)),
                ("words", *said),
                ("word_frames", *said),
                ("committed", np.int32, MAX_WORDS),
            ],
        )
        self.address = kept.ctypes.data
        self.committed = kept["committed"][0]
        # Of each half the arrays of a BeamState.
        self.halves = [
            {name: kept["hypotheses"][0, side][name] for name in HYPOTHESIS.names}
            | {name: kept[name][0, side] for name in ("words", "word_frames")}
            for side in (0, 1)
        ]
        self.side = self.count = 0
        # Of the state what was seen last; others stand there where somebody has changed it.
        self.node = self.score = self.committed_words = None

    def row(self, state: BeamState) -> tuple[int, ...]:
        """The row of the stream, all of which is in this memory then."""
        if state.node is not self.node or state.score is not self.score:
            self.side, self.count = 0, len(state.node)
            for name, array in self.halves[0].items():
                array[: self.count] = getattr(state, name)
            self.show(state)
        committed = state.committed_words
        if committed is not self.committed_words:
            self.committed[: len(committed)] = committed
            self.committed_words = committed
        place = self.address, self.side, self.count, len(committed)
        return (*place, state.segment_ended, state.frame, state.silent_frames, 0)

    def show(self, state: BeamState) -> None:
        """Have the state's arrays be views of this memory."""
        for name, array in self.halves[self.side].items():
            setattr(state, name, array[: self.count])
        self.node = state.node
        self.score = state.score


class CompiledBeamSearch:
    """Many streams in one call; from any thread, a stream in one."""

    def __init__(self, lexicon: Lexicon, config: BeamSearchConfig = DEFAULT):
        self.lexicon = lexicon
        self.config = config
        self.tables = pack_tables(lexicon)
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
            config.segment_end_frames,
            config.unmarked_end_score,
        )
        self.thread = threading.local()
        # Beyond so many committed words a turn is truncated.
        self.most_words = MAX_WORDS - config.truncated_words // 2
        self(BeamState(), np.zeros((1, lexicon.child.shape[1]), np.float32))  # compiles

    def __call__(self, state: BeamState, log_probs: np.ndarray) -> Words:
        """One stream, frames [n, 1 + phones]: see beam_search.decode."""
        commit = self.read_all([state], log_probs[None])[0]
        return commit() if commit else []

    def read_all(
        self, states: list[BeamState], log_probs: np.ndarray
    ) -> list[Callable[[], Words] | None]:
        """Read a tick's frames [n, frames, 1 + phones] of n streams.

        Returns for each stream what commits its words and tells them, see beam_search.decode; None
        where there are none.
        """
        frames = np.ascontiguousarray(log_probs, np.float32)
        rows = [number for state in states for number in self.memory(state).row(state)]
        rows = np.array(rows, np.int64).reshape(len(states), FINAL + 1)
        found = Found(
            np.empty((len(states), MAX_WORDS), np.int32),
            np.empty((len(states), MAX_WORDS), np.int32),
            np.empty((len(states), MAX_WORDS)),
            np.empty(self.config.beam_size, np.bool_),
        )
        read_streams(Search(self.tables, self.space(), self.numbers), rows, frames, found)
        commits: list[Callable[[], Words] | None] = []
        for place, (state, row) in enumerate(zip(states, rows.tolist(), strict=True)):
            _, side, count, _, ended, state.frame, state.silent_frames, final = row
            state.segment_ended = ended > 0
            memory = state.memory
            if side != memory.side or count != memory.count:
                memory.side, memory.count = side, count
                memory.show(state)
            commits.append(partial(self.commit, state, found, place, final) if final else None)
        return commits

    def space(self) -> Space:
        """This thread's space."""
        if not hasattr(self.thread, "space"):
            phones = self.lexicon.child.shape[1]
            most = self.config.beam_size * (3 + phones + int(self.lexicon.ending_count.max()))
            self.thread.space = new_space(most, phones)
        return self.thread.space

    def memory(self, state: BeamState) -> StreamMemory:
        """Where the stream's hypotheses lie."""
        if state.memory is None:
            state.memory = StreamMemory(self.config.beam_size)
        return state.memory

    def commit(self, state: BeamState, found: Found, place: int, final: int) -> Words:
        """Commit what was found of a stream; returns it."""
        if final < 0 or len(state.committed_words) + final > self.most_words:
            return beam_search.commit_agreed_words(self.lexicon, state, self.config)
        words = found.words[place, :final].tolist()
        confidences = found.confidences[place, :final].tolist()
        state.committed_words = [*state.committed_words, *words]
        state.committed_frame = int(found.frames[place, final - 1])
        return [(self.lexicon.words[w], c) for w, c in zip(words, confidences, strict=True)]


@njit(**OPTIONS)
def read_streams(search, rows, frames, found):
    """Read frames [n, frames, 1 + phones] of n streams; their rows are changed."""
    for n in range(len(rows)):
        room, committed = room_at(rows[n, MEMORY], search.numbers.beam_size)
        committed = committed[: rows[n, COMMITTED]]
        own = Found(found.words[n], found.frames[n], found.confidences[n], found.votes)
        read_stream(search, room, committed, rows[n], frames[n], own)


@njit(**OPTIONS)
def room_at(address, size):
    """The room and the committed words in a stream's memory, see StreamMemory."""
    words_at = address + 2 * size * HYPOTHESIS_BYTES
    frames_at = words_at + 2 * size * WORDS_BYTES
    committed_at = frames_at + 2 * size * WORDS_BYTES
    room = Room(
        carray(pointer(address), (2, size), HYPOTHESIS),
        carray(pointer(words_at), (2, size, MAX_WORDS), np.int32),
        carray(pointer(frames_at), (2, size, MAX_WORDS), np.int32),
    )
    return room, carray(pointer(committed_at), (MAX_WORDS,), np.int32)


@njit(**INNER)
def read_stream(search, room, committed, row, frames, found):
    """Read frames [frames, 1 + phones] of a stream."""
    numbers = search.numbers
    for log_probs in frames:
        row[FRAME] += 1
        is_silent = max(log_probs[BLANK], log_probs[WORD_END]) > HALF
        row[SILENT] = row[SILENT] + 1 if is_silent else 0
        advance(search, room, row, log_probs)
    is_segment_over = row[SILENT] >= numbers.segment_end_frames
    if is_segment_over and row[ENDED] == 0:
        end_segment(search, room, row)
    row[ENDED] = is_segment_over
    now = room.hypotheses[row[SIDE], : row[HYPOTHESES]]
    said = room.words[row[SIDE]], room.word_frames[row[SIDE]]
    row[FINAL] = find_final(now, said, committed, row[FRAME:FINAL], numbers, found)


@njit(**INNER)
def advance(search, room, row, log_probs):
    """One frame: see beam_search.advance_frame."""
    tables, space, numbers = search
    now = room.hypotheses[row[SIDE], : row[HYPOTHESES]]
    count = likely_phones(log_probs, space.phones, numbers.min_phone_log_prob)
    end_is_likely = log_probs[WORD_END] > numbers.min_phone_log_prob
    if count == 0 and not end_is_likely:
        wait(now, log_probs[BLANK])
        return
    size = find_moves(search, now, log_probs, count, end_is_likely)
    go_on(room, row, space.moves[:size], tables.nodes.size, space, numbers)


@njit(**INNER)
def go_on(room, row, moves, nodes, space, numbers):
    """The likeliest moves are the hypotheses from now on; nodes: how many their trie has."""
    now = room.hypotheses[row[SIDE], : row[HYPOTHESES]]
    groups = merge(now, moves, nodes, space, numbers)
    count = best_groups(groups, space, numbers.beam_size)
    take(room, row[SIDE], moves, space, count, row[FRAME])
    row[SIDE] = 1 - row[SIDE]
    row[HYPOTHESES] = count


@njit(**INNER)
def end_segment(search, room, row):
    """Nobody has spoken for a while: see beam_search.end_segment."""
    tables, space, numbers = search
    now = room.hypotheses[row[SIDE], : row[HYPOTHESES]]
    moves = space.moves
    size = 0
    for i in range(now.size):
        if now[i].node == 0:
            size = put(moves, size, (i, 0, BLANK, now[i].context, now[i].score, -1))
    size = find_ends(search, now, (BLANK, numbers.unmarked_end_score), size, -np.inf)
    for i in range(now.size if size == 0 else 0):
        size = put(moves, size, (i, 0, BLANK, now[i].context, now[i].score, -1))
    best_first(moves[:size])
    go_on(room, row, moves[:size], 1, space, numbers)

    now = room.hypotheses[row[SIDE], : row[HYPOTHESES]]
    size = 0
    for i in range(now.size):
        size = put(moves, size, (i, 0, BLANK, now[i].context, now[i].score, -1))
    for i in range(now.size):
        context = find_context(tables, space.pairs, now[i].context)
        gain = numbers.lm_weight * trigram(tables, space.pairs, context, SENTENCE)
        size = put(moves, size, (i, 0, BLANK, SENTENCE, now[i].score + gain, SENTENCE))
    best_first(moves[:size])
    go_on(room, row, moves[:size], 1, space, numbers)
