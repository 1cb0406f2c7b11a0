"""int8 products are those of rounded weights; the functions between them are torch's."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from duplex.cpu import kernels, products
from tests.cpu.reference import rounded

# All that they call is compiled first.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 13])
def test_product_is_that_of_rounded_weights(rows):
    """With a channel fifty times the others, as in a language model, and no whole lanes."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(70, 37)
    x = torch.randn(rows, 70)
    x[:, 7] *= 50
    weights = products.pack(linear.weight, linear.bias)
    y = products.int8_matmul(x.numpy(), weights)
    expected = rounded(linear, ("weight",))(x).detach()
    assert y.shape == (rows, 48)
    np.testing.assert_allclose(y[:, :37], expected, atol=2e-3 * float(expected.std()))


def test_row_does_not_depend_on_the_others():
    torch.manual_seed(0)
    x = torch.randn(13, 70).numpy()
    weights = products.pack(torch.randn(37, 70))
    y = products.int8_matmul(x, weights)
    for row in range(len(x)):
        assert np.array_equal(products.int8_matmul(x[row : row + 1], weights), y[row : row + 1])


def test_product_with_zeros_is_the_bias():
    weights = products.pack(torch.randn(16, 16), torch.ones(16))
    y = products.int8_matmul(np.zeros((2, 16), np.float32), weights)
    assert np.array_equal(y, np.ones((2, 16)))


def test_sums_that_need_more_than_32_bits_are_right():
    """All activations and all weights are as great as they can be, in rows that are long."""
    weights = products.pack(torch.ones(16, 8960))
    y = products.int8_matmul(np.full((5, 8960), -3.0, np.float32), weights)
    np.testing.assert_allclose(y, -3.0 * 8960, rtol=1e-3)


def test_rows_that_fill_no_lanes_are_an_error():
    with pytest.raises(ValueError, match="20 rows of weights are no multiple of 16: .* float32"):
        products.pack_stack([torch.randn(20, 16)])


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


def test_compiled_code_is_kept_for_each_state_of_the_sources(tmp_path, monkeypatch):
    """A change in any file of duplex.cpu leads to another folder."""
    for path in Path(kernels.__file__).parent.glob("*.py"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "kernels.py"))
    before = kernels.compiled_folder()
    assert before == kernels.COMPILED
    with open(tmp_path / "attention.py", "a") as file:
        file.write("# Changed.\n")
    assert kernels.compiled_folder() != before
