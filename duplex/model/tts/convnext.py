"""ConvNeXt blocks over frames with left context only; each convolution's past is explicit.

Letters in shapes: B slots, T frames, C width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def join(x: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
    """x [B, T, C] after its history [B, H, C] -> both [B, H + T, C], the next history [B, H, C]."""
    x = torch.cat([history.to(x.dtype), x], dim=1)
    return x, x[:, x.shape[1] - history.shape[1] :].to(history.dtype, copy=True)


class FrameConv(nn.Module):
    """Convolution over frames that sees the frame and the `kernel - 1` before it."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__()
        self.kernel = kernel
        self.linear = nn.Linear(inputs * kernel, outputs)

    def step(self, x: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, inputs], history [B, kernel - 1, inputs] -> y [B, T, outputs], history."""
        x, history = join(x, history)
        patches = x.unfold(1, self.kernel, 1).flatten(2)  # [B, T, inputs * kernel]
        return self.linear(patches), history


class ChannelConv(nn.Module):
    """The same with each channel by itself.

    It is a weighted sum of shifted copies, by far the fastest way on a CPU.
    """

    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(kernel, width).uniform_(-1, 1) / kernel**0.5)
        self.bias = nn.Parameter(torch.zeros(width))

    def step(self, x: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, C], history [B, kernel - 1, C] -> y [B, T, C], history."""
        frames = x.shape[1]
        x, history = join(x, history)
        y = self.bias
        for shift, weight in enumerate(self.weight):
            y = torch.addcmul(y, x[:, shift : shift + frames], weight)
        return y, history


class Block(nn.Module):
    """A convolution over time for each channel, then a network over channels for each frame, added
    to x (ConvNeXt, arXiv 2201.03545)."""

    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.mix = ChannelConv(width, kernel)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 3 * width)
        self.down = nn.Linear(3 * width, width)
        self.layer_scale = nn.Parameter(torch.full((width,), 0.3))

    def step(self, x: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, C], history [B, kernel - 1, C] -> x, history."""
        y, history = self.mix.step(x, history)
        return x + self.layer_scale * self.down(F.gelu(self.up(self.norm(y)))), history
