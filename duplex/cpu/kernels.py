"""Products with weights in 8 bits, and what stands between them in a network, compiled for this machine's processor.

On a CPU a tick is one pass over all weights: its time is the time to read them, unless each step between two products is an
operation of its own, which takes longer than its numbers do. So the parts' ticks (lm_cpu.py and so on) are single compiled
functions made of these. numba compiles them at their first call (a minute in all) and keeps the result on disk.
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
from duplex.weights import cache_folder

# The cache looks at a function's own file only, and these are parts of functions in others: a folder for each state of them all.
_parts = sorted(Path(__file__).parent.glob("*.py"))
_sources = b"".join(path.read_bytes() for path in _parts)
COMPILED = cache_folder() / "compiled" / hashlib.sha256(_sources).hexdigest()[:16]
numba.config.CACHE_DIR = str(COMPILED)

OPTIONS = {
    "nogil": True,
    "cache": True,
    "fastmath": {"reassoc", "contract"},
    "error_model": "numpy",
}
LANES = 16  # rows of weights that are multiplied at once
GROUP = 4  # weights of each of them
AHEAD = 4096  # bytes of weights that are fetched before they are used
FINE = 254  # fine digits in a coarse one
PARTS = 12  # of a product that two threads make
SHARED_BYTES = 65_536  # of weights, below which that takes longer
# 2^x for x from 0 to 1: the polynomial through its Chebyshev points, highest power first
EXP2 = tuple(
    np.float32(c)
    for c in (1.893754e-3, 8.9495908e-3, 5.5860337e-2, 0.24014182, 0.69315451, 0.99999988)
)
# of the error function, Abramowitz and Stegun, 7.1.26
ERF = tuple(
    np.float32(c) for c in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
)
HAS_VNNI = bool(binding.get_host_cpu_features().get("avx512vnni"))


class Weights(NamedTuple):
    """Matrices [..., rows, columns] in 8 bits, rows and columns filled up with zeros to whole LANES and GROUPs.

    weight [..., rows / LANES, columns / GROUP, LANES * GROUP] uint8, 128 is 0; scale [..., rows]: what one step of the fine digits
    is worth; bias [..., rows].
    """

    weight: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


def pack(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Weights:
    """weight [out, in], bias [out], any dtype -> both for `multiply`, one scale a row."""
    rows, columns = weight.shape
    blocks, groups = -(-rows // LANES), -(-columns // GROUP)
    whole = torch.zeros(blocks * LANES, groups * GROUP)
    whole[:rows, :columns] = weight.detach()
    scale = whole.abs().amax(1).clamp_(min=1e-8).div_(127)
    digits = whole.div_(scale[:, None]).round_().add_(128).to(torch.uint8)
    digits = (
        digits.view(blocks, LANES, groups, GROUP)
        .transpose(1, 2)
        .reshape(blocks, groups, LANES * GROUP)
    )
    added = torch.zeros(blocks * LANES)
    if bias is not None:
        added[:rows] = bias.detach()
    return Weights(digits.numpy(), (scale / FINE).numpy(), added.numpy())


def stack(weights: list[torch.Tensor], biases: list[torch.Tensor] | None = None) -> Weights:
    """The same for matrices of one shape, of which `layer` takes one. ValueError: their rows do not fill whole LANES."""
    rows = weights[0].shape[0]
    if rows % LANES:
        raise ValueError(
            f"{rows} rows of weights are no multiple of {LANES}: such a network runs with dtype float32"
        )
    packed = [
        pack(weight, bias)
        for weight, bias in zip(weights, biases or [None] * len(weights), strict=True)
    ]
    return Weights(*(np.stack(part) for part in zip(*packed, strict=True)))


def make_sums(rows: int, instruction: bool):
    """The intrinsic sums(x, at, w, block, totals): totals[r] int32 [LANES] = row r of x times each row of w[block], whose weights
    are taken as 0 to 255. The `rows` rows of x begin at byte `at`, GROUP columns of each by turns.

    With `instruction` by the processor's own for sums of four such products; else LLVM finds that for sums of two, if there is one.
    """
    i8, i32 = ir.IntType(8), ir.IntType(32)
    weights_t, lanes_t, group_t = (
        ir.VectorType(i8, LANES * GROUP),
        ir.VectorType(i32, LANES),
        ir.VectorType(i8, GROUP),
    )

    @intrinsic
    def sums(typingctx, x, at, w, block, totals):
        def codegen(context, builder, signature, args):
            def function(result, given, name):
                return cgutils.get_or_insert_function(
                    builder.module, ir.FunctionType(result, given), name
                )

            def pointer(place):
                return context.make_array(signature.args[place])(context, builder, args[place]).data

            def load(at, type_):
                loaded = builder.load(builder.bitcast(at, type_.as_pointer()))
                loaded.align = 1
                return loaded

            def pairs(vector, count):
                """[2 count] -> the sums of neighbours [count]."""
                even, odd = (
                    ir.Constant(ir.VectorType(i32, count), [2 * n + side for n in range(count)])
                    for side in (0, 1)
                )
                return builder.add(
                    builder.shuffle_vector(vector, vector, even),
                    builder.shuffle_vector(vector, vector, odd),
                )

            def add(total, weights, group):
                if instruction:
                    nothing, first = ir.Constant(lanes_t, ir.Undefined), ir.Constant(i32, 0)
                    one = builder.insert_element(nothing, builder.bitcast(group, i32), first)
                    every = builder.shuffle_vector(one, one, ir.Constant(lanes_t, [0] * LANES))
                    given = [total, builder.bitcast(weights, lanes_t), every]
                    return builder.call(
                        function(lanes_t, [lanes_t] * 3, "llvm.x86.avx512.vpdpbusd.512"), given
                    )
                wide = ir.VectorType(i32, LANES * GROUP)
                turns = ir.Constant(wide, [n % GROUP for n in range(LANES * GROUP)])
                every = builder.sext(builder.shuffle_vector(group, group, turns), wide)
                return builder.add(
                    total,
                    pairs(builder.mul(builder.zext(weights, wide), every), LANES * GROUP // 2),
                )

            shape = context.make_array(signature.args[2])(context, builder, args[2]).shape
            groups = builder.extract_value(shape, 1)
            size = groups.type
            step = ir.Constant(size, LANES * GROUP)
            own = builder.gep(pointer(2), [builder.mul(args[3], builder.mul(groups, step))])
            given = builder.gep(pointer(0), [args[1]])
            total_t = lanes_t if instruction else ir.VectorType(i32, LANES * GROUP // 2)
            found = [
                cgutils.alloca_once_value(builder, ir.Constant(total_t, None)) for _ in range(rows)
            ]
            prefetch = function(ir.VoidType(), [i8.as_pointer(), i32, i32, i32], "llvm.prefetch.p0")
            with cgutils.for_range(builder, groups) as loop:
                here = builder.gep(own, [builder.mul(loop.index, step)])
                later = builder.gep(here, [ir.Constant(size, AHEAD)])
                builder.call(
                    prefetch, [later, ir.Constant(i32, 0), ir.Constant(i32, 3), ir.Constant(i32, 1)]
                )
                weights = load(here, weights_t)
                digits = builder.gep(
                    given, [builder.mul(loop.index, ir.Constant(size, rows * GROUP))]
                )
                for r, total in enumerate(found):
                    group = load(builder.gep(digits, [ir.Constant(size, r * GROUP)]), group_t)
                    builder.store(add(builder.load(total), weights, group), total)
            for r, total in enumerate(found):
                to = builder.gep(pointer(4), [ir.Constant(size, r * LANES)])
                sums = builder.load(total) if instruction else pairs(builder.load(total), LANES)
                builder.store(sums, builder.bitcast(to, lanes_t.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(x, types.intp, w, types.intp, totals), codegen

    return sums


_SUMS = {rows: make_sums(rows, HAS_VNNI) for rows in (2, 8, 16)}
_SUMS_2, _SUMS_8, _SUMS_16 = _SUMS.values()


@njit(**OPTIONS)
def taken(left):
    """How many rows of x are multiplied at once when so many are left: as many as make one pass, others being empty."""
    return 1 if left == 1 else 4 if left <= 4 else 8


@intrinsic
def number(typingctx, bits):
    """int32 -> the float32 of these bits"""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@njit(**OPTIONS)
def greatest(row):
    """The greatest magnitude in row [I] float32, at least 1e-8. Magnitudes compare as their bits do, many at once; as numbers they
    would one by one, for one may be none."""
    bits, top = row.view(np.int32), np.int32(0)
    for i in range(bits.size):
        top = max(top, bits[i] & np.int32(0x7FFFFFFF))
    return max(np.float32(1e-8), number(top))


@njit(**OPTIONS)
def split(x, digits, unit, total):
    """Each row of x [N, I] float32 becomes two of 8 bits, its coarse and its fine digits, for activations have a few values many
    times the others. -> digits int8, laid as `make_sums` wants them, what a coarse step is worth, unit [N], and 128 times the sums
    of the digits, total [2 N] int32. Other rows change nothing."""
    rows, columns = x.shape
    groups = -(-columns // GROUP)
    both = np.zeros((2, groups * GROUP), np.int8)
    words, to, first = both.view(np.int32), digits.view(np.int32), 0
    while first < rows:
        many = taken(rows - first)
        for n in range(first, min(first + many, rows)):
            row, top = x[n], greatest(x[n])
            per, sum_coarse, sum_fine = np.float32(127) / top, np.int32(0), np.int32(0)
            for i in range(columns):
                scaled = row[i] * per + np.float32(128)
                whole = np.int32(scaled + np.float32(0.5))
                rest = np.int32(
                    (scaled - np.float32(whole)) * np.float32(FINE) + np.float32(128.5)
                ) - np.int32(128)
                whole -= np.int32(128)
                both[0, i], both[1, i] = whole, rest
                sum_coarse, sum_fine = np.int32(sum_coarse + whole), np.int32(sum_fine + rest)
            total[2 * n], total[2 * n + 1] = np.int32(128) * sum_coarse, np.int32(128) * sum_fine
            unit[n] = top / np.float32(127)
            for digit in range(2):
                place = first * 2 * groups + 2 * (n - first) + digit
                for group in range(groups):
                    to[place + group * 2 * many] = words[digit, group]
        first += many


@njit(**OPTIONS)
def blocks(begin, end, w, digits, unit, total, sums, y):
    """The LANES columns of y that each of these blocks of w makes; the rest as `multiply` has it."""
    rows, width = y.shape[0], 2 * GROUP * w.weight.shape[1]
    for block in range(begin, end):
        lane = block * LANES
        scale, bias = w.scale[lane : lane + LANES], w.bias[lane : lane + LANES]
        first = 0
        while first < rows:
            many = taken(rows - first)
            if many == 8:
                _SUMS_16(digits, first * width, w.weight, block, sums)
            elif many == 4:
                _SUMS_8(digits, first * width, w.weight, block, sums)
            else:
                _SUMS_2(digits, first * width, w.weight, block, sums)
            for m in range(min(many, rows - first)):
                n = first + m
                out, coarse, fine = y[n, lane : lane + LANES], sums[2 * m], sums[2 * m + 1]
                less_coarse, less_fine, by = total[2 * n], total[2 * n + 1], unit[n]
                for i in range(LANES):
                    found = np.float32(coarse[i] - less_coarse) * np.float32(FINE) + np.float32(
                        fine[i] - less_fine
                    )
                    out[i] = found * (by * scale[i]) + bias[i]
            first += many


@njit(**OPTIONS)
def multiply(x, w, digits, unit, total, sums, y):
    """y [N, rows] = x [N, I] times the rows of w plus its bias; the rest is space, see `room`. The helper makes a part of it, if
    there is one (`help_out`) and no other thread has it."""
    split(x, digits, unit, total)
    count = w.weight.shape[0]
    if w.weight.size < SHARED_BYTES or load(NEEDED) == 0 or replace(OWNER, 0, 1):
        blocks(0, count, w, digits, unit, total, sums, y)
        return
    pieces = min(PARTS, count)
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
    offer(number, pieces, 0)
    own, piece = 0, claim(number, pieces)
    while piece >= 0:
        blocks(
            piece * count // pieces, (piece + 1) * count // pieces, w, digits, unit, total, sums, y
        )
        own, piece = own + 1, claim(number, pieces)
    finish(pieces - own)


@njit(**OPTIONS)
def room(rows, w):
    """Space for `multiply` with so many rows of x; the last of it is y."""
    digits = np.zeros(2 * (rows + 7) * GROUP * w.weight.shape[1], np.int8)
    y = np.empty((rows, w.scale.shape[0]), np.float32)
    return (
        digits,
        np.empty(rows, np.float32),
        np.empty(2 * rows, np.int32),
        np.empty((16, LANES), np.int32),
        y,
    )


@njit(**OPTIONS)
def product(x, w):
    """x [N, I] -> [N, rows], with space of its own."""
    space = room(x.shape[0], w)
    multiply(x, w, *space)
    return space[-1]


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
    """y [N, D] = x [N, D] less its mean, over its deviation, times weight [D] plus bias [D]."""
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


@intrinsic
def wide(typingctx, x):
    """float32, or the upper half of its bits (uint16), -> float32"""

    def codegen(context, builder, signature, args):
        if isinstance(signature.args[0], types.Float):
            return args[0]
        bits = builder.shl(builder.zext(args[0], ir.IntType(32)), ir.IntType(32)(16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(x), codegen


@intrinsic
def kept(typingctx, x, like):
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
def exp(x):
    """e^x of float32 to seven digits, at most e^88; unlike the C library's it is made for many numbers at once."""
    scaled = min(max(x, np.float32(-87)), np.float32(88)) * np.float32(1.44269504)
    whole = np.floor(scaled)
    part, total = scaled - whole, np.float32(0)
    for factor in EXP2:
        total = total * part + factor
    return total * number(np.int32((np.int32(whole) + 127) << 23))  # times 2^whole


