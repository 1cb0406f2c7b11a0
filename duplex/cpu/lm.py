"""The LM's call as one compiled function with weights in 8 bits (duplex.cpu.kernels); the sums are those of duplex.model.lm.

Its cache may have 16 bits (bfloat16): with several long conversations as much of it is read in a call as of the weights.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numba import njit

from duplex.cpu.attention import attend_cells, hide, in_memory, keep
from duplex.cpu.kernels import (
    OPTIONS,
    Weights,
    gated,
    layer,
    multiply,
    pack,
    product,
    rms_norm,
    room,
    rotate,
    stack,
)
from duplex.model.draft import Draft
from duplex.model.lm import LM

PRODUCTS = ("qkv", "out", "gate_up", "down")


class Parts(NamedTuple):
    """All blocks' weights, one above the other."""

    attention_norm: np.ndarray  # [layers, D]
    mlp_norm: np.ndarray
    norm: np.ndarray  # [D]
    qkv: Weights
    out: Weights
    gate_up: Weights
    down: Weights


@njit(**OPTIONS)
def call(x, cosines, sines, visible, keys, values, slots, cells, place, parts, heads, epsilon):
    """See lm.LM.forward with a cache; x [N, D] becomes the hidden states, cosines and sines [N, W / 2], keys [layers, B, kv_heads,
    W, C], values [layers, B, kv_heads, C, W]."""
    rows, kv_heads, width = x.shape[0], keys.shape[2], keys.shape[3]
    normed, scores = np.empty_like(x), np.empty(keys.shape[4], np.float32)
    hidden = hide(visible, place)
    qkv_room, out_room = room(rows, layer(parts.qkv, 0)), room(rows, layer(parts.out, 0))
    gate_room, down_room = room(rows, layer(parts.gate_up, 0)), room(rows, layer(parts.down, 0))
    mixed = np.empty((rows, heads, width), np.float32)
    inner = np.empty((rows, gate_room[-1].shape[1] // 2), np.float32)
    for i in range(keys.shape[0]):
        rms_norm(x, parts.attention_norm[i], epsilon, normed)
        multiply(normed, layer(parts.qkv, i), *qkv_room)
        qkv = qkv_room[-1].reshape(rows, heads + 2 * kv_heads, width)
        for n in range(rows):
            rotate(qkv[n, : heads + kv_heads], cosines[n], sines[n])
            keep(qkv[n], keys[i, slots[n]], values[i, slots[n]], cells[n])
        attend_cells(qkv, keys[i], values[i], slots, hidden, scores, mixed)
        multiply(mixed.reshape(rows, heads * width), layer(parts.out, i), *out_room)
        x += out_room[-1]
        rms_norm(x, parts.mlp_norm[i], epsilon, normed)
        multiply(normed, layer(parts.gate_up, i), *gate_room)
        gated(gate_room[-1], inner)
        multiply(inner, layer(parts.down, i), *down_room)
        x += down_room[-1]
    rms_norm(x, parts.norm, epsilon, normed)
    return normed


def applied(weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """x [..., in] -> x weight' [..., out], with a copy of weight [out, in] in 8 bits."""
    packed, rows = pack(weight), len(weight)

    def apply(x: torch.Tensor) -> torch.Tensor:
        y = product(np.ascontiguousarray(x.flatten(0, -2).float().numpy()), packed)
        return torch.from_numpy(y[:, :rows]).view(*x.shape[:-1], rows)

    return apply


def compile_lm(lm: LM) -> LM:
    """Replace a merged LM's call with a cache, and its output layer, by compiled ones with copies of the weights in 8 bits."""
    config, blocks = lm.config, lm.blocks
    products = {name: stack([getattr(block, name).weight for block in blocks]) for name in PRODUCTS}
    norms = {
        name: torch.stack([getattr(b, name).data for b in blocks]).float().numpy()
        for name in ("attention_norm", "mlp_norm")
    }
    parts = Parts(**norms, norm=lm.norm.detach().float().numpy(), **products)
    half = config.head_width // 2
    angles = config.rope_theta ** (-np.arange(half, dtype=np.float32) / half)

    def forward(x, positions, visible, keys, values, slots, cells, place):
        turns = positions.numpy()[:, None].astype(np.float32) * angles
        arrays = (
            visible.numpy(),
            *in_memory(keys, values),
            *(tensor.numpy() for tensor in (slots, cells, place)),
        )
        return torch.from_numpy(
            call(
                x.numpy().copy(),
                np.cos(turns),
                np.sin(turns),
                *arrays,
                parts,
                config.heads,
                config.norm_eps,
            )
        )

    for block in blocks:
        for name in PRODUCTS:
            delattr(block, name)
    object.__setattr__(lm, "forward", forward)
    lm.text_out = applied(lm.embedding)
    lm.cache_dtype = torch.bfloat16
    return lm


def compile_draft(draft: Draft) -> Draft:
    """The same for a draft, in whose two products all of its time goes."""
    for name in ("gate_up", "down"):
        weight = getattr(draft, name).weight
        delattr(draft, name)
        setattr(draft, name, applied(weight))
    return draft
