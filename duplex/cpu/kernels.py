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
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

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

# numba's cache looks at a function's own file only, and these are parts of functions in others: so
# there is a folder for each state of all files here.
_sources = sorted(Path(__file__).parent.glob("*.py"))
_state = hashlib.sha256(b"".join(path.read_bytes() for path in _sources)).hexdigest()[:16]
COMPILED = cache_folder() / "compiled" / _state
numba.config.CACHE_DIR = str(COMPILED)

OPTIONS = {
    "nogil": True,
    "cache": True,
    "fastmath": {"reassoc", "contract"},
    "error_model": "numpy",
}

# Rows of weights that are multiplied at once.
LANES = 16

# Weights of each of these rows.
GROUP = 4

# Bytes of weights that are fetched before they are used.
PREFETCH_BYTES = 4096

# Fine steps in a coarse step of an activation.
FINE_STEPS = 254

# Pieces of a product that two threads make.
MAX_PIECES = 12

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

# Whether the processor has an instruction for sums of four products of 8 bits.
HAS_VNNI = bool(binding.get_host_cpu_features().get("avx512vnni"))


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


_I8 = ir.IntType(8)
_I32 = ir.IntType(32)
_LANES_T = ir.VectorType(_I32, LANES)
_WEIGHTS_T = ir.VectorType(_I8, LANES * GROUP)
_GROUP_T = ir.VectorType(_I8, GROUP)


