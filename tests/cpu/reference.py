"""In torch: what 8 bits do to weights, and attention over the cells of a cache."""

import copy

import numpy as np
import torch
from torch.nn import functional as F

from duplex.cpu.attention import Cells


def round_rows(matrix: torch.Tensor) -> torch.Tensor:
    """Rows of 255 steps, as `products.pack` makes them: matrix [..., out, in]."""
    step = matrix.abs().amax(-1, keepdim=True).clamp(min=1e-8) / 127
    return torch.round(matrix / step) * step


def rounded(module: torch.nn.Module, names: tuple[str, ...]) -> torch.nn.Module:
    """A copy of a network whose matrices of these names are rounded."""
    module = copy.deepcopy(module)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 and any(part in name for part in names):
            is_convolution = parameter.ndim == 3 and "conv" in name
            matrix = parameter.data.flatten(1) if is_convolution else parameter.data
            parameter.data.copy_(round_rows(matrix).view_as(parameter))
    return module


def assert_near(ours: torch.Tensor, theirs: torch.Tensor, share: float) -> None:
    """The difference is at most so large a share of what is compared."""
    assert ours.shape == theirs.shape
    assert float((ours - theirs).detach().norm() / theirs.detach().norm()) < share


def cells_and_queries(dtype: torch.dtype) -> tuple[tuple, np.ndarray]:
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
    there = Cells(*(part.numpy() for part in stored), slots, hidden.numpy())
    return (qkv.numpy(), there, np.empty(cells, np.float32)), expected.numpy()
