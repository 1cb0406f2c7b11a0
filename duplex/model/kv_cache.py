"""The language model's cache of keys and values, and its call for several sessions at once.

A cell holds one position's keys and values. Which cells a query may see is decided by what the cell
is (a tick of the user's features, or text) and by its position, never by where it lies. So dropping
old ticks, rolling back a draft or forgetting unsaid text only frees cells: nothing is moved, and
positions stay as they were.

Letters in shapes: B slots, L positions of a call in one slot, N in all slots, C cells, S cells in
use, D width of the LM, W width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
    own = state.position[slot, : state.reach]
    own[np.isin(own, positions)] = -1


def uncommit(state: LMState, slot: int, text: list[int], max_ticks: int) -> int:
    """Forget these positions of text and at most so many of the last ticks behind them.

    Returns how many ticks were forgotten; they may be fed again.
    """
    own = state.position[slot, : state.reach]
    behind = (own > max(text, default=-1)) & (state.tick[slot, : state.reach] != TEXT)
    ticks = np.sort(own[behind])[-max_ticks:] if max_ticks else []
    drop(state, slot, [*text, *ticks])
    state.now[slot] -= len(ticks)
    return len(ticks)


def rollback(state: LMState, slot: int, count: int) -> None:
    """Undo the last `count` positions of a slot, as if they had never been fed."""
    state.next_position[slot] -= count
    own = state.position[slot, : state.reach]
    own[own >= state.next_position[slot]] = -1


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
        x: [N, D] inputs, slot after slot.
        is_tick: bool [N].
        pin: whether they are a prompt, which is never dropped.

    Returns the hidden states [N, D] and the state, which is changed in place. AssertionError: they
    do not fit into the cache.
    """
    batch, length = len(state.position), max(counts)
    assert len(counts) == batch and sum(counts) == len(x) == len(is_tick), (
        f"{len(counts)} counts of {sum(counts)} positions for {batch} slots and {len(x)} inputs"
    )
    call = _call_of(np.array(counts), is_tick, state)
    if is_tick.any():
        evict(lm.config, state, call)
    cell, position = _allot(state, call, pin)
    state.reach = min(state.reach + length, state.position.shape[1])
    used = state.reach = _used_cells(state)
    own = state.position[call.slot, :used], state.tick[call.slot, :used]
    visible = np.ones((batch, length, used), bool)  # A softmax over nothing is not a number.
    seen = visible_cells(lm.config, *own, position[:, None], call.now[:, None])
    visible[call.slot, call.place] = seen[:, 0]
    out = _call(lm, x, state, position, visible, call.slot, cell, call.slot * length + call.place)
    return out, state


class Call(NamedTuple):
    """The positions of a call, slot after slot; R slots are fed."""

    fed: np.ndarray  # [R] these slots
    counts: np.ndarray  # [R] positions of each
    slot: np.ndarray  # [N] of each position
    place: np.ndarray  # [N] among those of its slot
    is_tick: np.ndarray  # bool [N]
    now: np.ndarray  # [N] the tick of each, or the last one before it
    first: np.ndarray  # [R] where those of a slot begin


def _call_of(counts: np.ndarray, is_tick: np.ndarray, state: LMState) -> Call:
    """counts: [B] positions of each slot. The newest tick of each slot moves on."""
    fed = np.flatnonzero(counts)
    own = counts[fed]
    first = np.cumsum(own) - own
    row = np.repeat(np.arange(len(fed)), own)
    ticks = np.cumsum(is_tick)
    before = ticks[first] - is_tick[first]
    now = state.now[fed][row] + ticks - before[row]
    state.now[fed] = now[first + own - 1]
    return Call(fed, own, fed[row], np.arange(len(row)) - first[row], is_tick, now, first)


def evict(config: LMConfig, state: LMState, call: Call) -> None:
    """Free the cells that none of the positions about to be fed may see, and hide the oldest text
    beyond its window from each tick on.

    Text since the last tick does not count yet: it may be fed in one call or in several, and what
    is seen must not differ.
    """
    ticks_fed = np.add.reduceat(call.is_tick, call.first, dtype=np.int64)
    place = np.flatnonzero(ticks_fed)
    slots, first = call.fed[place], call.first[place]
    position, ticks, pinned = (
        part[slots, : state.reach] for part in (state.position, state.tick, state.pinned)
    )
    in_use = position >= 0
    own = in_use & ~pinned
    oldest = (call.now[first] - config.tick_window).astype(np.int32)
    row, cell = np.nonzero(own & (ticks <= oldest[:, None]))
    state.position[slots[row], cell] = -1

    text = own & (ticks == TEXT)
    counted = (text & (position < state.tick_position[slots, None])).sum(1)
    # In a call of several ticks what is fed between them counts for the later ones.
    several = text.sum(1) + call.counts[place] - ticks_fed[place]
    most = np.where(ticks_fed[place] > 1, np.maximum(several, counted), counted)
    for row in np.flatnonzero(most > config.text_window):
        positions = slice(first[row], first[row] + call.counts[place[row]])
        oldest_first = np.flatnonzero(text[row])
        oldest_first = oldest_first[np.argsort(position[row, oldest_first])]
        fed = call.is_tick[positions], call.now[positions]
        _hide(config, state.tick[slots[row]], oldest_first, int(counted[row]), *fed)


