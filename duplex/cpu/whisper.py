"""Whisper's decoder with weights in 8 bits: its time for a token is that of reading its weights.

The encoder, which reads its weights once a clip, stays as it is. torch's own product is used, not
that of duplex.cpu.kernels: it is run by a thread beside the ticks, which must not share the helper,
and reads the large output layer faster.
"""

import copy

import torch
from torch import Tensor, nn

from duplex.model.asr.whisper import Whisper


class Int8Linear(nn.Module):
    """x [..., in] -> x W' + b [..., out], with W in 8 bits and a scale for each row of it."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        scale = weight.abs().amax(1).clamp(min=1e-9) / 127
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.bfloat16())
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """x of any type -> float32."""
        rows = x.flatten(0, -2).bfloat16()
        y = torch._weight_int8pack_mm(rows, self.weight, self.scale).float()
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], -1)


def compress(whisper: Whisper) -> Whisper:
    """The same Whisper, whose decoder has its linear layers and the output layer in 8 bits."""
    smaller = copy.copy(whisper)
    smaller._modules = dict(whisper._modules)
    decoder = copy.deepcopy(whisper.decoder)
    for module in list(decoder.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.Linear):
                setattr(module, name, Int8Linear(layer.weight, layer.bias))
    decoder.output = Int8Linear(decoder.embedding)
    smaller.decoder = decoder
    return smaller
