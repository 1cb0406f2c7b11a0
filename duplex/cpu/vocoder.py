"""The vocoder's network as one compiled function, weights in 8 bits; the sums are those of
model.vocoder.

Letters in shapes: B slots, T frames, L width of the latent vectors, C width of the network.
"""

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from duplex.cpu.kernels import OPTIONS, gelu, layer_norm
from duplex.cpu.products import (
    Int8Weights,
    int8_matmul,
    int8_matmul_into,
    layer,
    pack,
    pack_stack,
    workspace,
)
from duplex.model.tts.codec import Codec
from duplex.model.tts.vocoder import DecodeState, FrameDecoder


class PackedWeights(NamedTuple):
    """The weights of the first convolution, of all blocks one above the other, of the output."""

    input: Int8Weights
    first_norm: np.ndarray  # [2, C]: weight and bias
    mix: np.ndarray  # [blocks, kernel, C]
    mix_bias: np.ndarray  # [blocks, C]
    norm: np.ndarray  # [blocks, 2, C]
    up: Int8Weights
    down: Int8Weights  # layer_scale included
    last_norm: np.ndarray  # [2, C]
    output: Int8Weights


@njit(**OPTIONS)
def network(latent, first_history, histories, weights):
    """See FrameDecoder.network.

    Args:
        latent: [B, T, L].
        first_history: [B, kernel - 1, L].
        histories: [blocks, B, kernel - 1, C].

    Returns the normed frames [B T, C], what `to_spectrum` makes of them, and the next histories.
    """
    slots, frames, inputs = latent.shape
    kernel, width = weights.mix.shape[1], weights.mix.shape[2]
    given = np.concatenate((first_history, latent), 1)
    patches = np.empty((slots, frames, inputs, kernel), np.float32)
    for shift in range(kernel):
        patches[..., shift] = given[:, shift : shift + frames]
    y = int8_matmul(patches.reshape(slots * frames, inputs * kernel), layer(weights.input, 0))
    x = np.empty_like(y)
    layer_norm(y, weights.first_norm[0], weights.first_norm[1], x)
    next_histories = np.empty_like(histories)
    up_space = workspace(len(x), layer(weights.up, 0))
    down_space = workspace(len(x), layer(weights.down, 0))
    for i in range(weights.mix.shape[0]):
        whole = np.concatenate((histories[i], x.reshape(slots, frames, width)), 1)
        next_histories[i] = whole[:, frames:]
        mix_channels(whole, weights.mix[i], weights.mix_bias[i], y)
        layer_norm(y, weights.norm[i, 0], weights.norm[i, 1], y)
        int8_matmul_into(y, layer(weights.up, i), up_space)
        gelu(up_space.y)
        int8_matmul_into(up_space.y, layer(weights.down, i), down_space)
        x += down_space.y
    layer_norm(x, weights.last_norm[0], weights.last_norm[1], y)
    return y, int8_matmul(y, weights.output), given[:, frames:].copy(), next_histories


@njit(**OPTIONS)
def mix_channels(whole, weight, bias, y):
    """y [B T, C]: a convolution of each channel of whole [B, kernel - 1 + T, C] by itself.

    Args:
        weight: [kernel, C].
        bias: [C].
    """
    kernel, width = weight.shape
    slots, frames = whole.shape[0], whole.shape[1] - kernel + 1
    for slot in range(slots):
        for frame in range(frames):
            row = y[slot * frames + frame]
            row[:] = bias
            for shift in range(kernel):
                before, by = whole[slot, frame + shift], weight[shift]
                for j in range(width):
                    row[j] += before[j] * by[j]


class CompiledCodec:
    """Stands in for a Codec that decodes: the network of its decoder is compiled."""

    def __init__(self, codec: Codec):
        """What is not compiled is shared."""
        self.config = codec.config
        self.decoder_delay_samples = codec.decoder_delay_samples
        self.initial_decode_state = codec.initial_decode_state
        self.dequantize = codec.dequantize
        self.render = codec.decoder.render
        self.outputs = codec.decoder.to_spectrum.out_features
        self.weights = pack_decoder(codec.decoder)

    @torch.no_grad()
    def decode_step(self, codes: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        """See Codec.decode_step."""
        return self.render(*self.network(self.dequantize(codes), state.histories), state)

    def network(
        self, latent: Tensor, histories: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """See FrameDecoder.network."""
        first, *others = histories
        given = np.ascontiguousarray(latent.numpy()), first.numpy(), torch.stack(others).numpy()
        x, spectrum, first, others = network(*given, self.weights)
        shape = *latent.shape[:2], -1
        x = torch.from_numpy(x).view(shape)
        spectrum = torch.from_numpy(spectrum).view(shape)[..., : self.outputs]
        return x, spectrum, [torch.from_numpy(first), *torch.from_numpy(others)]


def pack_decoder(decoder: FrameDecoder) -> PackedWeights:
    """The weights of a decoder's network in 8 bits."""
    blocks = decoder.blocks
    first, spectrum = decoder.from_latent.linear, decoder.to_spectrum

    def pair(norm: torch.nn.LayerNorm) -> Tensor:
        return torch.stack([norm.weight.data, norm.bias.data]).float()

    def above(tensors: list[Tensor]) -> np.ndarray:
        return torch.stack(tensors).detach().float().numpy()

    return PackedWeights(
        input=pack_stack([first.weight], [first.bias]),
        first_norm=pair(decoder.first_norm).numpy(),
        mix=above([block.mix.weight for block in blocks]),
        mix_bias=above([block.mix.bias for block in blocks]),
        norm=above([pair(block.norm) for block in blocks]),
        up=pack_stack([block.up.weight for block in blocks], [block.up.bias for block in blocks]),
        down=pack_stack(
            [block.layer_scale[:, None] * block.down.weight for block in blocks],
            [block.layer_scale * block.down.bias for block in blocks],
        ),
        last_norm=pair(decoder.norm).numpy(),
        output=pack(spectrum.weight, spectrum.bias),
    )