@njit(**OPTIONS)
def silu(x):
    return x / (np.float32(1) + exp(-x))


@njit(**OPTIONS)
def gelu(x):
    """x [N, D] times the normal distribution's sum up to it, in place (Abramowitz and Stegun, 7.1.26: right to seven digits)."""
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            value = x[n, i]
            far = abs(value) * np.float32(0.5**0.5)
            near, total = (
                np.float32(1) / (np.float32(1) + np.float32(0.3275911) * far),
                np.float32(0),
            )
            for factor in ERF:
                total = (total + factor) * near
            tail = np.float32(0.5) * total * exp(-far * far)
            x[n, i] = max(value, np.float32(0)) - abs(value) * tail


@njit(**OPTIONS)
def gated(gate_up, y):
    """y [N, H] = silu(the first half of gate_up [N, 2 H]) times the second."""
    width = y.shape[1]
    for n in range(y.shape[0]):
        for i in range(width):
            y[n, i] = silu(gate_up[n, i]) * gate_up[n, width + i]


@njit(**OPTIONS)
def layer(w, i):
    """Matrix i of several."""
    return Weights(w.weight[i], w.scale[i], w.bias[i])


@njit(**OPTIONS)
def rotate(heads, cosines, sines):
    """Turn heads [H, W] in place by the angles of a position: cosines, sines [W / 2]."""
    half = cosines.size
    for head in heads:
        for i in range(half):
            low, high = head[i], head[half + i]
            head[i] = low * cosines[i] - high * sines[i]
            head[half + i] = high * cosines[i] + low * sines[i]
