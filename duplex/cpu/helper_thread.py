"""The second thread: it does pieces of work that another one shares (duplex.cpu.shared_work)."""

import contextlib
import threading
from collections.abc import Iterator

import numpy as np
from numba import carray, njit

from duplex.cpu.attention import attend_piece
from duplex.cpu.kernels import GROUP, LANES, OPTIONS, Int8Weights, multiply_blocks
from duplex.cpu.shared_work import (
    CLOSED,
    DONE,
    KIND,
    MATMUL,
    NEEDED,
    PIECES,
    TICKET,
    WORDS,
    WORK,
    claim_piece,
    fetch_add,
    load,
    pause,
    pointer,
    yield_core,
)

# Words that describe any work, at most.
MAX_WORK_WORDS = 13

# Looks for work in vain after which another process may have the core.
LOOKS_BEFORE_YIELD = 1000

_wake = threading.Event()
_lock = threading.Lock()
_thread: threading.Thread | None = None
_users = 0


@njit(**OPTIONS)
def worker_loop():
    """Do pieces of the work of other threads, as long as one of them wants help."""
    sums = np.empty((16, LANES), np.int32)
    scores = np.empty(0, np.float32)
    words = np.empty(MAX_WORK_WORDS, np.int64)
    looks = 0
    over = -1
    while load(NEEDED):
        ticket = load(TICKET)
        number = ticket >> 32
        # To look at more than the ticket would slow the other thread down.
        if ticket & CLOSED == CLOSED or number == over:
            pause()
            looks += 1
            if looks % LOOKS_BEFORE_YIELD == 0:
                yield_core()
            continue
        for i in range(words.size):
            words[i] = load(WORK + i)
        pieces = load(PIECES)
        kind = load(KIND)
        # The ticket was open before all that was read, so a piece, if any is left, is of this work.
        piece = claim_piece(number, pieces)
        over = number
        if piece < 0:
            continue
        if kind == MATMUL:
            _multiply_pieces(words, number, pieces, piece, sums)
            continue
        if scores.size < words[11]:
            scores = np.empty(words[11], np.float32)
        _attend_pieces(words, number, pieces, piece, scores)


@njit(**OPTIONS)
def _multiply_pieces(words, number, pieces, piece, sums):
    """Take pieces of a product, as kernels.int8_matmul_into describes it, from `piece` on."""
    count, groups, rows, width = words[7], words[8], words[9], words[10]
    w = Int8Weights(
        carray(pointer(words[0]), (count, groups, LANES * GROUP), np.uint8),
        carray(pointer(words[1]), (count * LANES,), np.float32),
        carray(pointer(words[2]), (count * LANES,), np.float32),
    )
    digits = carray(pointer(words[3]), (2 * (rows + 7) * GROUP * groups,), np.int8)
    unit = carray(pointer(words[4]), (rows,), np.float32)
    total = carray(pointer(words[5]), (2 * rows,), np.int32)
    y = carray(pointer(words[6]), (rows, width), np.float32)
    while piece >= 0:
        begin = piece * count // pieces
        end = (piece + 1) * count // pieces
        multiply_blocks(begin, end, w, digits, unit, total, sums, y)
        fetch_add(DONE, 1)
        piece = claim_piece(number, pieces)


@njit(**OPTIONS)
def _attend_pieces(words, number, pieces, piece, scores):
    """Take pieces of a call's attention, as attention.attend_cells describes it."""
    rows, heads, width = words[6], words[7], words[8]
    batch, kv_heads, cells, seen = words[9], words[10], words[11], words[12]
    qkv = carray(pointer(words[0]), (rows, heads + 2 * kv_heads, width), np.float32)
    keys = carray(pointer(words[1]), (batch, kv_heads, width, cells), np.uint16)
    values = carray(pointer(words[2]), (batch, kv_heads, cells, width), np.uint16)
    slots = carray(pointer(words[3]), (rows,), np.int64)
    hidden = carray(pointer(words[4]), (rows, seen), np.float32)
    y = carray(pointer(words[5]), (rows, heads, width), np.float32)
    while piece >= 0:
        attend_piece(piece, qkv, keys, values, slots, hidden, scores, y)
        fetch_add(DONE, 1)
        piece = claim_piece(number, pieces)


@contextlib.contextmanager
def running() -> Iterator[None]:
    """While it lasts, a second thread helps with every product and attention of enough work."""
    global _thread, _users
    with _lock:
        if _thread is None:
            _thread = threading.Thread(target=_run, name="products", daemon=True)
            _thread.start()
        _users += 1
        WORDS[NEEDED] = _users
    _wake.set()
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            WORDS[NEEDED] = _users


def _run() -> None:
    while True:
        _wake.wait()
        _wake.clear()
        worker_loop()
