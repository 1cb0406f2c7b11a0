"""The talker's transformer and its head as compiled functions with weights in 8 bits (duplex.cpu.kernels), sums as in duplex.model.talker."""

from typing import NamedTuple

import numpy as np
import torch
from numba import njit

from duplex.cpu.attention import attend_cells, hide, in_memory, keep
from duplex.cpu.kernels import (
    OPTIONS,
    Weights,
    gated,
    greatest,
    layer,
    multiply,
    product,
    rms_norm,
    room,
    rotate,
    silu,
    stack,
)
from duplex.model.talker import Talker

HALVINGS = 20  # of a range of logits, at most
EPSILON = float(torch.finfo(torch.float32).eps)  # of torch's rms_norm when none is given


class Parts(NamedTuple):
    input: Weights  # of the last patch's sums and this one's conditions, side by side
    qkv: Weights  # of all blocks, one above the other
    out: Weights
    gate_up: Weights
    down: Weights
    head_in: Weights
    head_condition: Weights
    head_previous: Weights
    inner: Weights  # of all codebooks in use
    outer: Weights
    codes: np.ndarray  # [codebooks, codebook size, C]
    silence: np.ndarray  # [codebooks] int64
    temperature: np.ndarray  # [codebooks]


@njit(**OPTIONS)
def bound(logits, top_k):
    """A number that top_k of logits [N] reach, and not many more: to sort those takes a third of the time that all would."""
    high = greatest(logits)
    low, most = -high, logits.size
    for _ in range(HALVINGS):
        if most <= 2 * top_k:
            break
        level, count = np.float32(0.5) * (low + high), 0
        for i in range(logits.size):
            count += logits[i] >= level
        if count < top_k:
            high = level
        else:
            low, most = level, count
    return low


@njit(**OPTIONS)
def draw(logits, temperature, top_k, uniform, best):
    """See talker.draw; logits [N] of one row, best: space for the places of the top_k."""
    if temperature == 0:
        return np.argmax(logits)
    level, count = bound(logits, top_k), 0
    for i in range(logits.size):
        if logits[i] < level or count == top_k and logits[i] <= logits[best[count - 1]]:
            continue
        count = min(count + 1, top_k)
        j = count - 1
        while j > 0 and logits[best[j - 1]] < logits[i]:
            best[j] = best[j - 1]
            j -= 1
        best[j] = i
    total = np.float32(0)
    for j in range(count):
        total += np.exp((logits[best[j]] - logits[best[0]]) / temperature)
    limit, passed = uniform * total, np.float32(0)
    for j in range(count):
        passed += np.exp((logits[best[j]] - logits[best[0]]) / temperature)
        if passed >= limit:
            return best[j]
    return best[count - 1]


