"""The language model's cache of keys and values, and its call for several sessions at once.

A cell holds one position's keys and values. Which cells a query may see is decided by what the cell
is (a tick of the user's features, or text) and by its position, never by where it lies. So dropping
old ticks, rolling back a draft or forgetting unsaid text only frees cells: nothing is moved, and
positions stay as they were.

Letters in shapes: B slots, L positions of a call, N of them in use, C cells, S cells in use,
D width of the LM, W width of a head.
"""

from dataclasses import dataclass

import numpy as np
import torch

from duplex.model.lm import LM, CacheCells, LMConfig

# Positions of one call for which the cache always has cells.
CALL_CELLS = 64

# Stands for the tick of a text position. It is later than all ticks, for text does not age.
TEXT = np.iinfo(np.int32).max
# Stands for the tick of a prompt that nothing sees now. It is earlier than all windows.
HIDDEN = -(1 << 30)


@dataclass
class LMState:
    """The cache of all slots. The bookkeeping is small and stays on the CPU."""

    # [layers, B, kv_heads, C, W] The cells.
    keys: torch.Tensor
    values: torch.Tensor
    # [B, C] int64; -1: the cell is free.
    position: np.ndarray
    # [B, C] int32, the tick of a cell; TEXT for text.
    tick: np.ndarray
    # [B, C] bool: part of the system prompt, which is never dropped.
    pinned: np.ndarray
    # [B] int64, the position that a slot is fed next.
    next_position: np.ndarray
    # [B] int32, the newest tick; -1: there was none.
    now: np.ndarray
    # [B] int64, the position of that tick.
    tick_position: np.ndarray
    # All cells in use in any slot are among so many first ones.
    reach: int = 0

    def reset(self, slots: list[int]) -> None:
        """Forget these sessions. Their keys and values are erased too, so that nothing is left."""
        self.position[slots] = -1
        self.pinned[slots] = False
        self.next_position[slots] = 0
        self.now[slots] = -1
        self.tick_position[slots] = 0
        self.keys[:, slots] = 0
        self.values[:, slots] = 0


def initial_state(
    config: LMConfig,
    slots: int,
    prompt_cells: int = 128,
    device="cpu",
    dtype=torch.float32,
    spare: tuple[int, int] = (0, 0),
) -> LMState:
    """An empty cache with room for the windows of ticks and text, a prompt and a call.

    spare: slots and cells of each slot that no session has; a call of fixed shape writes there what
    is not in use.
    """
    cells = config.tick_window + config.text_window + prompt_cells + CALL_CELLS
    room = (slots + spare[0], config.kv_heads, cells + spare[1])
    shape = (config.layers, *room, config.head_width)
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


def drop(state: LMState, slot: int, positions: list[int]) -> None:
    """Forget some positions (text that was never spoken). Later positions keep their numbers."""
    state.position[slot, np.isin(state.position[slot], positions)] = -1


def uncommit(state: LMState, slot: int, text: list[int], max_ticks: int) -> int:
    """Forget these positions of text and at most so many of the last ticks behind them.

    Returns how many ticks were forgotten; they may be fed again.
    """
    behind = (state.position[slot] > max(text, default=-1)) & (state.tick[slot] != TEXT)
    ticks = np.sort(state.position[slot, behind])[-max_ticks:] if max_ticks else []
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
    """Free the cells that none of the positions about to be fed may see, and hide the oldest text
    beyond its window from each tick on.

    Text since the last tick does not count yet: it may be fed in one call or in several, and what
    is seen must not differ.

    Args:
        is_tick: bool [n] of these positions.
        now: int32 [n] the tick of each, or the last one before it.
    """
    position, ticks, pinned = (
        part[slot, : state.reach] for part in (state.position, state.tick, state.pinned)
    )
    position[(position >= 0) & (ticks <= now[0] - config.tick_window) & ~pinned] = -1
    text = np.flatnonzero((position >= 0) & (ticks == TEXT) & ~pinned)
    text = text[np.argsort(position[text])]
    counted = int((position[text] < state.tick_position[slot]).sum())
    hidden = 0
    for tick in np.flatnonzero(is_tick):
        beyond = counted - config.text_window
        if beyond > hidden:
            # The oldest text is treated like a tick that leaves its window now.
            ticks[text[hidden:beyond]] = now[tick] - config.tick_window
            hidden = beyond
        counted = len(text) + int((~is_tick[:tick]).sum())


def visible_cells(
    config: LMConfig, cell_position, cell_tick, query_position, query_now
) -> np.ndarray:
    """bool [..., L, C]: a query sees the cells in use of no later position whose tick is inside the
    window at its time. Arguments: [..., C] of the cells, [..., L] of the queries."""
    cell_position = cell_position[..., None, :]
    cell_tick = cell_tick[..., None, :].astype(np.int64)
    oldest = query_now[..., :, None].astype(np.int64) - config.tick_window
    is_past = cell_position <= query_position[..., :, None]
    return (cell_position >= 0) & is_past & (cell_tick > oldest)