def make_dot_products(rows: int, has_instruction: bool):
    """The intrinsic dot_products(x, at, w, block, totals) for so many rows of x.

    totals[r] int32 [LANES] = row r of x times each row of w[block], whose weights are taken as 0 to
    255. The rows of x begin at byte `at`, GROUP columns of each by turns.

    Args:
        has_instruction: use the processor's own for sums of four such products. Otherwise LLVM
            finds that for sums of two, if there is one.
    """

    @intrinsic
    def dot_products(typingctx, x, at, w, block, totals):
        def codegen(context, builder, signature, args):
            def pointer(place):
                return context.make_array(signature.args[place])(context, builder, args[place]).data

            shape = context.make_array(signature.args[2])(context, builder, args[2]).shape
            groups = builder.extract_value(shape, 1)
            size = groups.type
            step = ir.Constant(size, LANES * GROUP)
            own = builder.gep(pointer(2), [builder.mul(args[3], builder.mul(groups, step))])
            given = builder.gep(pointer(0), [args[1]])
            total_t = _LANES_T if has_instruction else ir.VectorType(_I32, LANES * GROUP // 2)
            found = [
                cgutils.alloca_once_value(builder, ir.Constant(total_t, None)) for _ in range(rows)
            ]
            with cgutils.for_range(builder, groups) as loop:
                here = builder.gep(own, [builder.mul(loop.index, step)])
                _prefetch(builder, builder.gep(here, [ir.Constant(size, PREFETCH_BYTES)]))
                weights = _load(builder, here, _WEIGHTS_T)
                row_bytes = ir.Constant(size, rows * GROUP)
                digits = builder.gep(given, [builder.mul(loop.index, row_bytes)])
                for r, total in enumerate(found):
                    at = builder.gep(digits, [ir.Constant(size, r * GROUP)])
                    group = _load(builder, at, _GROUP_T)
                    before = builder.load(total)
                    added = _add_products(builder, before, weights, group, has_instruction)
                    builder.store(added, total)
            for r, total in enumerate(found):
                to = builder.gep(pointer(4), [ir.Constant(size, r * LANES)])
                sums = builder.load(total)
                if not has_instruction:
                    sums = _sum_pairs(builder, sums, LANES)
                builder.store(sums, builder.bitcast(to, _LANES_T.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(x, types.intp, w, types.intp, totals), codegen

    return dot_products


def _function(builder, result, given, name):
    """A function of LLVM."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, given), name)


def _prefetch(builder, at) -> None:
    """Fetch what is at a pointer for reading, into all caches."""
    given = [_I8.as_pointer(), _I32, _I32, _I32]
    prefetch = _function(builder, ir.VoidType(), given, "llvm.prefetch.p0")
    how = [ir.Constant(_I32, number) for number in (0, 3, 1)]  # to read, all levels, data
    builder.call(prefetch, [at, *how])


def _load(builder, at, type_):
    """A vector from a pointer that need not be aligned."""
    loaded = builder.load(builder.bitcast(at, type_.as_pointer()))
    loaded.align = 1
    return loaded


def _sum_pairs(builder, vector, count):
    """[2 count] -> the sums of neighbours [count]."""
    even, odd = (
        ir.Constant(ir.VectorType(_I32, count), [2 * n + side for n in range(count)])
        for side in (0, 1)
    )
    return builder.add(
        builder.shuffle_vector(vector, vector, even), builder.shuffle_vector(vector, vector, odd)
    )


def _add_products(builder, total, weights, group, has_instruction: bool):
    """Add the products of LANES times GROUP weights and a group of a row of x to the totals."""
    if has_instruction:
        undefined = ir.Constant(_LANES_T, ir.Undefined)
        one = builder.insert_element(undefined, builder.bitcast(group, _I32), ir.Constant(_I32, 0))
        every = builder.shuffle_vector(one, one, ir.Constant(_LANES_T, [0] * LANES))
        name = "llvm.x86.avx512.vpdpbusd.512"
        return builder.call(
            _function(builder, _LANES_T, [_LANES_T] * 3, name),
            [total, builder.bitcast(weights, _LANES_T), every],
        )
    wide = ir.VectorType(_I32, LANES * GROUP)
    turns = ir.Constant(wide, [n % GROUP for n in range(LANES * GROUP)])
    every = builder.sext(builder.shuffle_vector(group, group, turns), wide)
    products = builder.mul(builder.zext(weights, wide), every)
    return builder.add(total, _sum_pairs(builder, products, LANES * GROUP // 2))


_DOT_PRODUCTS = {rows: make_dot_products(rows, HAS_VNNI) for rows in (2, 8, 16)}
_DOT_2, _DOT_8, _DOT_16 = _DOT_PRODUCTS.values()


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
    bits, top = row.view(np.int32), np.int32(0)
    for i in range(bits.size):
        top = max(top, bits[i] & np.int32(0x7FFFFFFF))
    return max(np.float32(1e-8), float_from_bits(top))


@njit(**OPTIONS)
def quantize_activations(x, digits, unit, total):
    """Each row of x [N, I] float32 becomes two of 8 bits, its coarse and its fine digits.

    One would be too few: activations have a few values many times the others. A row's digits do not
    depend on the other rows.

    Args:
        digits: is filled with int8, laid as `make_dot_products` wants them.
        unit: [N] is filled with what a coarse step is worth.
        total: [2 N] int32 is filled with 128 times the sums of the digits.
    """
    rows, columns = x.shape
    groups = -(-columns // GROUP)
    both = np.zeros((2, groups * GROUP), np.int8)
    words, to, first = both.view(np.int32), digits.view(np.int32), 0
    while first < rows:
        many = rows_at_once(rows - first)
        for n in range(first, min(first + many, rows)):
            row, top = x[n], abs_max(x[n])
            per, sum_coarse, sum_fine = np.float32(127) / top, np.int32(0), np.int32(0)
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
def multiply_blocks(begin, end, w, digits, unit, total, sums, y):
    """Blocks `begin` to `end` of w make LANES columns of y each; the rest is a Workspace."""
    rows, width = y.shape[0], 2 * GROUP * w.weight.shape[1]
    for block in range(begin, end):
        lane = block * LANES
        scale, bias = w.scale[lane : lane + LANES], w.bias[lane : lane + LANES]
        first = 0
        while first < rows:
            many = rows_at_once(rows - first)
            if many == 8:
                _DOT_16(digits, first * width, w.weight, block, sums)
            elif many == 4:
                _DOT_8(digits, first * width, w.weight, block, sums)
            else:
                _DOT_2(digits, first * width, w.weight, block, sums)
            for m in range(min(many, rows - first)):
                n = first + m
                out, coarse, fine = y[n, lane : lane + LANES], sums[2 * m], sums[2 * m + 1]
                less_coarse, less_fine, by = total[2 * n], total[2 * n + 1], unit[n]
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
    digits, unit, total, sums, y = space
    quantize_activations(x, digits, unit, total)
    count = w.weight.shape[0]
    if w.weight.size < MIN_SHARED_BYTES or not may_share():
        multiply_blocks(0, count, w, digits, unit, total, sums, y)
        return
    pieces = min(MAX_PIECES, count)
    number = announce()
    store(WORK, address_of(w.weight))
    store(WORK + 1, address_of(w.scale))
    store(WORK + 2, address_of(w.bias))
    store(WORK + 3, address_of(digits))
    store(WORK + 4, address_of(unit))
    store(WORK + 5, address_of(total))
    store(WORK + 6, address_of(y))
    store(WORK + 7, count)
    store(WORK + 8, w.weight.shape[1])
    store(WORK + 9, x.shape[0])
    store(WORK + 10, y.shape[1])
    open_ticket(number, pieces, MATMUL)
    own, piece = 0, claim_piece(number, pieces)
    while piece >= 0:
        begin, end = piece * count // pieces, (piece + 1) * count // pieces
        multiply_blocks(begin, end, w, digits, unit, total, sums, y)
        own, piece = own + 1, claim_piece(number, pieces)
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
        row, total = x[n], np.float32(0)
        for i in range(row.size):
            total += row[i] * row[i]
        by = np.float32(1) / np.sqrt(total / np.float32(row.size) + np.float32(epsilon))
        for i in range(row.size):
            y[n, i] = row[i] * by * weight[i]


@njit(**OPTIONS)
def layer_norm(x, weight, bias, y):
    """y [N, D] = x [N, D] less its mean, over its deviation, times weight [D], plus bias [D]."""
    for n in range(x.shape[0]):
        row, total = x[n], np.float32(0)
        for i in range(row.size):
            total += row[i]
        mean, squares = total / np.float32(row.size), np.float32(0)
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
    part, total = scaled - whole, np.float32(0)
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
