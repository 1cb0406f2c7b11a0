"""The language model's cache of keys and values, and its call for several sessions at once.

A cell holds one position's keys and values; which cells a query may see is decided by what the cell is (a tick of the user's
features, or text) and by its position, never by where it lies, so dropping old ticks, rolling back a draft or forgetting unsaid
text only frees cells: nothing is moved and positions stay as they were.

Letters in shapes: B slots, L positions of a call, C cells, D width.
"""

from dataclasses import dataclass

import numpy as np
import torch

from duplex.model.lm import LM, LMConfig

CALL_CELLS = 64  # positions of one call that always find room in the cache
TEXT = np.iinfo(
    np.int32
).max  # stands for the tick of a text position: text does not grow old with the ticks


@dataclass
class LMState:
    """The cache of all slots. Keys and values lie in cells; the bookkeeping is small and stays on the CPU."""

    keys: torch.Tensor  # [layers, B, kv_heads, C, W]
    values: torch.Tensor  # the same
    position: np.ndarray  # [B, C] int64, -1: the cell is free
    tick: np.ndarray  # [B, C] int32, TEXT for text positions
    pinned: np.ndarray  # [B, C] bool, system prompt: never dropped
    next_position: np.ndarray  # [B] int64
    now: np.ndarray  # [B] int32, the newest tick
    tick_position: np.ndarray  # [B] int64, where it stands


def initial_state(
    config: LMConfig, slots: int, prompt_cells: int = 128, device="cpu", dtype=torch.float32
) -> LMState:
    cells = config.tick_window + config.text_window + prompt_cells + CALL_CELLS
    shape = (config.layers, slots, config.kv_heads, cells, config.head_width)
    return LMState(
        keys=torch.zeros(shape, device=device, dtype=dtype),
        values=torch.zeros(shape, device=device, dtype=dtype),
        position=np.full((slots, cells), -1, np.int64),
        tick=np.zeros((slots, cells), np.int32),
        pinned=np.zeros((slots, cells), bool),
        next_position=np.zeros(slots, np.int64),
        now=np.full(slots, -1, np.int32),
        tick_position=np.zeros(slots, np.int64),
    )


def reset(state: LMState, slot: int) -> None:
    """Forget a session. Its keys and values are erased too, so that nothing of it is left in memory."""
    state.position[slot], state.pinned[slot] = -1, False
    state.next_position[slot], state.now[slot], state.tick_position[slot] = 0, -1, 0
    state.keys[:, slot], state.values[:, slot] = 0, 0


def drop(state: LMState, slot: int, positions: list[int]) -> None:
    """Forget some positions (text that was never spoken). Later positions keep their numbers."""
    state.position[slot, np.isin(state.position[slot], positions)] = -1


def take_back(state: LMState, slot: int, text: list[int], most: int) -> int:
    """Forget these positions of text and at most so many of the last ticks fed behind them -> how many: they may be fed again."""
    behind = (state.position[slot] > max(text, default=-1)) & (state.tick[slot] != TEXT)
    ticks = np.sort(state.position[slot, behind])[-most:] if most else []
    drop(state, slot, [*text, *ticks])
    state.now[slot] -= len(ticks)
    return len(ticks)


def rollback(state: LMState, slot: int, count: int) -> None:
    """Undo the last `count` positions of a slot, as if they had never been fed."""
    state.next_position[slot] -= count
    state.position[slot, state.position[slot] >= state.next_position[slot]] = -1


def evict(
    config: LMConfig, state: LMState, slot: int, is_tick: np.ndarray, now: np.ndarray
) -> None:
    """Before a call is fed, is_tick and now [its positions]: free the cells that none of them may see, and hide the oldest text
    beyond its window from each tick on.

    Text since the last tick does not count yet: it may be fed in one call or in several, and what is seen must not differ.
    """
    used = state.position[slot] >= 0
    state.position[slot, used & (state.tick[slot] <= now[0] - config.tick_window)] = -1
    text = np.flatnonzero(
        (state.position[slot] >= 0) & (state.tick[slot] == TEXT) & ~state.pinned[slot]
    )
    text = text[np.argsort(state.position[slot, text])]
    counted, hidden = int((state.position[slot, text] < state.tick_position[slot]).sum()), 0
    for tick in np.flatnonzero(is_tick):
        if counted - config.text_window > hidden:
            oldest = text[hidden : counted - config.text_window]
            state.tick[slot, oldest] = (
                now[tick] - config.tick_window
            )  # like a tick that leaves its window now
            hidden = counted - config.text_window
        counted = len(text) + int((~is_tick[:tick]).sum())


