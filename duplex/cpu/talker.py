"""The talker's transformer and head as compiled functions, weights in 8 bits; the sums are those of
model.talker.

Letters in shapes: B slots, N of them speaking, p frames of a patch, K codebooks drawn, C width of
codes, W width of the transformer, H heads of width D.
"""

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from duplex.cpu.attention import (
    Cells,
    attend_cells,
    cache_arrays,
    visibility_bias,
    write_cell,
)
from duplex.cpu.kernels import OPTIONS, abs_max, rms_norm, rotate, silu, swiglu
from duplex.cpu.products import (
    Int8Weights,
    int8_matmul,
    int8_matmul_into,
    layer,
    pack_stack,
    workspace,
)
from duplex.model.tts.talker import PatchCache, Talker

# What torch's rms_norm adds to the mean square when it is not told.
EPSILON = float(torch.finfo(torch.float32).eps)


class PackedWeights(NamedTuple):
    """The weights of all blocks, one above the other, and those of the head."""

    # Of the last patch's sums and this patch's conditions, side by side.
    input: Int8Weights
    qkv: Int8Weights
    out: Int8Weights
    gate_up: Int8Weights
    down: Int8Weights
    head_in: Int8Weights
    head_condition: Int8Weights
    head_previous: Int8Weights
    # Of all codebooks drawn.
    inner: Int8Weights
    outer: Int8Weights
    codes: np.ndarray  # [K, codebook size, C] embeddings
    silence: np.ndarray  # [K] int64 codes
    temperature: np.ndarray  # [K]
    top_k: int


class Ring(NamedTuple):
    """A PatchCache as arrays."""

    keys: np.ndarray  # [layers, B, H, D, ring]
    values: np.ndarray  # [layers, B, H, ring, D]
    visible: np.ndarray  # [B, 1, ring]
    place: np.ndarray  # [1]
    rotary: np.ndarray  # [1, D]


@njit(**OPTIONS)
def top_k_bound(logits, top_k):
    """A number that top_k of logits [N] reach, and not many more.

    To sort those takes a third of the time that all would.
    """
    high = abs_max(logits)
    low = -high
    most = logits.size
    for _ in range(20):  # A range that is halved more often holds few numbers, or equal ones.
        if most <= 2 * top_k:
            break
        level = np.float32(0.5) * (low + high)
        count = 0
        for i in range(logits.size):
            count += logits[i] >= level
        if count < top_k:
            high = level
        else:
            low, most = level, count
    return low


@njit(**OPTIONS)
def sample_code(logits, temperature, top_k, uniform, best):
    """See sampling.sample_codes, for logits [N] of one row.

    Args:
        best: [top_k] int64, space.
    """
    if temperature == 0:
        return np.argmax(logits)
    level = top_k_bound(logits, top_k)
    count = 0
    # 1. The places of the best, sorted as they come.
    for i in range(logits.size):
        if logits[i] < level or count == top_k and logits[i] <= logits[best[count - 1]]:
            continue
        count = min(count + 1, top_k)
        j = count - 1
        while j > 0 and logits[best[j - 1]] < logits[i]:
            best[j] = best[j - 1]
            j -= 1
        best[j] = i
    # 2. The first of them at which so large a share of their probability is passed.
    total = np.float32(0)
    for j in range(count):
        total += np.exp((logits[best[j]] - logits[best[0]]) / temperature)
    limit = uniform * total
    passed = np.float32(0)
    for j in range(count):
        passed += np.exp((logits[best[j]] - logits[best[0]]) / temperature)
        if passed >= limit:
            return best[j]
    return best[count - 1]


@njit(**OPTIONS)
def speaking_slots(forced):
    """The slots [N] that are not all silence; forced [B, p]."""
    return np.array([slot for slot in range(len(forced)) if not forced[slot].all()])