def _hide(
    config: LMConfig,
    ticks: np.ndarray,
    text: np.ndarray,
    counted: int,
    is_tick: np.ndarray,
    now: np.ndarray,
) -> None:
    """Treat the oldest text of a slot like ticks that leave their window, from each tick on.

    Args:
        ticks: [C] of the slot's cells, to be changed.
        text: [T] cells with text, oldest first.
        counted: how many of these count by now.
        is_tick, now: [n] of the positions about to be fed.
    """
    hidden = 0
    for tick in np.flatnonzero(is_tick):
        beyond = counted - config.text_window
        if beyond > hidden:
            ticks[text[hidden:beyond]] = now[tick] - config.tick_window
            hidden = beyond
        counted = len(text) + int((~is_tick[:tick]).sum())


def _allot(state: LMState, call: Call, pin: bool) -> tuple[np.ndarray, np.ndarray]:
    """Give cells to the positions of a call, the first ones that are free -> cells and positions
    [N] each."""
    fed, counts = call.fed, call.counts
    free = state.position[fed, : state.reach + counts.max()] < 0
    row, cell = np.nonzero(free & (np.cumsum(free, 1, np.int32) <= counts[:, None]))
    found = np.bincount(row, minlength=len(fed))
    for slot, count in zip(fed[found < counts], counts[found < counts], strict=True):
        raise AssertionError(
            f"slot {slot}: {count} positions do not fit into the cache of "
            f"{state.position.shape[1]} cells"
        )
    position = state.next_position[call.slot] + call.place
    state.next_position[fed] += counts
    is_tick = call.is_tick
    state.tick_position[call.slot[is_tick]] = position[is_tick]  # of several the last one counts
    state.position[call.slot, cell] = position
    state.tick[call.slot, cell] = np.where(is_tick, call.now, TEXT)
    state.pinned[call.slot, cell] = pin
    return cell, position


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
def forward_trees(
    lm: LM, x: torch.Tensor, trees: dict[int, Sequence[int]], state: LMState, after: str
) -> torch.Tensor:
    """Score trees of text without feeding them (tree attention, Miao et al., 2023, SpecInfer).

    The state stays as it was: only cells that are free, and remain so, are written to.

    Args:
        x: [N, D] inputs, tree after tree, at most CALL_CELLS of each.
        trees: by slot, for each input the place of what it follows, before its own; -1: nothing of
            the tree.
        after: "prompt" (a tree follows its slot's prompt and nothing else) or "all" (it follows all
            that the slot was fed).

    Returns hidden states [N, D].
    """
    cells = {slot: _first_free(state, slot, len(parents)) for slot, parents in trees.items()}
    used = max(_used_cells(state), 1 + max(int(own.max()) for own in cells.values()))
    length = max(map(len, trees.values()))
    # The rows of the other slots, and of places that are not in use, mean nothing.
    visible = np.ones((len(state.position), length, used), bool)
    positions = []
    for slot, parents in trees.items():
        before, begin = _seen_before(lm.config, state, slot, after, used)
        position = np.zeros(len(parents), np.int64)
        for place, (parent, cell) in enumerate(zip(parents, cells[slot], strict=True)):
            visible[slot, place] = before if parent < 0 else visible[slot, parent]
            position[place] = begin if parent < 0 else position[parent] + 1
            visible[slot, place, cell] = True
        positions.append(position)
    counts = [*map(len, trees.values())]
    slots = np.repeat([*trees], counts)
    place = np.concatenate([slot * length + np.arange(len(own)) for slot, own in trees.items()])
    cell = np.concatenate([*cells.values()])
    return _call(lm, x, state, np.concatenate(positions), visible, slots, cell, place)


def free_cells(state: LMState, slot: int) -> int:
    """How many cells of a slot are free."""
    in_use = np.count_nonzero(state.position[slot, : state.reach] >= 0)
    return state.position.shape[1] - in_use


def _first_free(state: LMState, slot: int, count: int) -> np.ndarray:
    """The first free cells of a slot, [count]."""
    cells = np.flatnonzero(state.position[slot, : state.reach + count] < 0)[:count]
    assert len(cells) == count, f"slot {slot}: {count} positions do not fit into its free cells"
    return cells


def _seen_before(
    config: LMConfig, state: LMState, slot: int, after: str, used: int
) -> tuple[np.ndarray, int]:
    """What the root of a tree sees, bool [used], and its position: see `forward_trees`."""
    positions, ticks = state.position[slot, :used], state.tick[slot, :used]
    if after == "prompt":
        seen = state.pinned[slot, :used] & (positions >= 0) & (ticks == TEXT)
        return seen, int(positions[seen].max(initial=-1)) + 1
    begin = state.next_position[slot, None]
    seen = visible_cells(config, positions, ticks, begin, state.now[slot, None])[0]
    return seen, int(begin[0])
