"""Operations between matrix products, compiled for this machine's processor.

On a CPU a tick is one pass over all weights: its time is the time to read them, unless each step
between two products is an operation of its own, which takes longer than its numbers do. So a
network's tick (duplex.cpu.lm and so on) is one compiled function made of these and of products
(duplex.cpu.products). numba compiles them at their first call (a minute in all) and keeps the
result on disk.
"""

import hashlib
from pathlib import Path

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

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


# 2^x for x from 0 to 1: the polynomial through its Chebyshev points, highest power first.
EXP2 = tuple(
    np.float32(c)
    for c in (1.893754e-3, 8.9495908e-3, 5.5860337e-2, 0.24014182, 0.69315451, 0.99999988)
)

# The error function: Abramowitz and Stegun, 7.1.26.
ERF = tuple(
    np.float32(c) for c in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
)


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
