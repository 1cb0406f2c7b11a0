"""The second thread's loop: it does pieces of the work that the first one shares (duplex.cpu.shared_work)."""

import contextlib
import threading
from collections.abc import Iterator

import numpy as np
from numba import carray, njit

from duplex.cpu.attention import attend_piece
from duplex.cpu.kernels import GROUP, LANES, OPTIONS, Weights, blocks
from duplex.cpu.shared_work import (
    CLOSED,
    DONE,
    KIND,
    NEEDED,
    PIECES,
    TICKET,
    WORDS,
    WORK,
    add,
    claim,
    give_way,
    load,
    pause,
    pointer,
)

WORDS_OF_WORK = 13  # that describe it, at most
IDLE = 1000  # looks for work in vain, after which another process may have the core

_wake = threading.Event()
_lock = threading.Lock()
_thread: threading.Thread | None = None
_users = 0


@njit(**OPTIONS)
def worker_loop():
    """Do pieces of the work of another thread while one is NEEDED: what the helper runs."""
    sums, scores, idle = np.empty((16, LANES), np.int32), np.empty(0, np.float32), 0
    words, over = np.empty(WORDS_OF_WORK, np.int64), -1
    while load(NEEDED):
        ticket = load(TICKET)
        number = ticket >> 32
        if (
            ticket & CLOSED == CLOSED or number == over
        ):  # who looks at more than that slows the other thread down
            pause()
            idle += 1
            if idle % IDLE == 0:
                give_way()
            continue
        for i in range(words.size):
            words[i] = load(WORK + i)
        pieces, kind = load(PIECES), load(KIND)
        piece = claim(
            number, pieces
        )  # the ticket was open before all that was read, so if there is one, that is of this work
        over = number
        if piece < 0:
            continue
        if kind == 0:
            count, groups, rows, width = words[7], words[8], words[9], words[10]
            w = Weights(
                carray(pointer(words[0]), (count, groups, LANES * GROUP), np.uint8),
                carray(pointer(words[1]), (count * LANES,), np.float32),
                carray(pointer(words[2]), (count * LANES,), np.float32),
            )
            digits = carray(pointer(words[3]), (2 * (rows + 7) * GROUP * groups,), np.int8)
            unit, total = (
                carray(pointer(words[4]), (rows,), np.float32),
                carray(pointer(words[5]), (2 * rows,), np.int32),
            )
            y = carray(pointer(words[6]), (rows, width), np.float32)
            while piece >= 0:
                blocks(
                    piece * count // pieces,
                    (piece + 1) * count // pieces,
                    w,
                    digits,
                    unit,
                    total,
                    sums,
                    y,
                )
                add(DONE, 1)
                piece = claim(number, pieces)
            continue
        rows, heads, width, batch, kv_heads, cells, seen = (
            words[6],
            words[7],
            words[8],
            words[9],
            words[10],
            words[11],
            words[12],
        )
        if scores.size < cells:
            scores = np.empty(cells, np.float32)
        qkv = carray(pointer(words[0]), (rows, heads + 2 * kv_heads, width), np.float32)
        keys = carray(pointer(words[1]), (batch, kv_heads, width, cells), np.uint16)
        values = carray(pointer(words[2]), (batch, kv_heads, cells, width), np.uint16)
        slots, hidden = (
            carray(pointer(words[3]), (rows,), np.int64),
            carray(pointer(words[4]), (rows, seen), np.float32),
        )
        y = carray(pointer(words[5]), (rows, heads, width), np.float32)
        while piece >= 0:
            attend_piece(piece, qkv, keys, values, slots, hidden, scores, y)
            add(DONE, 1)
            piece = claim(number, pieces)


@contextlib.contextmanager
def running() -> Iterator[None]:
    """While it lasts a second thread helps with every product and every attention that is large enough."""
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