@torch.no_grad()
def step(
    lm: LM, x: torch.Tensor, counts: list[int], is_tick: np.ndarray, state: LMState, pin=False
) -> tuple[torch.Tensor, LMState]:
    """Feed `counts[b]` positions of slot b (0: none), all slots in one call.

    Args:
        x: [B, L, D] inputs, padded on the right.
        is_tick: bool [B, L].
        pin: whether they are a prompt, which is never dropped.

    Returns the hidden states [B, L, D] (rows past the count mean nothing) and the state, which is
    changed in place. AssertionError: they do not fit into the cache.
    """
    batch, length, _ = x.shape
    assert len(counts) == batch == len(state.position), (
        f"{len(counts)} counts and {batch} rows for {len(state.position)} slots"
    )
    cell = np.zeros((batch, length), np.int64)
    position = np.zeros((batch, length), np.int64)
    now = np.zeros((batch, length), np.int32)
    for slot, count in enumerate(counts):
        if count:
            own = slot, slice(count)
            cell[own], position[own], now[own] = _allot(lm.config, state, slot, is_tick[own], pin)
    state.reach = min(state.reach + length, state.position.shape[1])
    used = state.reach = _used_cells(state)
    visible = visible_cells(
        lm.config, state.position[:, :used], state.tick[:, :used], position, now
    )
    in_use = np.arange(length) < np.array(counts)[:, None]
    visible[~in_use] = True  # A softmax over nothing is not a number.
    place = np.flatnonzero(in_use)
    inputs = x.flatten(0, 1)[torch.from_numpy(place).to(x.device)]
    out = _call(lm, inputs, state, position[in_use], visible, place // length, cell[in_use], place)
    hidden = torch.zeros_like(x).flatten(0, 1)
    hidden[torch.from_numpy(place).to(x.device)] = out
    return hidden.view_as(x), state


def _allot(
    config: LMConfig, state: LMState, slot: int, is_tick: np.ndarray, pin: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give cells to the next positions of a slot -> their cells, positions and ticks, [n] each."""
    count = len(is_tick)
    now = state.now[slot] + np.cumsum(is_tick)
    state.now[slot] = now[-1]
    if is_tick.any():
        evict(config, state, slot, is_tick, now.astype(np.int32))
    free = np.flatnonzero(state.position[slot, : state.reach + count] < 0)[:count]
    assert len(free) == count, (
        f"slot {slot}: {count} positions do not fit into the cache of {state.position.shape[1]} "
        "cells"
    )
    position = state.next_position[slot] + np.arange(count)
    state.next_position[slot] += count
    if is_tick.any():
        state.tick_position[slot] = position[np.flatnonzero(is_tick)[-1]]
    state.position[slot, free] = position
    state.tick[slot, free] = np.where(is_tick, now, TEXT)
    state.pinned[slot, free] = pin
    return free, position, now


def _used_cells(state: LMState) -> int:
    """How many of the first cells hold all that are in use in any slot, at least one."""
    in_use = (state.position[:, : state.reach] >= 0).any(0)
    return int(np.flatnonzero(in_use).max(initial=0)) + 1


def _call(lm: LM, x: torch.Tensor, state: LMState, *arrays: np.ndarray) -> torch.Tensor:
    """The LM's call with the cache -> hidden states [N, D] in the type of x.

    Args:
        arrays: positions [N], visible [B, L, S], slots [N], cells [N], place [N]; see LM.forward.
    """
    positions, visible, slots, cells, place = (
        torch.from_numpy(array).to(x.device) for array in arrays
    )
    cache = CacheCells(state.keys, state.values, slots, cells, place)
    return lm(x, positions, visible, cache).to(x.dtype)


@torch.no_grad()
def forward_tree(
    lm: LM, x: torch.Tensor, parents: list[int], state: LMState, slot: int, after: str
) -> torch.Tensor:
    """Score a tree of text without feeding it (tree attention, Miao et al., 2023, SpecInfer).

    The state stays as it was: only cells that are free, and remain so, are written to.

    Args:
        x: [N, D] inputs, at most CALL_CELLS of them.
        parents: [N] the place of what each follows, before its own; -1: nothing of the tree.
        after: "prompt" (the tree follows the slot's prompt and nothing else) or "all" (it follows
            all that the slot was fed).

    Returns hidden states [N, D].
    """
    positions = state.position[slot]
    cells = np.flatnonzero(positions < 0)[: len(x)]
    assert len(cells) == len(x), f"slot {slot}: {len(x)} positions do not fit into its free cells"
    if after == "prompt":
        before = state.pinned[slot] & (positions >= 0) & (state.tick[slot] == TEXT)
        begin = positions[before].max(initial=-1) + 1
    else:
        begin = state.next_position[slot]
        now = state.now[slot, None]
        before = visible_cells(lm.config, positions, state.tick[slot], begin[None], now)[0]
    used = max(_used_cells(state), int(cells.max()) + 1)
    # The rows of the other slots mean nothing.
    visible = np.ones((len(state.position), len(x), used), bool)
    position = np.zeros(len(x), np.int64)
    for place, (parent, cell) in enumerate(zip(parents, cells, strict=True)):
        if parent < 0:
            visible[slot, place] = before[:used]
            position[place] = begin
        else:
            visible[slot, place] = visible[slot, parent]
            position[place] = position[parent] + 1
        visible[slot, place, cell] = True
    place = slot * len(x) + np.arange(len(x))
    return _call(lm, x, state, position, visible, np.full(len(x), slot), cells, place)
