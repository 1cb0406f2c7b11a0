"""The encoder's tick as one compiled function with weights in 8 bits (duplex.cpu.kernels); the sums are those of duplex.model.encoder."""

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import nn

from duplex.cpu.attention import attend
from duplex.cpu.kernels import (
    OPTIONS,
    Weights,
    gelu,
    layer,
    layer_norm,
    multiply,
    product,
    room,
    stack,
)
from duplex.model.encoder import Encoder


class Parts(NamedTuple):
    conv1: Weights
    conv2: Weights
    offset: np.ndarray  # [C]
    norm1: np.ndarray  # [layers, 2, C]: weight and bias
    norm2: np.ndarray
    qkv: Weights  # of all blocks, one above the other
    out: Weights
    up: Weights
    down: Weights
    distance_bias: np.ndarray  # [layers, heads, window]


@njit(**OPTIONS)
def convolve(x, w, step):
    """x [B, T, C], kernels of three frames, one every `step` -> gelu of [B, T', rows]"""
    slots, frames, width = x.shape[0], (x.shape[1] - 3) // step + 1, x.shape[2]
    patches = np.empty((slots, frames, width, 3), np.float32)
    for i in range(3):
        patches[..., i] = x[:, i : i + (frames - 1) * step + 1 : step]
    y = product(patches.reshape(slots * frames, width * 3), w)
    gelu(y)
    return y.reshape(slots, frames, -1)


@njit(**OPTIONS)
def call(mel, mel_tail, conv_tail, keys, values, filled, cursor, parts):
    """See Encoder.tick."""
    slots, layers, heads, ring, head_width = (
        mel.shape[0],
        keys.shape[0],
        keys.shape[2],
        keys.shape[3],
        keys.shape[4],
    )
    mel = np.concatenate((mel_tail, mel), 1)
    middle = np.concatenate((conv_tail, convolve(mel, layer(parts.conv1, 0), 1)), 1)
    frames = convolve(middle, layer(parts.conv2, 0), 2) + parts.offset
    count, width = frames.shape[1], frames.shape[2]
    x, window = frames.reshape(slots * count, width), parts.distance_bias.shape[2]
    normed, scores, seen = (
        np.empty_like(x),
        np.empty(window, np.float32),
        np.empty(window, np.int64),
    )
    mixed = np.empty((len(x), heads, head_width), np.float32)
    qkv_room, out_room = room(len(x), layer(parts.qkv, 0)), room(len(x), layer(parts.out, 0))
    up_room, down_room = room(len(x), layer(parts.up, 0)), room(len(x), layer(parts.down, 0))
    for i in range(layers):
        layer_norm(x, parts.norm1[i, 0], parts.norm1[i, 1], normed)
        multiply(normed, layer(parts.qkv, i), *qkv_room)
        qkv = qkv_room[-1].reshape(slots, count, 3, heads, head_width)
        for slot in range(slots):
            for row in range(count):
                keys[i, slot, :, cursor + row], values[i, slot, :, cursor + row] = (
                    qkv[slot, row, 1],
                    qkv[slot, row, 2],
                )
            for row in range(count):
                reach = min(filled[slot] + row + 1, window)
                for distance in range(reach):
                    seen[distance] = (cursor + row - distance) % ring
                y = mixed[slot * count + row]
                attend(
                    qkv[slot, row, 0],
                    keys[i, slot],
                    values[i, slot],
                    seen[:reach],
                    parts.distance_bias[i],
                    scores,
                    y,
                )
        multiply(mixed.reshape(len(x), width), layer(parts.out, i), *out_room)
        x += out_room[-1]
        layer_norm(x, parts.norm2[i, 0], parts.norm2[i, 1], normed)
        multiply(normed, layer(parts.up, i), *up_room)
        gelu(up_room[-1])
        multiply(up_room[-1], layer(parts.down, i), *down_room)
        x += down_room[-1]
    return (
        x.reshape(frames.shape),
        mel[:, -mel_tail.shape[1] :].copy(),
        middle[:, -conv_tail.shape[1] :].copy(),
    )


def compile_encoder(encoder: Encoder) -> Encoder:
    """Replace `tick` by a compiled one with copies of the weights in 8 bits."""
    config, blocks = encoder.config, encoder.blocks

    def products(name: str) -> Weights:
        linears = [getattr(block, name) for block in blocks]
        return stack([linear.weight for linear in linears], [linear.bias for linear in linears])

    def norms(name: str) -> np.ndarray:
        found: list[nn.LayerNorm] = [getattr(block, name) for block in blocks]
        return (
            torch.stack([torch.stack([norm.weight.data, norm.bias.data]) for norm in found])
            .float()
            .numpy()
        )

    parts = Parts(
        conv1=stack([encoder.conv1.weight.flatten(1)], [encoder.conv1.bias]),
        conv2=stack([encoder.conv2.weight.flatten(1)], [encoder.conv2.bias]),
        offset=encoder.offset.detach().float().numpy(),
        norm1=norms("norm1"),
        norm2=norms("norm2"),
        **{name: products(name) for name in ("qkv", "out", "up", "down")},
        distance_bias=torch.stack([block.distance_bias.data for block in blocks]).float().numpy(),
    )

    def tick(mel, mel_tail, conv_tail, keys, values, filled, cursor):
        arrays = [
            np.ascontiguousarray(given.float().numpy()) for given in (mel, mel_tail, conv_tail)
        ]
        found = call(*arrays, keys.numpy(), values.numpy(), filled.numpy(), int(cursor), parts)
        x, mel_tail, conv_tail = (torch.from_numpy(array) for array in found)
        return x, mel_tail, conv_tail, (filled + x.shape[1]).clamp(max=config.window)

    object.__setattr__(encoder, "tick", tick)
    return encoder
