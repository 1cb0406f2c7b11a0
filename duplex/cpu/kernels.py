"""int8 matrix products and the operations between them, compiled for this machine's processor.

On a CPU a tick is one pass over all weights: its time is the time to read them, unless each step
between two products is an operation of its own, which takes longer than its numbers do. So a
network's tick (duplex.cpu.lm and so on) is one compiled function made of these. numba compiles them
at their first call (a minute in all) and keeps the result on disk.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from duplex.cpu.dot_products import (
    GROUP,
    LANES,
    dot_products_2,
    dot_products_8,
    dot_products_16,
)
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
from duplex.weights import cache_folder


def compiled_folder() -> Path:
    """Where compiled code is kept.

    numba's cache looks at a function's own file only, and these are parts of functions in others:
    so there is a folder for each state of all files here.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    assert any(path.name == "lm.py" for path in sources), f"no sources beside {__file__}"
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    return cache_folder() / "compiled" / state


COMPILED = compiled_folder()
numba.config.CACHE_DIR = str(COMPILED)

OPTIONS = {
    "nogil": True,
    "cache": True,
    "fastmath": {"reassoc", "contract"},
    "error_model": "numpy",
}


# Fine steps in a coarse step of an activation.
FINE_STEPS = 254

# Bytes of weights from which on a product is shared. Of fewer, one thread is faster alone.
MIN_SHARED_BYTES = 65_536

# 2^x for x from 0 to 1: the polynomial through its Chebyshev points, highest power first.
EXP2 = tuple(
    np.float32(c)
    for c in (1.893754e-3, 8.9495908e-3, 5.5860337e-2, 0.24014182, 0.69315451, 0.99999988)
)

# The error function: Abramowitz and Stegun, 7.1.26.
ERF = tuple(
    np.float32(c) for c in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
)


class Int8Weights(NamedTuple):
    """Matrices [..., rows, columns] in 8 bits, zeros added up to whole LANES and GROUPs."""

    weight: np.ndarray  # [..., rows / LANES, columns / GROUP, LANES * GROUP] uint8; 128 is 0
    scale: np.ndarray  # [..., rows] what one fine step is worth
    bias: np.ndarray  # [..., rows]


class Workspace(NamedTuple):
    """Memory for a product of N rows of activations with `blocks` of LANES rows of weights."""

    digits: np.ndarray  # int8, the activations in 8 bits, see quantize_activations
    unit: np.ndarray  # [N] float32
    total: np.ndarray  # [2 N] int32
    sums: np.ndarray  # [16, LANES] int32
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
    digits = digits.view(blocks, LANES, groups, GROUP).transpose(1, 2)
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
    return 1 if left == 1 else 4 if left <= 4 else 8


@intrinsic
def float_from_bits(typingctx, bits):
    """int32 -> the float32 of these bits."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@njit(**OPTIONS)
def abs_max(row):
    """The greatest magnitude in row [I] float32, at least 1e-8.

    Magnitudes compare as their bits do, many at once. As floats they would one by one, because one
    may be no number.
    """
    bits = row.view(np.int32)
    top = np.int32(0)
    for i in range(bits.size):
        top = max(top, bits[i] & np.int32(0x7FFFFFFF))
    return max(np.float32(1e-8), float_from_bits(top))


@njit(**OPTIONS)
def quantize_activations(x, digits, unit, total):
    """Each row of x [N, I] float32 becomes two of 8 bits, its coarse and its fine digits.

    One would be too few: activations have a few values many times the others. A row's digits do not
    depend on the other rows.

    Args:
        digits: is filled with int8, laid as dot_products.py wants them.
        unit: [N] is filled with what a coarse step is worth.
        total: [2 N] int32 is filled with 128 times the sums of the digits.
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
            row = x[n]
            top = abs_max(row)
            per = np.float32(127) / top
            sum_coarse, sum_fine = np.int32(0), np.int32(0)
            for i in range(columns):
                scaled = row[i] * per + np.float32(128)
                coarse = np.int32(scaled + np.float32(0.5))
                rest = (scaled - np.float32(coarse)) * np.float32(FINE_STEPS)
                fine = np.int32(rest + np.float32(128.5)) - np.int32(128)
                coarse -= np.int32(128)
                both[0, i], both[1, i] = coarse, fine
                sum_coarse, sum_fine = np.int32(sum_coarse + coarse), np.int32(sum_fine + fine)
            total[2 * n], total[2 * n + 1] = np.int32(128) * sum_coarse, np.int32(128) * sum_fine
            unit[n] = top / np.float32(127)
            for digit in range(2):
                place = first * 2 * groups + 2 * (n - first) + digit
                for group in range(groups):
                    to[place + group * 2 * many] = words[digit, group]
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
                dot_products_16(digits, first * width, w.weight, block, sums)
            elif many == 4:
                dot_products_8(digits, first * width, w.weight, block, sums)
            else:
                dot_products_2(digits, first * width, w.weight, block, sums)
            for m in range(min(many, rows - first)):
                n = first + m
                out = y[n, lane : lane + LANES]
                coarse, fine = sums[2 * m], sums[2 * m + 1]
                less_coarse, less_fine = total[2 * n], total[2 * n + 1]
                by = unit[n]
                for i in range(LANES):
                    # Weights are taken as 0 to 255, so 128 times the digits is too much.
                    whole = np.float32(coarse[i] - less_coarse) * np.float32(FINE_STEPS)
                    found = whole + np.float32(fine[i] - less_fine)
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
        np.empty((16, LANES), np.int32),
        np.empty((rows, w.scale.shape[0]), np.float32),
    )


