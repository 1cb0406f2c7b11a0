"""Whisper's own encoder: where the causal encoder starts from, and the teacher that it listens to at first.

The teacher hears the whole clip in both directions. It uses the blocks of our encoder (the arithmetic is the same) with
Whisper's absolute positions instead of the bias of distance.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from duplex.audio import ENCODER_FRAMES_PER_TICK
from duplex.model.ctranslate2 import read_tensors
from duplex.model.encoder import Encoder, EncoderConfig
from duplex.model.features import TAIL_SAMPLES, log_power, normalise

# ours -> Whisper's, inside a layer
LAYER_NAMES = {
    "norm1": "self_attention/layer_norm",
    "qkv": "self_attention/linear_0",
    "out": "self_attention/linear_1",
    "norm2": "ffn/layer_norm",
    "up": "ffn/linear_0",
    "down": "ffn/linear_1",
}


def load_whisper(encoder: Encoder, path: str | Path) -> torch.Tensor:
    """Fill the encoder with Whisper's weights, as far as they go -> Whisper's position vectors [1500, C]."""
    tensors = read_tensors(path, "encoder/")
    weights = {}

    def take(ours: str, theirs: str) -> None:
        for kind, names in (("weight", ("weight", "gamma")), ("bias", ("bias", "beta"))):
            array = next(
                tensors[f"encoder/{theirs}/{name}"]
                for name in names
                if f"encoder/{theirs}/{name}" in tensors
            )
            weights[f"{ours}.{kind}"] = torch.from_numpy(array.astype(np.float32))

    take("conv1", "conv1"), take("conv2", "conv2"), take("norm", "layer_norm")
    for i in range(encoder.config.layers):
        for ours, theirs in LAYER_NAMES.items():
            take(f"blocks.{i}.{ours}", f"layer_{i}/{theirs}")
    missing, unexpected = encoder.load_state_dict(weights, strict=False)
    assert not unexpected and not any("weight" in m and "phones" not in m for m in missing), (
        missing,
        unexpected,
    )
    return torch.from_numpy(tensors["encoder/position_encodings/encodings"].astype(np.float32))


class Teacher(nn.Module):
    def __init__(self, path: str | Path):
        super().__init__()
        self.encoder = Encoder(EncoderConfig())
        self.positions = load_whisper(self.encoder, path)
        self.requires_grad_(False).eval()

    def mel(self, wave: torch.Tensor) -> torch.Tensor:
        """wave [B, N*240] -> log-mel measured from the loudest moment of each clip [B, N, 80]."""
        power = log_power(F.pad(wave, (TAIL_SAMPLES, 0)))
        return normalise(power, power.amax((1, 2))[:, None].expand(-1, power.shape[1]))

    def embed(self, mel: torch.Tensor) -> torch.Tensor:
        """mel [B, 2T, 80] -> frames with positions [B, T, C]."""
        x = F.gelu(
            F.conv1d(
                mel.transpose(1, 2), self.encoder.conv1.weight, self.encoder.conv1.bias, padding=1
            )
        )
        x = F.gelu(
            F.conv1d(x, self.encoder.conv2.weight, self.encoder.conv2.bias, stride=2, padding=1)
        )
        return x.transpose(1, 2) + self.positions[: x.shape[2]]

    def forward(self, mel: torch.Tensor, ticks: torch.Tensor) -> torch.Tensor:
        """mel [B, 2T, 80], clip lengths [B] -> Whisper's features [B, T, C], of no use beyond a clip's end."""
        x = self.embed(mel)
        inside = torch.arange(x.shape[1]) < ticks[:, None] * ENCODER_FRAMES_PER_TICK  # [B, T]
        bias = torch.zeros(len(x), 1, 1, x.shape[1]).masked_fill(~inside[:, None, None], -torch.inf)
        for block in self.encoder.blocks:
            x = block.attend(x, *block.project(x), bias)
        return self.encoder.norm(x)

    def attention_by_distance(self, mel: torch.Tensor, window: int) -> torch.Tensor:
        """Mean attention logit to the frame d steps back, measured on mel [B, 2T, 80] -> [layers, heads, window].

        The student cannot know positions; this is what it knows instead, before it learns better.
        """
        x, means = self.embed(mel), []
        nobody = torch.zeros(1, 1, 1, x.shape[1])
        for block in self.encoder.blocks:
            q, k, v = block.project(x)
            logits = (q @ k.transpose(2, 3)).mean(0) / q.shape[-1] ** 0.5  # [heads, T, T]
            near = [logits.diagonal(-d, 1, 2).mean(1) for d in range(min(window, x.shape[1] // 2))]
            means.append(torch.stack(near + near[-1:] * (window - len(near)), 1))
            x = block.attend(x, q, k, v, nobody)
        bias = torch.stack(means)
        return bias - bias.amax(2, keepdim=True)
