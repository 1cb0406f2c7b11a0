"""Attention over a cache of keys and values, compiled for this machine's processor."""

import numpy as np
import torch
from numba import njit

from duplex.cpu.kernels import OPTIONS, exp, kept, wide
from duplex.cpu.shared_work import (
    NEEDED,
    OWNER,
    WORK,
    address_of,
    announce,
    claim,
    finish,
    load,
    offer,
    replace,
    store,
)


@njit(**OPTIONS)
def weigh(scores, scale, bias, count):
    """The first scores become e to (scale * score + bias), the greatest of them 1 -> their sum."""
    top, total = np.float32(-np.inf), np.float32(0)
    for j in range(count):
        scores[j] = scores[j] * scale + bias[j]
        top = max(top, scores[j])
    for j in range(count):
        # nothing, where all that `exp` can give is e^-87: products with it are denormal, and those are slow
        scores[j] = exp(scores[j] - top) if scores[j] - top > np.float32(-87) else np.float32(0)
        total += scores[j]
    return total


@njit(**OPTIONS)
def attend(q, keys, values, seen, bias, scores, y):
    """y [H, W]: attention of q [H, W] over the cells `seen` [S] of keys and values [H or fewer, C, W]; bias [H, at least S] is
    added to the scores, for which `scores` is the space. Four cells at a time: their sums do not wait for each other."""
    heads, width = q.shape
    group, fours = heads // keys.shape[0], seen.size // 4 * 4
    for h in range(heads):
        query, key, value, mixed = q[h], keys[h // group], values[h // group], y[h]
        for j in range(0, fours, 4):
            a, b, c, d = key[seen[j]], key[seen[j + 1]], key[seen[j + 2]], key[seen[j + 3]]
            of_a, of_b, of_c, of_d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for i in range(width):
                of_a += query[i] * a[i]
                of_b += query[i] * b[i]
                of_c += query[i] * c[i]
                of_d += query[i] * d[i]
            scores[j], scores[j + 1], scores[j + 2], scores[j + 3] = of_a, of_b, of_c, of_d
        for j in range(fours, seen.size):
            a, of_a = key[seen[j]], np.float32(0)
            for i in range(width):
                of_a += query[i] * a[i]
            scores[j] = of_a
        total = weigh(scores, np.float32(width**-0.5), bias[h], seen.size)
        mixed[:] = 0
        for j in range(0, fours, 4):
            a, b, c, d = value[seen[j]], value[seen[j + 1]], value[seen[j + 2]], value[seen[j + 3]]
            of_a, of_b, of_c, of_d = scores[j], scores[j + 1], scores[j + 2], scores[j + 3]
            for i in range(width):
                mixed[i] += of_a * a[i] + of_b * b[i] + of_c * c[i] + of_d * d[i]
        for j in range(fours, seen.size):
            a, of_a = value[seen[j]], scores[j]
            for i in range(width):
                mixed[i] += of_a * a[i]
        for i in range(width):
            mixed[i] /= total


def in_memory(keys: torch.Tensor, values: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """A cache's keys and values [layers, B, kv_heads, C, W] float32 or bfloat16 as `attend_cells` has them, bfloat16 as the upper
    halves of float32. The keys lie cell beside cell in the same memory, [..., W, C]: many cells' scores are made at once."""
    keys = keys.view(*keys.shape[:3], keys.shape[4], keys.shape[3])
    keys, values = (
        part.view(torch.uint16) if part.dtype == torch.bfloat16 else part for part in (keys, values)
    )
    return keys.numpy(), values.numpy()


@njit(**OPTIONS)
def keep(qkv, keys, values, cell):
    """Write the last heads of qkv [H and twice kv_heads, W] to a cell of one slot's keys [kv_heads, W, C], values [..., C, W]."""
    kv_heads, width = keys.shape[:2]
    first = qkv.shape[0] - 2 * kv_heads
    for h in range(kv_heads):
        for j in range(width):
            keys[h, j, cell] = kept(qkv[first + h, j], keys[h, j, cell])
            values[h, cell, j] = kept(qkv[first + kv_heads + h, j], values[h, cell, j])


@njit(**OPTIONS)
def hide(visible, place):
    """What `attend_cells` adds to the scores, [N, C]: visible [B, L, C] tells which cells the queries at `place` of B L may see."""
    length, hidden = visible.shape[1], np.zeros((place.size, visible.shape[2]), np.float32)
    for n in range(place.size):
        for cell in range(visible.shape[2]):
            if not visible[place[n] // length, place[n] % length, cell]:
                hidden[n, cell] = -np.inf
    return hidden


@njit(**OPTIONS)
def attend_one(q, keys, values, hidden, scores, y):
    """y [H, W]: attention of q [H, W] over the first S cells of keys [W, C] and values [C, W]; hidden [S] is added to the scores,
    for which `scores` [C] is the space. Four rows at a time: a sum is loaded and stored once for them."""
    heads, width = q.shape
    cells = hidden.size
    for h in range(heads):
        query, mixed = q[h], y[h]
        for j in range(cells):
            scores[j] = 0
        for i in range(0, width, 4):
            a, b, c, d = keys[i], keys[i + 1], keys[i + 2], keys[i + 3]
            by_a, by_b, by_c, by_d = query[i], query[i + 1], query[i + 2], query[i + 3]
            for j in range(cells):
                scores[j] += (
                    by_a * wide(a[j]) + by_b * wide(b[j]) + by_c * wide(c[j]) + by_d * wide(d[j])
                )
        total = weigh(scores, np.float32(width**-0.5), hidden, cells)
        mixed[:] = 0
        fours = cells // 4 * 4
        for j in range(0, fours, 4):
            a, b, c, d = values[j], values[j + 1], values[j + 2], values[j + 3]
            of_a, of_b, of_c, of_d = scores[j], scores[j + 1], scores[j + 2], scores[j + 3]
            for i in range(width):
                mixed[i] += (
                    of_a * wide(a[i]) + of_b * wide(b[i]) + of_c * wide(c[i]) + of_d * wide(d[i])
                )
        for j in range(fours, cells):
            for i in range(width):
                mixed[i] += scores[j] * wide(values[j, i])
        for i in range(width):
            mixed[i] /= total


@njit(**OPTIONS)
def attend_piece(piece, qkv, keys, values, slots, hidden, scores, y):
    """One row's queries of one key head; the rest as `attend_cells` has it."""
    group = y.shape[1] // keys.shape[1]
    n, h = piece // keys.shape[1], piece % keys.shape[1]
    own = slice(h * group, (h + 1) * group)
    attend_one(qkv[n, own], keys[slots[n], h], values[slots[n], h], hidden[n], scores, y[n, own])


@njit(**OPTIONS)
def attend_cells(qkv, keys, values, slots, hidden, scores, y):
    """y [N, H, W]: attention of the queries in qkv [N, H and more, W] over the cells of their slots [N]: keys [B, kv_heads, W, C],
    values [B, kv_heads, C, W] float32 or the upper half of its bits; hidden [N, S] is 0, or -inf where a row may not see a cell.
    The helper does a part of it, as in `multiply`."""
    pieces = y.shape[0] * keys.shape[1]
    if keys.itemsize != 2 or load(NEEDED) == 0 or replace(OWNER, 0, 1):
        for piece in range(pieces):
            attend_piece(piece, qkv, keys, values, slots, hidden, scores, y)
        return
    number = announce()
    store(WORK, address_of(qkv))
    store(WORK + 1, address_of(keys))
    store(WORK + 2, address_of(values))
    store(WORK + 3, address_of(slots))
    store(WORK + 4, address_of(hidden))
    store(WORK + 5, address_of(y))
    store(WORK + 6, y.shape[0])
    store(WORK + 7, y.shape[1])
    store(WORK + 8, y.shape[2])
    store(WORK + 9, keys.shape[0])
    store(WORK + 10, keys.shape[1])
    store(WORK + 11, keys.shape[3])
    store(WORK + 12, hidden.shape[1])
    offer(number, pieces, 1)
    own, piece = 0, claim(number, pieces)
    while piece >= 0:
        attend_piece(piece, qkv, keys, values, slots, hidden, scores, y)
        own, piece = own + 1, claim(number, pieces)
    finish(pieces - own)
