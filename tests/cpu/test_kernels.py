"""int8 products are those of rounded weights; the functions between them are torch's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numba import njit

from duplex.cpu import kernels
from tests.cpu.rounding import rounded


@pytest.mark.parametrize("has_instruction", [False, True] if kernels.HAS_VNNI else [False])
@pytest.mark.parametrize("rows", [2, 8, 16])
def test_dot_products_are_whole_numbers(has_instruction, rows):
    """With the processor's own instruction and without, at both ends of the range."""
    dot_products = kernels.make_dot_products(rows, has_instruction)
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 256, (3, 40, 64), np.uint8)  # blocks, groups, LANES * GROUP
    digits = rng.integers(-127, 128, (2, 40, rows, 4), np.int8)
    weights[1] = 255
    digits[1, :, 0] = -127

    @njit
    def run(digits, weights, totals):
        for block in range(3):
            dot_products(digits, digits.size // 2, weights, block, totals[block])

    totals = np.zeros((3, rows, 16), np.int32)
    run(digits.reshape(-1), weights, totals)
    lanes = weights.reshape(3, 40, 16, 4).astype(int)
    expected = np.einsum("grk,bglk->brl", digits[1].astype(int), lanes)
    assert np.array_equal(totals, expected)


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 13])
def test_product_is_that_of_rounded_weights(rows):
    """With a channel fifty times the others, as in a language model, and no whole lanes."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(70, 37)
    x = torch.randn(rows, 70)
    x[:, 7] *= 50
    weights = kernels.pack(linear.weight, linear.bias)
    y = kernels.int8_matmul(x.numpy(), weights)
    expected = rounded(linear, ("weight",))(x).detach()
    assert y.shape == (rows, 48)
    np.testing.assert_allclose(y[:, :37], expected, atol=2e-3 * float(expected.std()))


def test_row_does_not_depend_on_the_others():
    torch.manual_seed(0)
    x = torch.randn(13, 70).numpy()
    weights = kernels.pack(torch.randn(37, 70))
    y = kernels.int8_matmul(x, weights)
    for row in range(len(x)):
        assert np.array_equal(kernels.int8_matmul(x[row : row + 1], weights), y[row : row + 1])


def test_product_with_zeros_is_the_bias():
    weights = kernels.pack(torch.randn(16, 16), torch.ones(16))
    y = kernels.int8_matmul(np.zeros((2, 16), np.float32), weights)
    assert np.array_equal(y, np.ones((2, 16)))


def test_rows_that_fill_no_lanes_are_an_error():
    with pytest.raises(ValueError, match="20 rows of weights are no multiple of 16: .* float32"):
        kernels.pack_stack([torch.randn(20, 16)])


def test_activation_functions_are_those_of_torch():
    x = torch.linspace(-20, 20, 4001).view(1, -1).contiguous()
    ours = x.clone().numpy()
    kernels.gelu(ours)
    np.testing.assert_allclose(ours, F.gelu(x), atol=3e-6)
    y = np.empty_like(x)
    kernels.swiglu(torch.cat([x, x.flip(1)], 1).numpy(), y)
    np.testing.assert_allclose(y, F.silu(x) * x.flip(1), atol=2e-3, rtol=1e-5)


def test_norms_are_those_of_torch():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(5, 33) * 3 + 1, torch.randn(33), torch.randn(33)
    y = np.empty((5, 33), np.float32)
    kernels.layer_norm(x.numpy(), weight.numpy(), bias.numpy(), y)
    np.testing.assert_allclose(y, F.layer_norm(x, (33,), weight, bias), atol=1e-5)
    kernels.rms_norm(x.numpy(), weight.numpy(), 1e-5, y)
    np.testing.assert_allclose(y, F.rms_norm(x, (33,), weight, 1e-5), atol=1e-5)


def test_compiled_code_is_kept_for_each_state_of_the_sources():
    """The hash covers every file of duplex.cpu: none may be forgotten when one is added."""
    names = {path.name for path in kernels._sources}
    assert {"__init__.py", "attention.py", "kernels.py", "lm.py", "shared_work.py"} <= names
