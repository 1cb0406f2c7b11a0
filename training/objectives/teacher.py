"""Whisper's own encoder: where the causal encoder starts from, and its teacher at first.

The teacher hears the whole clip in both directions. It uses the blocks of our encoder (the
arithmetic is the same) with Whisper's absolute positions instead of the bias of distance.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duplex.audio import ENCODER_FRAMES_PER_TICK
from duplex.model.asr.ctranslate2 import read_tensors
from duplex.model.asr.encoder import Encoder, EncoderConfig
from duplex.model.asr.features import TAIL_SAMPLES, log_power, normalise


def load_whisper(encoder: Encoder, path: str | Path) -> Tensor:
    """Fill the encoder with Whisper's weights, as far as they go.

    path: CTranslate2's model.bin. Returns Whisper's position vectors [1500, C].
    """
    stored = read_tensors(path, "encoder/")
    names = {name: name for name in ("conv1", "conv2")} | {"norm": "layer_norm"}
    # Our names inside a layer -> Whisper's.
    layer = {
        "norm1": "self_attention/layer_norm",
        "qkv": "self_attention/linear_0",
        "out": "self_attention/linear_1",
        "norm2": "ffn/layer_norm",
        "up": "ffn/linear_0",
        "down": "ffn/linear_1",
    }
    for i in range(encoder.config.layers):
        names |= {f"blocks.{i}.{ours}": f"layer_{i}/{name}" for ours, name in layer.items()}
    weights = {}
    for ours, theirs in names.items():
        for kind, other in (("weight", "gamma"), ("bias", "beta")):
            key = f"encoder/{theirs}/{kind}"
            array = stored[key] if key in stored else stored[f"encoder/{theirs}/{other}"]
            weights[f"{ours}.{kind}"] = torch.from_numpy(array.astype(np.float32))
    missing, unexpected = encoder.load_state_dict(weights, strict=False)
    lacking = [name for name in missing if "weight" in name and "phones" not in name]
    assert not unexpected and not lacking, (lacking, unexpected)
    return torch.from_numpy(stored["encoder/position_encodings/encodings"].astype(np.float32))


class Teacher(nn.Module):
    """Whisper's encoder, frozen. T is the number of encoder frames, C the width."""

    def __init__(self, path: str | Path):
        super().__init__()
        self.encoder = Encoder(EncoderConfig())
        self.positions = load_whisper(self.encoder, path)
        self.requires_grad_(False).eval()

    def mel(self, wave: Tensor) -> Tensor:
        """wave [B, N * 240] -> log-mel measured from the loudest moment of each clip [B, N, 80]."""
        power = log_power(F.pad(wave, (TAIL_SAMPLES, 0)))
        return normalise(power, power.amax((1, 2))[:, None].expand(-1, power.shape[1]))

    def embed(self, mel: Tensor) -> Tensor:
        """mel [B, 2 T, 80] -> frames with positions [B, T, C]."""
        first = self.encoder.conv1
        second = self.encoder.conv2
        x = F.gelu(F.conv1d(mel.transpose(1, 2), first.weight, first.bias, padding=1))
        x = F.gelu(F.conv1d(x, second.weight, second.bias, stride=2, padding=1))
        return x.transpose(1, 2) + self.positions[: x.shape[2]]

    def forward(self, mel: Tensor, ticks: Tensor) -> Tensor:
        """mel [B, 2 T, 80], clip lengths [B] -> Whisper's features [B, T, C].

        They are of no use beyond a clip's end.
        """
        x = self.embed(mel)
        inside = torch.arange(x.shape[1]) < ticks[:, None] * ENCODER_FRAMES_PER_TICK  # [B, T]
        bias = torch.zeros(len(x), 1, 1, x.shape[1])
        bias = bias.masked_fill(~inside[:, None, None], -torch.inf)
        for block in self.encoder.blocks:
            x = block.attend(x, *block.project(x), bias)
        return self.encoder.norm(x)

    def attention_by_distance(self, mel: Tensor, window: int) -> Tensor:
        """Mean attention logit to the frame d steps back, measured on mel [B, 2 T, 80].

        Returns [layers, heads, window]. The student cannot know positions; this is what it knows
        instead, before it learns better.
        """
        x = self.embed(mel)
        nobody = torch.zeros(1, 1, 1, x.shape[1])
        means = []
        for block in self.encoder.blocks:
            q, k, v = block.project(x)
            logits = (q @ k.transpose(2, 3)).mean(0) / q.shape[-1] ** 0.5  # [heads, T, T]
            reach = min(window, x.shape[1] // 2)
            near = [logits.diagonal(-d, 1, 2).mean(1) for d in range(reach)]
            means.append(torch.stack(near + near[-1:] * (window - len(near)), 1))
            x = block.attend(x, q, k, v, nobody)
        bias = torch.stack(means)
        return bias - bias.amax(2, keepdim=True)