@njit(**OPTIONS)
def patch_state(history, conditions, forced, ring, weights):
    """See Talker.patch_state. Rows of slots that are all silence are 0: nobody looks at them."""
    layers, _, heads, head_width, cells = ring.keys.shape
    speaking = speaking_slots(forced)
    rows = speaking.size
    own_conditions = conditions[speaking].copy().reshape(rows, -1)
    given = np.concatenate((history[speaking].copy(), own_conditions), 1)
    x = int8_matmul(given, layer(weights.input, 0))
    ones, normed = np.ones(x.shape[1], np.float32), np.empty_like(x)
    scores = np.empty(cells, np.float32)
    hidden = visibility_bias(ring.visible, speaking)
    cosines, sines = ring.rotary[0, : head_width // 2], ring.rotary[0, head_width // 2 :]
    mixed = np.empty((rows, heads, head_width), np.float32)
    qkv_space = workspace(rows, layer(weights.qkv, 0))
    out_space = workspace(rows, layer(weights.out, 0))
    gate_space = workspace(rows, layer(weights.gate_up, 0))
    down_space = workspace(rows, layer(weights.down, 0))
    inner = np.empty((rows, gate_space.y.shape[1] // 2), np.float32)
    for i in range(layers):
        keys, values = ring.keys[i], ring.values[i]
        rms_norm(x, ones, EPSILON, normed)
        int8_matmul_into(normed, layer(weights.qkv, i), qkv_space)
        qkv = qkv_space.y.reshape(rows, 3 * heads, head_width)
        for n in range(rows):
            rotate(qkv[n, : 2 * heads], cosines, sines)
            write_cell(qkv[n], keys[speaking[n]], values[speaking[n]], ring.place[0])
        attend_cells(qkv, Cells(keys, values, speaking, hidden), scores, mixed)
        int8_matmul_into(mixed.reshape(rows, heads * head_width), layer(weights.out, i), out_space)
        x += out_space.y
        rms_norm(x, ones, EPSILON, normed)
        int8_matmul_into(normed, layer(weights.gate_up, i), gate_space)
        swiglu(gate_space.y, inner)
        int8_matmul_into(inner, layer(weights.down, i), down_space)
        x += down_space.y
    found = np.zeros((len(history), x.shape[1]), np.float32)
    found[speaking] = x
    return found


@njit(**OPTIONS)
def sample_patch(x, conditions, uniform, forced, weights):
    """See Talker.sample_patch."""
    slots, frames, width = conditions.shape
    codebooks = weights.codes.shape[0]
    codes = np.empty((slots, frames, codebooks), np.int64)
    sums = np.zeros((slots, frames * width), np.float32)
    speaking = speaking_slots(forced)
    normed = np.empty((speaking.size, x.shape[1]), np.float32)
    rms_norm(x[speaking], np.ones(x.shape[1], np.float32), EPSILON, normed)
    hidden = int8_matmul(normed, layer(weights.head_in, 0)).reshape(speaking.size, frames, width)
    inner = workspace(speaking.size, layer(weights.inner, 0))
    outer = workspace(speaking.size, layer(weights.outer, 0))
    for frame in range(frames):
        own = conditions[speaking, frame]
        y = hidden[:, frame] + int8_matmul(own, layer(weights.head_condition, 0))
        if frame:
            before = sums[speaking, (frame - 1) * width : frame * width]
            y += int8_matmul(before, layer(weights.head_previous, 0))
        sample_frame(y, uniform[:, frame], speaking, codes[:, frame], (inner, outer), weights)
        for slot in range(slots):
            total = sums[slot, frame * width : (frame + 1) * width]
            for k in range(codebooks):
                if forced[slot, frame]:
                    codes[slot, frame, k] = weights.silence[k]
                total += weights.codes[k, codes[slot, frame, k]]
    return codes, sums


@njit(**OPTIONS)
def sample_frame(y, uniform, speaking, codes, spaces, weights):
    """Sample one frame's codes, each given those before it.

    Args:
        y: [N, C] what the head knows of the frame; changed.
        uniform: [B, K].
        codes: [B, K] those of the speaking slots are filled in.
        spaces: Workspaces of the head's two products.
    """
    size, width = weights.codes.shape[1], y.shape[1]
    ones, normed = np.ones(width, np.float32), np.empty_like(y)
    best = np.empty(weights.top_k, np.int64)
    inner, outer = spaces
    for k in range(len(weights.codes)):
        rms_norm(y, ones, EPSILON, normed)
        int8_matmul_into(normed, layer(weights.inner, k), inner)
        for n in range(speaking.size):
            for i in range(width):
                inner.y[n, i] = silu(inner.y[n, i])
        int8_matmul_into(inner.y, layer(weights.outer, k), outer)
        for n, slot in enumerate(speaking):
            logits, share = outer.y[n, :size], uniform[slot, k]
            code = sample_code(logits, weights.temperature[k], weights.top_k, share, best)
            codes[slot, k] = code
            y[n] += weights.codes[k, code]


class CompiledTalker:
    """Stands in for a Talker at run time: its transformer and its sampling are compiled."""

    cache_dtype = torch.bfloat16

    def __init__(self, talker: Talker):
        """What is not compiled is shared."""
        self.config = talker.config
        self.phone_encoder = talker.phone_encoder
        self.condition = talker.condition
        self.silence_sum = talker.silence_sum
        self.silence_codes = talker.silence_codes
        self.rotary = talker.rotary
        self.weights = pack_talker(talker)

    def patch_state(
        self, history: Tensor, conditions: Tensor, forced: Tensor, cache: PatchCache
    ) -> Tensor:
        """See Talker.patch_state."""
        given = (np.ascontiguousarray(part.numpy()) for part in (history, conditions, forced))
        ring = Ring(
            *cache_arrays(cache.keys, cache.values),
            np.ascontiguousarray(cache.visible[:, 0].numpy()),
            cache.place.numpy(),
            np.ascontiguousarray(cache.rotary.numpy()),
        )
        return torch.from_numpy(patch_state(*given, ring, self.weights))

    def sample_patch(
        self, x: Tensor, conditions: Tensor, uniform: Tensor, forced: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See Talker.sample_patch."""
        given = (np.ascontiguousarray(part.numpy()) for part in (x, conditions, uniform, forced))
        codes, sums = sample_patch(*given, self.weights)
        return torch.from_numpy(codes), torch.from_numpy(sums)


def pack_talker(talker: Talker) -> PackedWeights:
    """The weights of the transformer and of the head in 8 bits."""
    config, head = talker.config, talker.head
    drawn = slice(config.drawn)

    def products(name: str) -> Int8Weights:
        return pack_stack([getattr(block, name).weight for block in talker.blocks])

    codes = talker.codes.data.float()
    codes = codes.view(config.codebooks, config.codebook_size, config.code_width)
    temperatures = [config.temperature(k) for k in range(config.drawn)]
    return PackedWeights(
        input=pack_stack([torch.cat([talker.history_in.weight, talker.condition_in.weight], 1)]),
        qkv=products("qkv"),
        out=products("out"),
        gate_up=products("gate_up"),
        down=products("down"),
        head_in=pack_stack([talker.head_in.weight], [talker.head_in.bias]),
        head_condition=pack_stack([talker.head_condition.weight]),
        head_previous=pack_stack([talker.head_previous.weight]),
        inner=pack_stack([*head.inner.data[drawn].transpose(1, 2)]),
        outer=pack_stack([*head.outer.data[drawn].transpose(1, 2)], [*head.bias.data[drawn, 0]]),
        codes=np.ascontiguousarray(codes[drawn].numpy()),
        silence=talker.silence_codes[drawn].numpy(),
        temperature=np.array(temperatures, np.float32),
        top_k=min(config.top_k, config.codebook_size),
    )
