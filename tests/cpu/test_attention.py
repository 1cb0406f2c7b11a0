"""Attention over a cache's cells is torch's; 16 bits are those of bfloat16."""

import numpy as np
import pytest
import torch
from numba import njit

from duplex.cpu import attention
from tests.cpu.reference import cells_and_queries

# All that they call is compiled first.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_is_that_of_torch(dtype):
    given, expected = cells_and_queries(dtype)
    y = np.empty_like(expected)
    attention.attend_cells(*given, y)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_sixteen_bits_are_those_of_bfloat16():
    half_way = torch.tensor([0.0, 1.00390625, 1.01171875, -3e38, 1e-30])
    x = torch.cat([torch.randn(1000) * 100, half_way])
    y = np.array([round_trip(value) for value in x.numpy()])
    assert np.array_equal(y, x.bfloat16().float().numpy())


@njit
def round_trip(x):
    return attention.to_float32(attention.to_storage(x, np.uint16(0)))
