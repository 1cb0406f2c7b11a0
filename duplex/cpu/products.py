"""int8 matrix products, compiled for this machine's processor.

Weights have 8 bits, activations 15: one value of a row of them may be many times the others. With
AVX-512 VNNI, which multiplies 8 bits, they are two digits of 8 bits each, and a product is made for
both; otherwise they are numbers of 16 bits, which other processors multiply as well as those of 8.
"""

from typing import NamedTuple

import numpy as np
import torch
from numba import njit

from duplex.cpu.dot_products import (
    GROUP,
    HAS_VNNI,
    LANES,
    STEP,
    dot_products_1,
    dot_products_4,
    dot_products_8,
)
from duplex.cpu.kernels import OPTIONS, abs_max
from duplex.cpu.shared_work import (
    MATMUL,
    WORK,
    address_of,
    announce,
    claim_piece,
    may_share,
    open_ticket,
    store,
    wait_for_helper,
)

# Steps of 15 bits in a step of 8 bits.
FINE_STEPS = 254

# Bytes of weights from which on a product is shared. Of fewer, one thread is faster alone.
MIN_SHARED_BYTES = 65_536

# The greatest sum of magnitudes of 15 bits whose products with weights have a sum of 32 bits.
MAX_SUM = np.float32(2**31 / 128 - 2**16)

# Rows that are multiplied at once: with more than four, their sums would leave the registers.
MOST_ROWS = 8 if HAS_VNNI else 4


class Int8Weights(NamedTuple):
    """Matrices [..., rows, columns] in 8 bits, zeros added up to whole LANES and GROUPs."""

    weight: np.ndarray  # [..., rows / LANES, columns / GROUP, LANES * GROUP] uint8; 128 is 0
    scale: np.ndarray  # [..., rows] what one fine step is worth
    bias: np.ndarray  # [..., rows]


class Workspace(NamedTuple):
    """Memory for a product of N rows of activations with `blocks` of LANES rows of weights."""

    digits: np.ndarray  # int8, the activations, see quantize_activations
    unit: np.ndarray  # [N] float32
    total: np.ndarray  # [2 N] int32
    sums: np.ndarray  # [2 MOST_ROWS, LANES] int32
    y: np.ndarray  # [N, rows] float32, the product