def visible_cells(
    config: LMConfig, cell_position, cell_tick, query_position, query_now
) -> np.ndarray:
    """bool [..., L, C]: a query sees used cells of no later position whose tick is inside the window at its time."""
    cell_position, cell_tick = cell_position[..., None, :], cell_tick[..., None, :].astype(np.int64)
    fresh = cell_tick > (query_now[..., :, None].astype(np.int64) - config.tick_window)
    return (cell_position >= 0) & (cell_position <= query_position[..., :, None]) & fresh


@torch.no_grad()
def step(
    lm: LM, x: torch.Tensor, counts: list[int], is_tick: np.ndarray, state: LMState, pin=False
):
    """Feed `counts[b]` positions of slot b (0: none), all slots in one call.

    x [B, L, D] padded on the right; is_tick bool [B, L]. -> hidden states [B, L, D] (rows past the count mean nothing), state.
    """
    config, (batch, length, _) = lm.config, x.shape
    cells = state.position.shape[1]
    assert len(counts) == batch == len(state.position), (
        f"{len(counts)} counts and {batch} rows for {len(state.position)} slots"
    )
    cell = np.zeros((batch, length), np.int64)
    query_position, query_now = (
        np.zeros((batch, length), np.int64),
        np.zeros((batch, length), np.int32),
    )
    for b, count in enumerate(counts):
        if not count:
            continue
        ticks = is_tick[b, :count]
        query_now[b, :count] = state.now[b] + np.cumsum(ticks)
        state.now[b] = query_now[b, count - 1]
        if ticks.any():
            evict(config, state, b, ticks, query_now[b, :count])
        free = np.flatnonzero(state.position[b] < 0)[:count]
        assert len(free) == count, (
            f"slot {b}: {count} positions do not fit into the cache of {cells} cells"
        )
        query_position[b, :count] = state.next_position[b] + np.arange(count)
        state.next_position[b] += count
        if ticks.any():
            state.tick_position[b] = query_position[b, np.flatnonzero(ticks)[-1]]
        cell[b, :count] = free
        state.position[b, free] = query_position[b, :count]
        state.tick[b, free] = np.where(ticks, query_now[b, :count], TEXT)
        state.pinned[b, free] = pin
    used = int(np.flatnonzero((state.position >= 0).any(0)).max(initial=0)) + 1
    visible = visible_cells(
        config, state.position[:, :used], state.tick[:, :used], query_position, query_now
    )
    in_use = np.arange(length) < np.array(counts)[:, None]
    visible[~in_use] = True  # nothing to see is not a softmax
    place = np.flatnonzero(in_use)
    arrays = query_position[in_use], visible, place // length, cell[in_use], place
    positions, visible, slots, cell, place = (
        torch.from_numpy(array).to(x.device) for array in arrays
    )
    hidden = torch.zeros_like(x).flatten(0, 1)
    hidden[place] = lm(
        x.flatten(0, 1)[place], positions, visible, state.keys, state.values, slots, cell, place
    ).to(x.dtype)
    return hidden.view_as(x), state


@torch.no_grad()
def consider(
    lm: LM, x: torch.Tensor, parents: list[int], state: LMState, slot: int, after: str
) -> torch.Tensor:
    """Hidden states [N, D] of a tree of text after the "prompt" of a slot and nothing else, or after "all" that it was fed.

    x [N, D], parents: the place of what each follows, before its own; -1: nothing of the tree. N at most CALL_CELLS. The
    state stays as it was: only cells that are free, and remain so, are written to.
    """
    positions, cells = state.position[slot], np.flatnonzero(state.position[slot] < 0)[: len(x)]
    assert len(cells) == len(x), f"slot {slot}: {len(x)} positions do not fit into its free cells"
    if after == "prompt":
        before = state.pinned[slot] & (positions >= 0)
        begin = positions[before].max(initial=-1) + 1
    else:
        begin = state.next_position[slot]
        before = visible_cells(
            lm.config, positions, state.tick[slot], begin[None], state.now[slot, None]
        )[0]
    used = (
        max(int(np.flatnonzero((state.position >= 0).any(0)).max(initial=0)), int(cells.max())) + 1
    )
    before = before[:used]
    visible = np.ones(
        (len(state.position), len(x), used), bool
    )  # rows of the other slots mean nothing
    position = np.zeros(len(x), np.int64)
    for place, (parent, cell) in enumerate(zip(parents, cells, strict=True)):
        visible[slot, place], position[place] = (
            (before, begin) if parent < 0 else (visible[slot, parent], position[parent] + 1)
        )
        visible[slot, place, cell] = True
    place = slot * len(x) + np.arange(len(x))
    arrays = (
        torch.from_numpy(array).to(x.device)
        for array in (position, visible, np.full(len(x), slot), cells, place)
    )
    positions, visible, slots, cells, place = arrays
    return lm(x, positions, visible, state.keys, state.values, slots, cells, place).to(x.dtype)
