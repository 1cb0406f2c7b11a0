"""Attention over caches of keys and values, compiled for this machine's processor.

The LM and the talker keep their caches in 32 or 16 bits: with several long conversations as much of
the cache is read in a call as of the weights.
"""

from typing import NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from duplex.cpu.kernels import OPTIONS, exp
from duplex.cpu.shared_work import (
    ATTENTION,
    WORK,
    address_of,
    announce,
    claim_piece,
    may_share,
    open_ticket,
    store,
    wait_for_helper,
)


class Reach(NamedTuple):
    """Which cells of a ring a query attends to, and how."""

    seen: np.ndarray  # [S] the cells
    bias: np.ndarray  # [H, at least S] is added to the scores
    scores: np.ndarray  # [at least S] space


class Cells(NamedTuple):
    """The cells of all slots, and which of them N rows of queries may see."""

    keys: np.ndarray  # [B, kv_heads, W, C] float32, or the upper half of its bits
    values: np.ndarray  # [B, kv_heads, C, W] of the same type
    slots: np.ndarray  # [N] the slot of each row
    hidden: np.ndarray  # [N, S] is added to the scores, see `visibility_bias`


@intrinsic
def to_float32(typingctx, x):
    """float32, or the upper half of its bits (uint16), -> float32."""

    def codegen(context, builder, signature, args):
        if isinstance(signature.args[0], types.Float):
            return args[0]
        bits = builder.shl(builder.zext(args[0], ir.IntType(32)), ir.IntType(32)(16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(x), codegen


@intrinsic
def to_storage(typingctx, x, like):
    """float32 x in the type of `like`: float32, or the upper half of its bits (uint16), rounded."""

    def codegen(context, builder, signature, args):
        if isinstance(signature.return_type, types.Float):
            return args[0]
        i32 = ir.IntType(32)
        bits = builder.bitcast(args[0], i32)
        odd = builder.and_(builder.lshr(bits, i32(16)), i32(1))
        rounded = builder.add(bits, builder.add(odd, i32(0x7FFF)))  # half a step, to even
        return builder.trunc(builder.lshr(rounded, i32(16)), ir.IntType(16))

    return like(types.float32, like), codegen


@njit(**OPTIONS)
def softmax_numerators(scores, scale, bias, count):
    """The first scores become e to (scale * score + bias), the greatest of them 1.

    Returns their sum.
    """
    top = np.float32(-np.inf)
    total = np.float32(0)
    for j in range(count):
        scores[j] = scores[j] * scale + bias[j]
        top = max(top, scores[j])
    for j in range(count):
        # Nothing where `exp` gives e^-87: products with that are denormal, and those are slow.
        scores[j] = exp(scores[j] - top) if scores[j] - top > np.float32(-87) else np.float32(0)
        total += scores[j]
    return total


@njit(**OPTIONS)
def attend_ring(q, keys, values, reach, y):
    """y [H, W]: attention of q [H, W] over the cells in reach of keys and values [H, C, W].

    Four cells at a time: their sums do not wait for each other.
    """
    heads, width = q.shape
    seen, bias, scores = reach
    fours = seen.size // 4 * 4
    for h in range(heads):
        query, key, value, mixed = q[h], keys[h], values[h], y[h]
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
            a = key[seen[j]]
            of_a = np.float32(0)
            for i in range(width):
                of_a += query[i] * a[i]
            scores[j] = of_a
        total = softmax_numerators(scores, np.float32(width**-0.5), bias[h], seen.size)
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


def cache_arrays(keys: torch.Tensor, values: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """A cache's keys and values [layers, B, kv_heads, C, W] as `attend_cells` takes them.

    They are float32, or bfloat16 as the upper halves of float32 (uint16). The keys lie cell beside
    cell in the same memory, [..., W, C]: many cells' scores are made at once.
    """
    keys = keys.view(*keys.shape[:3], keys.shape[4], keys.shape[3])
    if keys.dtype == torch.bfloat16:
        keys, values = keys.view(torch.uint16), values.view(torch.uint16)
    return keys.numpy(), values.numpy()


@njit(**OPTIONS)
def write_cell(qkv, keys, values, cell):
    """Write the last heads of qkv [H and twice kv_heads, W] to a cell of one slot.

    Args:
        keys: [kv_heads, W, C].
        values: [kv_heads, C, W].
    """
    kv_heads, width = keys.shape[:2]
    first = qkv.shape[0] - 2 * kv_heads
    for h in range(kv_heads):
        for j in range(width):
            keys[h, j, cell] = to_storage(qkv[first + h, j], keys[h, j, cell])
            values[h, cell, j] = to_storage(qkv[first + kv_heads + h, j], values[h, cell, j])


@njit(**OPTIONS)
def visibility_bias(visible, place):
    """What `attend_cells` adds to the scores [N, C]: 0, or -inf where a cell is hidden.

    Args:
        visible: [B, L, C] which cells each query may see.
        place: [N] which of the B L queries are asked for.
    """
    length = visible.shape[1]
    hidden = np.zeros((place.size, visible.shape[2]), np.float32)
    for n in range(place.size):
        for cell in range(visible.shape[2]):
            if not visible[place[n] // length, place[n] % length, cell]:
                hidden[n, cell] = -np.inf
    return hidden


@njit(**OPTIONS)
def attend_heads(q, keys, values, hidden, scores, y):
    """y [H, W]: attention of q [H, W] over the first S cells of keys [W, C] and values [C, W].

    Four rows at a time: a sum is loaded and stored once for them.

    Args:
        hidden: [S] is added to the scores.
        scores: [C] space.
    """
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
                    by_a * to_float32(a[j])
                    + by_b * to_float32(b[j])
                    + by_c * to_float32(c[j])
                    + by_d * to_float32(d[j])
                )
        total = softmax_numerators(scores, np.float32(width**-0.5), hidden, cells)
        mixed[:] = 0
        fours = cells // 4 * 4
        for j in range(0, fours, 4):
            a, b, c, d = values[j], values[j + 1], values[j + 2], values[j + 3]
            of_a, of_b, of_c, of_d = scores[j], scores[j + 1], scores[j + 2], scores[j + 3]
            for i in range(width):
                mixed[i] += (
                    of_a * to_float32(a[i])
                    + of_b * to_float32(b[i])
                    + of_c * to_float32(c[i])
                    + of_d * to_float32(d[i])
                )
        for j in range(fours, cells):
            for i in range(width):
                mixed[i] += scores[j] * to_float32(values[j, i])
        for i in range(width):
            mixed[i] /= total


@njit(**OPTIONS)
def attend_piece(piece, qkv, cells, scores, y):
    """One row's queries of one key head; the rest as `attend_cells` has it."""
    kv_heads = cells.keys.shape[1]
    group = y.shape[1] // kv_heads
    n, h = piece // kv_heads, piece % kv_heads
    own = slice(h * group, (h + 1) * group)
    slot = cells.slots[n]
    keys, values = cells.keys[slot, h], cells.values[slot, h]
    attend_heads(qkv[n, own], keys, values, cells.hidden[n], scores, y[n, own])


@njit(**OPTIONS)
def attend_cells(qkv, cells, scores, y):
    """y [N, H, W]: attention of the queries in qkv [N, H and more, W] over their slots' cells.

    The helper does a part of it, as of a product.

    Args:
        scores: [C] space.
    """
    keys = cells.keys
    pieces = y.shape[0] * keys.shape[1]
    if keys.itemsize != 2 or not may_share():
        for piece in range(pieces):
            attend_piece(piece, qkv, cells, scores, y)
        return
    number = announce()
    store(WORK, address_of(qkv))
    store(WORK + 1, address_of(keys))
    store(WORK + 2, address_of(cells.values))
    store(WORK + 3, address_of(cells.slots))
    store(WORK + 4, address_of(cells.hidden))
    store(WORK + 5, address_of(y))
    store(WORK + 6, y.shape[0])
    store(WORK + 7, y.shape[1])
    store(WORK + 8, y.shape[2])
    store(WORK + 9, keys.shape[0])
    store(WORK + 10, keys.shape[1])
    store(WORK + 11, keys.shape[3])
    store(WORK + 12, cells.hidden.shape[1])
    open_ticket(number, pieces, ATTENTION)
    own = 0
    piece = claim_piece(number, pieces)
    while piece >= 0:
        attend_piece(piece, qkv, cells, scores, y)
        own += 1
        piece = claim_piece(number, pieces)
    wait_for_helper(pieces - own)
