"""The LM's call as one compiled function, weights in 8 bits; the sums are those of model.lm.

Its cache has 16 bits (bfloat16): with several long conversations as much of it is read in a call as
of the weights.

Letters in shapes: N positions in use, D width of the LM, W width of a head, C cells.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch.nn import functional as F

from duplex.cpu.attention import (
    Cells,
    attend_cells,
    cache_arrays,
    visibility_bias,
    write_cell,
)
from duplex.cpu.kernels import OPTIONS, rms_norm, rotate, swiglu
from duplex.cpu.products import (
    Int8Weights,
    int8_matmul,
    int8_matmul_into,
    layer,
    pack,
    pack_stack,
    workspace,
)
from duplex.model.lm import LM, CacheCells, join_logits


class PackedWeights(NamedTuple):
    """The weights of all blocks, one above the other, and two numbers that the blocks need."""

    attention_norm: np.ndarray  # [layers, D]
    mlp_norm: np.ndarray  # [layers, D]
    norm: np.ndarray  # [D]
    qkv: Int8Weights
    qkv_bias: np.ndarray  # [layers, (H + twice kv_heads) W]
    out: Int8Weights
    gate_up: Int8Weights
    down: Int8Weights
    heads: int
    epsilon: float


class CacheArrays(NamedTuple):
    """Where keys and values lie and what the queries may see, as arrays."""

    keys: np.ndarray  # [layers, B, kv_heads, W, C]
    values: np.ndarray  # [layers, B, kv_heads, C, W]
    slots: np.ndarray  # [N]
    cells: np.ndarray  # [N]
    place: np.ndarray  # [N]
    visible: np.ndarray  # [B, L, S]


@njit(**OPTIONS)
def forward(x, cosines, sines, cache, weights):
    """See LM.forward with a cache; x [N, D] is overwritten, cosines and sines are [N, W / 2]."""
    rows, kv_heads, width = x.shape[0], cache.keys.shape[2], cache.keys.shape[3]
    heads, epsilon = weights.heads, weights.epsilon
    normed = np.empty_like(x)
    scores = np.empty(cache.keys.shape[4], np.float32)
    hidden = visibility_bias(cache.visible, cache.place)
    qkv_space = workspace(rows, layer(weights.qkv, 0))
    out_space = workspace(rows, layer(weights.out, 0))
    gate_space = workspace(rows, layer(weights.gate_up, 0))
    down_space = workspace(rows, layer(weights.down, 0))
    mixed = np.empty((rows, heads, width), np.float32)
    inner = np.empty((rows, gate_space.y.shape[1] // 2), np.float32)
    for i in range(cache.keys.shape[0]):
        keys, values = cache.keys[i], cache.values[i]
        rms_norm(x, weights.attention_norm[i], epsilon, normed)
        int8_matmul_into(normed, layer(weights.qkv, i), qkv_space)
        biased = qkv_space.y
        biased += weights.qkv_bias[i]
        qkv = biased.reshape(rows, heads + 2 * kv_heads, width)
        for n in range(rows):
            slot = cache.slots[n]
            rotate(qkv[n, : heads + kv_heads], cosines[n], sines[n])
            write_cell(qkv[n], keys[slot], values[slot], cache.cells[n])
        attend_cells(qkv, Cells(keys, values, cache.slots, hidden), scores, mixed)
        int8_matmul_into(mixed.reshape(rows, heads * width), layer(weights.out, i), out_space)
        x += out_space.y
        rms_norm(x, weights.mlp_norm[i], epsilon, normed)
        int8_matmul_into(normed, layer(weights.gate_up, i), gate_space)
        swiglu(gate_space.y, inner)
        int8_matmul_into(inner, layer(weights.down, i), down_space)
        x += down_space.y
    rms_norm(x, weights.norm, epsilon, normed)
    return normed


class Int8Linear:
    """x [..., in] -> x W' [..., out], with a copy of W [out, in] in 8 bits."""

    def __init__(self, weight: torch.Tensor):
        self.weight = pack(weight)
        self.rows = len(weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x of any type -> float32."""
        y = int8_matmul(np.ascontiguousarray(x.flatten(0, -2).float().numpy()), self.weight)
        return torch.from_numpy(y[:, : self.rows]).view(*x.shape[:-1], self.rows)


class CompiledLM:
    """Stands in for a merged LM: its call with a cache and its output layer are compiled."""

    cache_dtype = torch.bfloat16
    spare = (0, 0)

    def __init__(self, lm: LM):
        """Takes the LM over: its blocks are freed, what else it has is shared."""
        self.config = lm.config
        self.dtype = lm.dtype
        self.device = lm.device
        self.cache_device = lm.device
        self.input_width = lm.config.width
        self.embedding = lm.embedding
        self.embed = lm.embed
        self.project = lm.project
        self.likeliest_texts = partial(LM.likeliest_texts, self)
        self.control_out = lm.control_out
        self.text_out = Int8Linear(lm.embedding if lm.output is None else lm.output)
        self.weights = pack_lm(lm)
        half = self.config.head_width // 2
        self.angles = self.config.rope_theta ** (-np.arange(half, dtype=np.float32) / half)
        lm.blocks = torch.nn.ModuleList()

    def __call__(self, x, positions, visible, cache: CacheCells) -> torch.Tensor:
        """See LM.forward with a cache."""
        turns = positions.numpy()[:, None].astype(np.float32) * self.angles
        where = (part.numpy() for part in (cache.slots, cache.cells, cache.place, visible))
        arrays = CacheArrays(*cache_arrays(cache.keys, cache.values), *where)
        found = forward(x.numpy().copy(), np.cos(turns), np.sin(turns), arrays, self.weights)
        return torch.from_numpy(found)

    def logits(self, hidden: torch.Tensor, text: bool = True) -> torch.Tensor:
        """See LM.logits."""
        controls = F.linear(hidden, self.control_out.to(hidden.dtype))
        return join_logits(controls, self.text_out(hidden) if text else None)


def pack_lm(lm: LM) -> PackedWeights:
    """The weights of a merged LM's blocks in 8 bits, its norms as they are."""

    def products(name: str) -> Int8Weights:
        return pack_stack([getattr(block, name).weight for block in lm.blocks])

    def norms(name: str) -> np.ndarray:
        found = [getattr(block, name).data for block in lm.blocks]
        return torch.stack(found).float().numpy()

    biases = [block.qkv.bias for block in lm.blocks]
    if not lm.config.qkv_bias:
        biases = [torch.zeros(len(block.qkv.weight)) for block in lm.blocks]
    return PackedWeights(
        attention_norm=norms("attention_norm"),
        mlp_norm=norms("mlp_norm"),
        norm=lm.norm.detach().float().numpy(),
        qkv=products("qkv"),
        qkv_bias=torch.stack(biases).float().numpy(),
        out=products("out"),
        gate_up=products("gate_up"),
        down=products("down"),
        heads=lm.config.heads,
        epsilon=lm.config.norm_eps,
    )
