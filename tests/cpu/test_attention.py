"""Attention over a cache's cells is torch's; 16 bits are those of bfloat16."""

import numpy as np
import pytest
import torch
from numba import njit
from torch.nn import functional as F

from duplex.cpu import attention


def cells_and_queries(dtype: torch.dtype) -> tuple[list[np.ndarray], np.ndarray]:
    """Five rows of two slots over 40 cells, of which each row sees others.

    Returns the arguments of attend_cells but the last, and torch's result.
    """
    torch.manual_seed(0)
    slots = np.array([0, 0, 2, 2, 2])
    batch, kv_heads, width, cells, seen = 3, 2, 16, 48, 40
    qkv = torch.randn(5, 6 + 2 * kv_heads, width)
    keys, values = (torch.randn(batch, kv_heads, cells, width).to(dtype) for _ in range(2))
    visible = torch.rand(5, seen) < 0.5
    visible[:, 0] = True
    k, v = (part[slots, :, :seen].float().repeat_interleave(3, 1) for part in (keys, values))
    mask = visible[:, None, None]
    expected = F.scaled_dot_product_attention(qkv[:, :6, None], k, v, attn_mask=mask)[:, :, 0]
    hidden = torch.zeros(5, seen).masked_fill(~visible, -torch.inf)
    stored = [keys.transpose(2, 3).contiguous(), values]
    if dtype == torch.bfloat16:
        stored = [part.view(torch.uint16) for part in stored]
    arrays = [qkv.numpy(), *(part.numpy() for part in stored), slots, hidden.numpy()]
    return [*arrays, np.empty(cells, np.float32)], expected.numpy()


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