@njit(**OPTIONS)
def states(history, conditions, forced, table, keys, values, visible, places, parts):
    """See Talker.states; slots that are all silence are not computed: what is drawn for them is not looked at. keys [..., D, ring],
    see kernels.in_memory."""
    slots, patches = history.shape[:2]
    layers, _, heads, head_width, ring = keys.shape
    speaking = np.array([slot for slot in range(slots) if not forced[slot].all()])
    rows = speaking.size * patches  # a slot's patches one behind the other
    given = np.concatenate(
        (history[speaking].copy().reshape(rows, -1), conditions[speaking].copy().reshape(rows, -1)),
        1,
    )
    x = product(given, layer(parts.input, 0))
    ones, normed, scores = (
        np.ones(x.shape[1], np.float32),
        np.empty_like(x),
        np.empty(ring, np.float32),
    )
    slot_of = np.repeat(speaking, patches)
    hidden = hide(visible[:, 0], slot_of * patches + np.arange(rows) % patches)
    mixed = np.empty((rows, heads, head_width), np.float32)
    qkv_room, out_room = room(rows, layer(parts.qkv, 0)), room(rows, layer(parts.out, 0))
    gate_room, down_room = room(rows, layer(parts.gate_up, 0)), room(rows, layer(parts.down, 0))
    between = np.empty((rows, gate_room[-1].shape[1] // 2), np.float32)
    for i in range(layers):
        rms_norm(x, ones, EPSILON, normed)
        multiply(normed, layer(parts.qkv, i), *qkv_room)
        qkv = qkv_room[-1].reshape(rows, 3 * heads, head_width)
        for n in range(rows):
            rotate(
                qkv[n, : 2 * heads],
                table[n % patches, : head_width // 2],
                table[n % patches, head_width // 2 :],
            )
            keep(qkv[n], keys[i, slot_of[n]], values[i, slot_of[n]], places[n % patches])
        attend_cells(qkv, keys[i], values[i], slot_of, hidden, scores, mixed)
        multiply(mixed.reshape(rows, heads * head_width), layer(parts.out, i), *out_room)
        x += out_room[-1]
        rms_norm(x, ones, EPSILON, normed)
        multiply(normed, layer(parts.gate_up, i), *gate_room)
        gated(gate_room[-1], between)
        multiply(between, layer(parts.down, i), *down_room)
        x += down_room[-1]
    found = np.zeros((slots, patches, x.shape[1]), np.float32)
    found[speaking] = x.reshape(speaking.size, patches, x.shape[1])
    return found


@njit(**OPTIONS)
def draws(x, conditions, uniform, forced, parts, top_k):
    """See Talker.draw_patch."""
    slots, frames, width = conditions.shape
    codebooks, size = parts.codes.shape[0], parts.codes.shape[1]
    codes = np.empty((slots, frames, codebooks), np.int64)
    sums = np.zeros((slots, frames * width), np.float32)
    rows = np.array([slot for slot in range(slots) if not forced[slot].all()])
    wide = np.empty((rows.size, x.shape[1]), np.float32)
    rms_norm(x[rows], np.ones(x.shape[1], np.float32), EPSILON, wide)
    hidden = product(wide, layer(parts.head_in, 0)).reshape(rows.size, frames, width)
    ones, normed = np.ones(width, np.float32), np.empty((rows.size, width), np.float32)
    inner_room, outer_room = (
        room(rows.size, layer(parts.inner, 0)),
        room(rows.size, layer(parts.outer, 0)),
    )
    best = np.empty(top_k, np.int64)
    for frame in range(frames):
        y = hidden[:, frame] + product(conditions[rows, frame], layer(parts.head_condition, 0))
        if frame:
            y += product(
                sums[rows, (frame - 1) * width : frame * width], layer(parts.head_previous, 0)
            )
        for k in range(codebooks):
            rms_norm(y, ones, EPSILON, normed)
            multiply(normed, layer(parts.inner, k), *inner_room)
            for n in range(rows.size):
                for i in range(width):
                    inner_room[-1][n, i] = silu(inner_room[-1][n, i])
            multiply(inner_room[-1], layer(parts.outer, k), *outer_room)
            for n, slot in enumerate(rows):
                code = draw(
                    outer_room[-1][n, :size],
                    parts.temperature[k],
                    top_k,
                    uniform[slot, frame, k],
                    best,
                )
                codes[slot, frame, k] = code
                y[n] += parts.codes[k, code]
        for slot in range(slots):
            own = sums[slot, frame * width : (frame + 1) * width]
            for k in range(codebooks):
                if forced[slot, frame]:
                    codes[slot, frame, k] = parts.silence[k]
                own += parts.codes[k, codes[slot, frame, k]]
    return codes, sums


def compile_talker(talker: Talker) -> Talker:
    """Replace `states` and `draw_patch` by compiled ones with copies of the weights in 8 bits."""
    config, head, drawn = talker.config, talker.head, slice(talker.config.drawn)
    blocks = {
        name: stack([getattr(b, name).weight for b in talker.blocks])
        for name in ("qkv", "out", "gate_up", "down")
    }
    table = talker.codes.data.float().view(
        config.codebooks, config.codebook_size, config.code_width
    )
    parts = Parts(
        input=stack([torch.cat([talker.history_in.weight, talker.condition_in.weight], 1)]),
        **blocks,
        head_in=stack([talker.head_in.weight], [talker.head_in.bias]),
        head_condition=stack([talker.head_condition.weight]),
        head_previous=stack([talker.head_previous.weight]),
        inner=stack([*head.inner.data[drawn].transpose(1, 2)]),
        outer=stack([*head.outer.data[drawn].transpose(1, 2)], [*head.bias.data[drawn, 0]]),
        codes=np.ascontiguousarray(table[drawn].numpy()),
        silence=talker.silence_codes[drawn].numpy(),
        temperature=np.array([config.temperature(k) for k in range(config.drawn)], np.float32),
    )
    top_k = min(config.top_k, config.codebook_size)

    def compiled_states(history, conditions, forced, table, keys, values, visible, places):
        given = (
            np.ascontiguousarray(part.numpy()) for part in (history, conditions, forced, table)
        )
        return torch.from_numpy(
            states(*given, *in_memory(keys, values), visible.numpy(), places.numpy(), parts)
        )

    def compiled_draw(*given):
        codes, sums = draws(*(np.ascontiguousarray(part.numpy()) for part in given), parts, top_k)
        return torch.from_numpy(codes), torch.from_numpy(sums)

    object.__setattr__(talker, "states", compiled_states)
    talker.cache_dtype = torch.bfloat16
    object.__setattr__(talker, "draw_patch", compiled_draw)
    return talker
