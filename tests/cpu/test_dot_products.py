"""Sums of products of 8 bits are exact, with the processor's own instruction and without."""

import numpy as np
import pytest
from numba import njit

from duplex.cpu.dot_products import GROUP, HAS_VNNI, LANES, make_dot_products

# All that they call is compiled first.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("has_instruction", [False, True] if HAS_VNNI else [False])
@pytest.mark.parametrize("rows", [1, 4, 8])
def test_dot_products_are_whole_numbers(has_instruction, rows):
    """With the processor's own instruction and without, at both ends of the range."""
    dot_products = make_dot_products(rows, has_instruction)
    rng = np.random.default_rng(0)
    step = GROUP if has_instruction else GROUP // 2
    weights = rng.integers(0, 256, (3, 40, LANES * GROUP), np.uint8)  # blocks, groups, lanes
    most = 127 if has_instruction else 32_258
    type_ = np.int8 if has_instruction else np.int16
    rows *= 2 if has_instruction else 1
    digits = rng.integers(-most, most + 1, (2, 40, rows, GROUP), type_)
    weights[1] = 255
    digits[1, :, 0] = -most

    @njit
    def run(digits, weights, totals):
        for block in range(3):
            dot_products(digits, digits.size // 2, weights, block, totals[block])

    totals = np.zeros((3, rows, LANES), np.int32)
    run(digits.reshape(-1).view(np.int8), weights, totals)
    lanes = weights.reshape(3, 40, -1, LANES, step).swapaxes(2, 3).reshape(3, 40, LANES, GROUP)
    lanes = lanes.astype(int)
    expected = np.einsum("grk,bglk->brl", digits[1].astype(int), lanes)
    assert np.array_equal(totals, expected)
