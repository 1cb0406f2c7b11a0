"""8-bit weights on a CPU: a tick is one pass over all weights, so its time is the time to read and multiply them."""

import warnings

import torch
from torch import nn

from duplex.lm import LM
from duplex.talker import Talker

INT8_ENGINE = "x86"  # integer products (VNNI) several times as fast as PyTorch's kernel for 8-bit weights alone


class Int8Linear(nn.Module):
    """y = x W' + b, W in 8 bits with one scale a row. x [..., in] -> y [..., out].

    Where the processor multiplies integers, a row of x becomes two of 8 bits, its coarse and its fine digits, for the LM's
    activations have a few values many times the others; a second row hardly costs time, since reading W does.
    A row's result does not depend on the other rows: batches and drafts change nothing.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None):
        super().__init__()
        self.bias = bias
        scale = (weight.float().abs().amax(1) / 127).clamp(min=1e-8)
        rounded = (weight.float() / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        self.packed = None
        if INT8_ENGINE in torch.backends.quantized.supported_engines:
            torch.backends.quantized.engine = INT8_ENGINE
            zeros = torch.zeros(len(scale), dtype=torch.int64)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch announces the end of such tensors; the product below has no other entry
                quantized = torch._make_per_channel_quantized_tensor(rounded, scale.double(), zeros, 0)
            self.packed = torch.ops.quantized.linear_prepack(quantized, None)
        else:
            self.register_buffer("weight", rounded)
            self.register_buffer("scale", scale.to(torch.bfloat16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.packed is None:
            y = torch._weight_int8pack_mm(x.flatten(0, -2).to(torch.bfloat16), self.weight, self.scale)
            y = y.view(*x.shape[:-1], -1).to(x.dtype)
        else:
            single = x.float()
            unit = single.abs().amax(-1, keepdim=True).clamp_(min=1e-8).mul_(1 / 127)
            coarse = single / unit
            fine = (coarse - coarse.round()).mul_(254)
            digits = torch.cat([coarse, fine])
            y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(digits, 1.0, 128, self.packed)
            coarse, fine = y.chunk(2)
            y = torch.add(coarse, fine, alpha=1 / 254).mul_(unit).to(x.dtype)
        return y if self.bias is None else y + self.bias


def quantize(module: nn.Module) -> nn.Module:
    """Replace the weights of all linear layers by 8-bit ones, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            bias = None if child.bias is None else child.bias.data
            setattr(module, name, Int8Linear(child.weight.data, bias))
        else:
            quantize(child)
    return module


def quantize_lm(lm: LM) -> LM:
    """The same for a merged LM, its tied embedding as the output layer included."""
    for block in lm.blocks:
        for name in ("qkv", "out", "gate_up", "down"):
            setattr(block, name, Int8Linear(getattr(block, name).weight.data))
    lm.text_out = Int8Linear(lm.embedding.data)
    return lm


def quantize_talker(talker: Talker) -> Talker:
    """The same for what a talker runs on every frame: its blocks and the networks of its head."""
    quantize(talker.blocks)
    head = talker.head
    pairs = zip(head.inner.data, head.outer.data, head.bias.data, strict=True)
    head.networks = nn.ModuleList(nn.ModuleList([Int8Linear(i.T), Int8Linear(o.T, bias[0])]) for i, o, bias in pairs)
    return talker
