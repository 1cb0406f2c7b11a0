"""The vocoder's network as one compiled function with weights in 8 bits (duplex.cpu.kernels); the sums are those of duplex.model.vocoder."""

from typing import NamedTuple

import numpy as np
import torch
from numba import njit

from duplex.cpu.kernels import (
    OPTIONS,
    Weights,
    gelu,
    layer,
    layer_norm,
    multiply,
    pack,
    product,
    room,
    stack,
)
from duplex.model.vocoder import FrameDecoder


class Parts(NamedTuple):
    input: Weights
    first_norm: np.ndarray  # [2, C]: weight and bias
    mix: np.ndarray  # [blocks, kernel, C]
    mix_bias: np.ndarray  # [blocks, C]
    norm: np.ndarray  # [blocks, 2, C]
    up: Weights  # of all blocks, one above the other
    down: Weights  # layer_scale included
    last_norm: np.ndarray  # [2, C]
    output: Weights


@njit(**OPTIONS)
def call(latent, first_history, histories, parts):
    """latent [B, T, D], first_history [B, kernel - 1, D], histories [blocks, B, kernel - 1, C] -> the normed frames [B T, C], what
    `to_spectrum` makes of them, and the next histories."""
    slots, frames, inputs = latent.shape
    kernel, width = parts.mix.shape[1], parts.mix.shape[2]
    given = np.concatenate((first_history, latent), 1)
    patches = np.empty((slots, frames, inputs, kernel), np.float32)
    for shift in range(kernel):
        patches[..., shift] = given[:, shift : shift + frames]
    y = product(patches.reshape(slots * frames, inputs * kernel), layer(parts.input, 0))
    x = np.empty_like(y)
    layer_norm(y, parts.first_norm[0], parts.first_norm[1], x)
    next_histories = np.empty_like(histories)
    up_room, down_room = room(len(x), layer(parts.up, 0)), room(len(x), layer(parts.down, 0))
    for i in range(parts.mix.shape[0]):
        whole = np.concatenate((histories[i], x.reshape(slots, frames, width)), 1)
        next_histories[i] = whole[:, frames:]
        for slot in range(slots):
            for frame in range(frames):
                row = y[slot * frames + frame]
                row[:] = parts.mix_bias[i]
                for shift in range(kernel):
                    before, weight = whole[slot, frame + shift], parts.mix[i, shift]
                    for j in range(width):
                        row[j] += before[j] * weight[j]
        layer_norm(y, parts.norm[i, 0], parts.norm[i, 1], y)
        multiply(y, layer(parts.up, i), *up_room)
        gelu(up_room[-1])
        multiply(up_room[-1], layer(parts.down, i), *down_room)
        x += down_room[-1]
    layer_norm(x, parts.last_norm[0], parts.last_norm[1], y)
    return y, product(y, parts.output), given[:, frames:].copy(), next_histories


def compile_vocoder(decoder: FrameDecoder) -> FrameDecoder:
    """Replace the network by a compiled one with copies of the weights in 8 bits."""
    blocks = decoder.blocks

    def pair(norm: torch.nn.LayerNorm) -> torch.Tensor:
        return torch.stack([norm.weight.data, norm.bias.data]).float()

    def above(tensors: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(tensors).detach().float()

    first, spectrum = decoder.from_latent.linear, decoder.to_spectrum
    scaled = [block.layer_scale for block in blocks]
    parts = Parts(
        input=stack([first.weight], [first.bias]),
        first_norm=pair(decoder.first_norm).numpy(),
        mix=above([block.mix.weight for block in blocks]).numpy(),
        mix_bias=above([block.mix.bias for block in blocks]).numpy(),
        norm=above([pair(block.norm) for block in blocks]).numpy(),
        up=stack([block.up.weight for block in blocks], [block.up.bias for block in blocks]),
        down=stack(
            [
                scale[:, None] * block.down.weight
                for scale, block in zip(scaled, blocks, strict=True)
            ],
            [scale * block.down.bias for scale, block in zip(scaled, blocks, strict=True)],
        ),
        last_norm=pair(decoder.norm).numpy(),
        output=pack(spectrum.weight, spectrum.bias),
    )

    def network(latent, histories):
        first, *others = histories
        given = np.ascontiguousarray(latent.numpy()), first.numpy(), torch.stack(others).numpy()
        x, spectrum, first, others = call(*given, parts)
        x, spectrum = (
            torch.from_numpy(found).view(*latent.shape[:2], -1) for found in (x, spectrum)
        )
        return (
            x,
            spectrum[..., : decoder.to_spectrum.out_features],
            [torch.from_numpy(first), *torch.from_numpy(others)],
        )

    object.__setattr__(decoder, "network", network)
    return decoder