def pack(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Int8Weights:
    """weight [out, in], bias [out] of any type -> both for `int8_matmul`, one scale a row."""
    rows, columns = weight.shape
    blocks = -(-rows // LANES)
    groups = -(-columns // GROUP)
    whole = torch.zeros(blocks * LANES, groups * GROUP)
    whole[:rows, :columns] = weight.detach()
    scale = whole.abs().amax(1).clamp_(min=1e-8).div_(127)
    digits = whole.div_(scale[:, None]).round_().add_(128).to(torch.uint8)
    digits = digits.view(blocks, LANES, groups, -1, STEP).permute(0, 2, 3, 1, 4)
    digits = digits.reshape(blocks, groups, LANES * GROUP)
    padded_bias = torch.zeros(blocks * LANES)
    if bias is not None:
        padded_bias[:rows] = bias.detach()
    return Int8Weights(digits.numpy(), (scale / FINE_STEPS).numpy(), padded_bias.numpy())


def pack_stack(
    weights: list[torch.Tensor], biases: list[torch.Tensor] | None = None
) -> Int8Weights:
    """The same for matrices of one shape, of which `layer` takes one.

    Raises ValueError if their rows do not fill whole LANES.
    """
    rows = weights[0].shape[0]
    if rows % LANES:
        raise ValueError(
            f"{rows} rows of weights are no multiple of {LANES}: "
            "such a network runs with dtype float32"
        )
    packed = [
        pack(weight, bias)
        for weight, bias in zip(weights, biases or [None] * len(weights), strict=True)
    ]
    return Int8Weights(*(np.stack(part) for part in zip(*packed, strict=True)))


@njit(**OPTIONS)
def layer(w, i):
    """Matrix i of several."""
    return Int8Weights(w.weight[i], w.scale[i], w.bias[i])


@njit(**OPTIONS)
def rows_at_once(left):
    """How many rows of x are multiplied at once when so many are left.

    They are as many as make one pass; some may be empty.
    """
    return 1 if left == 1 else 4 if left <= 4 else MOST_ROWS


@njit(**OPTIONS)
def two_digits(row, both, unit, total, n):
    """A row of x as coarse and fine digits, both [2, I] int8; see quantize_activations."""
    top = abs_max(row)
    per = np.float32(127) / top
    sum_coarse, sum_fine = np.int32(0), np.int32(0)
    for i in range(row.size):
        scaled = row[i] * per + np.float32(128)
        coarse = np.int32(scaled + np.float32(0.5))
        rest = (scaled - np.float32(coarse)) * np.float32(FINE_STEPS)
        fine = np.int32(rest + np.float32(128.5)) - np.int32(128)
        coarse -= np.int32(128)
        both[0, i], both[1, i] = coarse, fine
        sum_coarse, sum_fine = np.int32(sum_coarse + coarse), np.int32(sum_fine + fine)
    total[2 * n], total[2 * n + 1] = np.int32(128) * sum_coarse, np.int32(128) * sum_fine
    unit[n] = top / np.float32(127)


@njit(**OPTIONS)
def whole_numbers(row, numbers, unit, total, n):
    """A row of x as numbers [I] int16; see quantize_activations.

    They have 15 bits, or fewer where sums of their products might not fit into 32.
    """
    sum_sizes = np.float32(0)
    for i in range(row.size):
        sum_sizes += abs(row[i])
    most = np.float32(127 * FINE_STEPS)
    per = min(most / abs_max(row), MAX_SUM / max(sum_sizes, np.float32(1e-8)))
    both = np.int32(0)
    for i in range(row.size):
        number = np.int32(row[i] * per + np.float32(32768.5)) - np.int32(32768)
        numbers[i] = number
        both = np.int32(both + number)
    total[2 * n] = np.int32(128) * both  # Where it has more than 32 bits, so has the sum itself.
    unit[n] = np.float32(FINE_STEPS) / per


@njit(**OPTIONS)
def quantize_activations(x, digits, unit, total):
    """Each row of x [N, I] float32 becomes whole numbers, which do not depend on the other rows.

    Args:
        digits: is filled with int8, or the bytes of int16, laid as dot_products.py wants them.
        unit: [N] is filled with what a coarse step, of 8 bits, is worth.
        total: [2 N] int32 is filled with 128 times the sums of the digits, or of the numbers.
    """
    rows, columns = x.shape
    groups = -(-columns // GROUP)
    both = np.zeros((2, groups * GROUP), np.int8)
    words = both.view(np.int32)
    to = digits.view(np.int32)
    first = 0
    while first < rows:
        many = rows_at_once(rows - first)
        for n in range(first, min(first + many, rows)):
            place = first * 2 * groups + 2 * (n - first)
            if HAS_VNNI:
                two_digits(x[n], both, unit, total, n)
                for digit in range(2):
                    for group in range(groups):
                        to[place + digit + group * 2 * many] = words[digit, group]
            else:
                numbers = both.reshape(2 * groups * GROUP).view(np.int16)
                whole_numbers(x[n], numbers, unit, total, n)
                own = words.reshape(2 * groups)
                for group in range(groups):
                    to[place + group * 2 * many] = own[2 * group]
                    to[place + 1 + group * 2 * many] = own[2 * group + 1]
        first += many


@njit(**OPTIONS)
def multiply_blocks(begin, end, w, space):
    """Blocks `begin` to `end` of w make LANES columns of space.y each."""
    digits, unit, total, sums, y = space
    rows = y.shape[0]
    width = 2 * GROUP * w.weight.shape[1]
    for block in range(begin, end):
        lane = block * LANES
        scale, bias = w.scale[lane : lane + LANES], w.bias[lane : lane + LANES]
        first = 0
        while first < rows:
            many = rows_at_once(rows - first)
            if many == 8:
                dot_products_8(digits, first * width, w.weight, block, sums)
            elif many == 4:
                dot_products_4(digits, first * width, w.weight, block, sums)
            else:
                dot_products_1(digits, first * width, w.weight, block, sums)
            for m in range(min(many, rows - first)):
                n = first + m
                out = y[n, lane : lane + LANES]
                by = unit[n]
                # Weights are taken as 0 to 255, so 128 times the digits is too much.
                if HAS_VNNI:
                    coarse, fine = sums[2 * m], sums[2 * m + 1]
                    less_coarse, less_fine = total[2 * n], total[2 * n + 1]
                    for i in range(LANES):
                        whole = np.float32(coarse[i] - less_coarse) * np.float32(FINE_STEPS)
                        found = whole + np.float32(fine[i] - less_fine)
                        out[i] = found * (by * scale[i]) + bias[i]
                else:
                    own, less = sums[m], total[2 * n]
                    for i in range(LANES):
                        found = np.float32(np.int32(own[i] - less))
                        out[i] = found * (by * scale[i]) + bias[i]
            first += many


@njit(**OPTIONS)
def int8_matmul_into(x, w, space):
    """space.y [N, rows] = x [N, I] times the rows of w, plus its bias.

    The helper makes a part of it, if there is one and no other thread has it.
    """
    quantize_activations(x, space.digits, space.unit, space.total)
    count = w.weight.shape[0]
    if w.weight.size < MIN_SHARED_BYTES or not may_share():
        multiply_blocks(0, count, w, space)
        return
    pieces = min(12, count)
    number = announce()
    store(WORK, address_of(w.weight))
    store(WORK + 1, address_of(w.scale))
    store(WORK + 2, address_of(w.bias))
    store(WORK + 3, address_of(space.digits))
    store(WORK + 4, address_of(space.unit))
    store(WORK + 5, address_of(space.total))
    store(WORK + 6, address_of(space.y))
    store(WORK + 7, count)
    store(WORK + 8, w.weight.shape[1])
    store(WORK + 9, x.shape[0])
    store(WORK + 10, space.y.shape[1])
    open_ticket(number, pieces, MATMUL)
    own = 0
    piece = claim_piece(number, pieces)
    while piece >= 0:
        multiply_blocks(piece * count // pieces, (piece + 1) * count // pieces, w, space)
        own += 1
        piece = claim_piece(number, pieces)
    wait_for_helper(pieces - own)


@njit(**OPTIONS)
def workspace(rows, w):
    """A Workspace for products of so many rows of x with w."""
    digits = np.zeros(2 * (rows + 7) * GROUP * w.weight.shape[1], np.int8)
    return Workspace(
        digits,
        np.empty(rows, np.float32),
        np.empty(2 * rows, np.int32),
        np.empty((2 * MOST_ROWS, LANES), np.int32),
        np.empty((rows, w.scale.shape[0]), np.float32),
    )


@njit(**OPTIONS)
def int8_matmul(x, w):
    """x [N, I] times the rows of w, plus its bias, [N, rows]; with a workspace of its own."""
    space = workspace(x.shape[0], w)
    int8_matmul_into(x, w, space)
    return space.y
