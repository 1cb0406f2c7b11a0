"""The encoder's tick as one compiled function, weights in 8 bits; the sums are those of
model.encoder.

Letters in shapes: B slots, T frames, C width.
"""

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import nn

from duplex.cpu.attention import Reach, attend_ring
from duplex.cpu.kernels import OPTIONS, gelu, layer_norm
from duplex.cpu.products import (
    Int8Weights,
    int8_matmul,
    int8_matmul_into,
    layer,
    pack_stack,
    workspace,
)
from duplex.model.asr.encoder import Encoder, EncoderState, advance


class PackedWeights(NamedTuple):
    """The weights of the convolutions, and of all blocks one above the other."""

    conv1: Int8Weights
    conv2: Int8Weights
    offset: np.ndarray  # [C]
    norm1: np.ndarray  # [layers, 2, C]: weight and bias
    norm2: np.ndarray  # [layers, 2, C]
    qkv: Int8Weights
    out: Int8Weights
    up: Int8Weights
    down: Int8Weights
    distance_bias: np.ndarray  # [layers, heads, window]


class RingState(NamedTuple):
    """An EncoderState as arrays."""

    mel_tail: np.ndarray  # [B, 2, 80]
    conv_tail: np.ndarray  # [B, 1, C]
    keys: np.ndarray  # [layers, B, heads, ring, head width]
    values: np.ndarray  # [layers, B, heads, ring, head width]
    filled: np.ndarray  # [B]
    cursor: int


@njit(**OPTIONS)
def convolve(x, w, step):
    """x [B, T, C], kernels of three frames, one every `step` -> gelu of [B, T', rows]."""
    slots, frames, width = x.shape[0], (x.shape[1] - 3) // step + 1, x.shape[2]
    patches = np.empty((slots, frames, width, 3), np.float32)
    for i in range(3):
        patches[..., i] = x[:, i : i + (frames - 1) * step + 1 : step]
    y = int8_matmul(patches.reshape(slots * frames, width * 3), w)
    gelu(y)
    return y.reshape(slots, frames, -1)


@njit(**OPTIONS)
def attend(i, qkv, state, bias, mixed):
    """Write a tick's keys and values to the ring of layer i, and attend to what is in reach.

    Args:
        qkv: [B, T, 3, heads, head width].
        bias: [heads, window] by distance.
        mixed: [B T, heads, head width] is filled with what attention finds.
    """
    slots, count = qkv.shape[:2]
    keys, values, cursor = state.keys[i], state.values[i], state.cursor
    ring, window = keys.shape[2], bias.shape[1]
    scores = np.empty(window, np.float32)
    seen = np.empty(window, np.int64)
    for slot in range(slots):
        for row in range(count):
            keys[slot, :, cursor + row] = qkv[slot, row, 1]
            values[slot, :, cursor + row] = qkv[slot, row, 2]
        for row in range(count):
            near = min(state.filled[slot] + row + 1, window)
            for distance in range(near):
                seen[distance] = (cursor + row - distance) % ring
            reach = Reach(seen[:near], bias, scores)
            y = mixed[slot * count + row]
            attend_ring(qkv[slot, row, 0], keys[slot], values[slot], reach, y)


@njit(**OPTIONS)
def tick(mel, state, weights):
    """See Encoder.tick. Returns frames [B, T, C], `early` [B, T, 2C] and the new tails."""
    layers, slots, heads, _, head_width = state.keys.shape
    mel = np.concatenate((state.mel_tail, mel), 1)
    middle = np.concatenate((state.conv_tail, convolve(mel, layer(weights.conv1, 0), 1)), 1)
    frames = convolve(middle, layer(weights.conv2, 0), 2) + weights.offset
    count, width = frames.shape[1], frames.shape[2]
    x = frames.reshape(slots * count, width)
    early = np.empty((len(x), 2 * width), np.float32)
    early[:, :width] = x
    normed = np.empty_like(x)
    mixed = np.empty((len(x), heads, head_width), np.float32)
    qkv_space = workspace(len(x), layer(weights.qkv, 0))
    out_space = workspace(len(x), layer(weights.out, 0))
    up_space = workspace(len(x), layer(weights.up, 0))
    down_space = workspace(len(x), layer(weights.down, 0))
    for i in range(layers):
        layer_norm(x, weights.norm1[i, 0], weights.norm1[i, 1], normed)
        int8_matmul_into(normed, layer(weights.qkv, i), qkv_space)
        qkv = qkv_space.y.reshape(slots, count, 3, heads, head_width)
        attend(i, qkv, state, weights.distance_bias[i], mixed)
        int8_matmul_into(mixed.reshape(len(x), width), layer(weights.out, i), out_space)
        x += out_space.y
        layer_norm(x, weights.norm2[i, 0], weights.norm2[i, 1], normed)
        int8_matmul_into(normed, layer(weights.up, i), up_space)
        gelu(up_space.y)
        int8_matmul_into(up_space.y, layer(weights.down, i), down_space)
        x += down_space.y
        if i == 0:
            early[:, width:] = x
    early = early.reshape(slots, count, 2 * width)
    next_mel_tail = mel[:, -state.mel_tail.shape[1] :].copy()
    next_conv_tail = middle[:, -state.conv_tail.shape[1] :].copy()
    return x.reshape(frames.shape), early, next_mel_tail, next_conv_tail


class CompiledEncoder:
    """Stands in for an Encoder that hears ticks; its sums are compiled, its heads are shared."""

    def __init__(self, encoder: Encoder):
        self.config = encoder.config
        self.initial_state = encoder.initial_state
        self.heads = encoder.heads
        self.weights = pack_encoder(encoder)

    def step(self, mel: torch.Tensor, state: EncoderState):
        """See Encoder.step."""
        return self.heads(advance(self.tick, mel, state)), state

    def tick(self, mel: torch.Tensor, state: EncoderState) -> torch.Tensor:
        """See Encoder.tick."""
        mel, *tails = (
            np.ascontiguousarray(part.float().numpy())
            for part in (mel, state.mel_tail, state.conv_tail)
        )
        ring = state.keys.numpy(), state.values.numpy(), state.filled.numpy(), state.cursor
        found = tick(mel, RingState(*tails, *ring), self.weights)
        x, state.early, state.mel_tail, state.conv_tail = map(torch.from_numpy, found)
        return x


def pack_encoder(encoder: Encoder) -> PackedWeights:
    """The weights of an encoder's convolutions and blocks in 8 bits."""

    def products(name: str) -> Int8Weights:
        linears = [getattr(block, name) for block in encoder.blocks]
        return pack_stack(
            [linear.weight for linear in linears], [linear.bias for linear in linears]
        )

    def norms(name: str) -> np.ndarray:
        found: list[nn.LayerNorm] = [getattr(block, name) for block in encoder.blocks]
        pairs = [torch.stack([norm.weight.data, norm.bias.data]) for norm in found]
        return torch.stack(pairs).float().numpy()

    biases = [block.distance_bias.data for block in encoder.blocks]
    return PackedWeights(
        conv1=pack_stack([encoder.conv1.weight.flatten(1)], [encoder.conv1.bias]),
        conv2=pack_stack([encoder.conv2.weight.flatten(1)], [encoder.conv2.bias]),
        offset=encoder.offset.detach().float().numpy(),
        norm1=norms("norm1"),
        norm2=norms("norm2"),
        qkv=products("qkv"),
        out=products("out"),
        up=products("up"),
        down=products("down"),
        distance_bias=torch.stack(biases).float().numpy(),
    )