@njit(**OPTIONS)
def int8_matmul(x, w):
    """x [N, I] times the rows of w, plus its bias, [N, rows]; with a workspace of its own."""
    space = workspace(x.shape[0], w)
    int8_matmul_into(x, w, space)
    return space.y


@njit(**OPTIONS)
def rms_norm(x, weight, epsilon, y):
    """y [N, D] = x [N, D] over its root mean square, times weight [D]."""
    for n in range(x.shape[0]):
        row = x[n]
        total = np.float32(0)
        for i in range(row.size):
            total += row[i] * row[i]
        by = np.float32(1) / np.sqrt(total / np.float32(row.size) + np.float32(epsilon))
        for i in range(row.size):
            y[n, i] = row[i] * by * weight[i]


@njit(**OPTIONS)
def layer_norm(x, weight, bias, y):
    """y [N, D] = x [N, D] less its mean, over its deviation, times weight [D], plus bias [D]."""
    for n in range(x.shape[0]):
        row = x[n]
        total = np.float32(0)
        for i in range(row.size):
            total += row[i]
        mean = total / np.float32(row.size)
        squares = np.float32(0)
        for i in range(row.size):
            squares += (row[i] - mean) ** 2
        by = np.float32(1) / np.sqrt(squares / np.float32(row.size) + np.float32(1e-5))
        for i in range(row.size):
            y[n, i] = (row[i] - mean) * by * weight[i] + bias[i]


@njit(**OPTIONS)
def exp(x):
    """e^x of float32 to seven digits, at most e^88; unlike the C library's for many at once."""
    scaled = min(max(x, np.float32(-87)), np.float32(88)) * np.float32(1.44269504)
    whole = np.floor(scaled)
    part = scaled - whole
    total = np.float32(0)
    for factor in EXP2:
        total = total * part + factor
    return total * float_from_bits(np.int32((np.int32(whole) + 127) << 23))  # times 2^whole


@njit(**OPTIONS)
def silu(x):
    """x of float32 times its logistic function."""
    return x / (np.float32(1) + exp(-x))


@njit(**OPTIONS)
def gelu(x):
    """x [N, D] times the normal distribution's integral up to it, in place, to seven digits."""
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            value = x[n, i]
            far = abs(value) * np.float32(0.5**0.5)
            near = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * far)
            total = np.float32(0)
            for factor in ERF:
                total = (total + factor) * near
            tail = np.float32(0.5) * total * exp(-far * far)
            x[n, i] = max(value, np.float32(0)) - abs(value) * tail


@njit(**OPTIONS)
def swiglu(gate_up, y):
    """y [N, H] = silu(the first half of gate_up [N, 2 H]) times the second half."""
    width = y.shape[1]
    for n in range(y.shape[0]):
        for i in range(width):
            y[n, i] = silu(gate_up[n, i]) * gate_up[n, width + i]


@njit(**OPTIONS)
def rotate(heads, cosines, sines):
    """Turn heads [H, W] in place by the angles of a position: cosines, sines [W / 2]."""
    half = cosines.size
    for head in heads:
        for i in range(half):
            low, high = head[i], head[half + i]
            head[i] = low * cosines[i] - high * sines[i]
            head[half + i] = high * cosines[i] + low * sines[i]
