"""The second thread: it does pieces of work that another one shares (duplex.cpu.shared_work)."""

import contextlib
import threading
from collections.abc import Iterator

import numpy as np
from numba import carray, njit

from duplex.cpu.attention import Cells, attend_piece
from duplex.cpu.dot_products import GROUP, LANES
from duplex.cpu.kernels import OPTIONS
from duplex.cpu.products import MOST_ROWS, Int8Weights, Workspace, multiply_blocks
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


@njit(**OPTIONS)
def worker_loop():
    """Do pieces of the work of other threads, as long as one of them wants help."""
    sums = np.empty((2 * MOST_ROWS, LANES), np.int32)
    scores = np.empty(0, np.float32)
    words = np.empty(13, np.int64)  # As many as describe any work.
    looks = 0
    over = -1
    while load(NEEDED):
        ticket = load(TICKET)
        number = ticket >> 32
        # To look at more than the ticket would slow the other thread down.
        if ticket & CLOSED == CLOSED or number == over:
            pause()
            looks += 1
            if looks % 1000 == 0:
                yield_core()  # Another process may have the core.
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
    """Take pieces of a product, as products.int8_matmul_into describes it, from `piece` on."""
    count, groups, rows, width = words[7], words[8], words[9], words[10]
    w = Int8Weights(
        carray(pointer(words[0]), (count, groups, LANES * GROUP), np.uint8),
        carray(pointer(words[1]), (count * LANES,), np.float32),
        carray(pointer(words[2]), (count * LANES,), np.float32),
    )
    space = Workspace(
        carray(pointer(words[3]), (2 * (rows + 7) * GROUP * groups,), np.int8),
        carray(pointer(words[4]), (rows,), np.float32),
        carray(pointer(words[5]), (2 * rows,), np.int32),
        sums,
        carray(pointer(words[6]), (rows, width), np.float32),
    )
    while piece >= 0:
        multiply_blocks(piece * count // pieces, (piece + 1) * count // pieces, w, space)
        fetch_add(DONE, 1)
        piece = claim_piece(number, pieces)


@njit(**OPTIONS)
def _attend_pieces(words, number, pieces, piece, scores):
    """Take pieces of a call's attention, as attention.attend_cells describes it."""
    rows, heads, width = words[6], words[7], words[8]
    batch, kv_heads, cells, seen = words[9], words[10], words[11], words[12]
    qkv = carray(pointer(words[0]), (rows, heads + 2 * kv_heads, width), np.float32)
    there = Cells(
        carray(pointer(words[1]), (batch, kv_heads, width, cells), np.uint16),
        carray(pointer(words[2]), (batch, kv_heads, cells, width), np.uint16),
        carray(pointer(words[3]), (rows,), np.int64),
        carray(pointer(words[4]), (rows, seen), np.float32),
    )
    y = carray(pointer(words[5]), (rows, heads, width), np.float32)
    while piece >= 0:
        attend_piece(piece, qkv, there, scores, y)
        fetch_add(DONE, 1)
        piece = claim_piece(number, pieces)


class HelperThread:
    """The thread that runs `worker_loop` while it is wanted."""

    def __init__(self):
        self.wake = threading.Event()
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self.users = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While it lasts, the thread helps with every product and attention of enough work."""
        with self.lock:
            if self.thread is None:
                self.thread = threading.Thread(target=self.run, name="products", daemon=True)
                self.thread.start()
            self.users += 1
            WORDS[NEEDED] = self.users
        self.wake.set()
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                WORDS[NEEDED] = self.users

    def run(self) -> None:
        """What the thread does: it sleeps until it is wanted."""
        while True:
            self.wake.wait()
            self.wake.clear()
            worker_loop()


# One thread for the whole process.
running = HelperThread().running
