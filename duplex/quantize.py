"""8-bit weights for the LM on a CPU: a tick is one pass over all weights, so its time is the time to read them."""

import torch
from torch import nn
from torch.nn import functional as F

from duplex.lm import LM
from duplex.tokens import FIRST_TEXT_ID


class Int8Linear(nn.Module):
    """y = x W', W in 8 bits with one scale a row. x [..., in] -> y [..., out]."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        scale = (weight.float().abs().amax(1) / 127).clamp(min=1e-8)
        self.register_buffer("weight", (weight.float() / scale[:, None]).round().clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale", scale.to(torch.bfloat16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
        return torch._weight_int8pack_mm(flat, self.weight, self.scale).view(*x.shape[:-1], -1).to(x.dtype)


class Int8Head(nn.Module):
    """The tied embedding as the output layer; control tokens keep their own rows in full precision."""

    def __init__(self, lm: LM):
        super().__init__()
        self.text = Int8Linear(lm.embedding.data)
        self.control = lm.control_out

    def forward(self, hidden: torch.Tensor, text: bool = True) -> torch.Tensor:
        """See `LM.logits`."""
        controls = F.linear(hidden, self.control.to(hidden.dtype)).float()
        if not text:
            return controls
        scores = self.text(hidden).float()
        scores[..., :FIRST_TEXT_ID] = controls
        return scores


def quantize(lm: LM) -> LM:
    """Replace the weights of a merged LM by 8-bit ones, in place."""
    for block in lm.blocks:
        for name in ("qkv", "out", "gate_up", "down"):
            setattr(block, name, Int8Linear(getattr(block, name).weight.data))
    lm.logits = Int8Head(lm)
    return lm
