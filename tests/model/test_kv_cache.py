"""The cache: it equals the uncached forward pass, forgets what it should, and keeps slots apart."""

import numpy as np
import pytest
import torch

from duplex.model.kv_cache import (
    TEXT,
    LMState,
    drop,
    forward_trees,
    initial_state,
    rollback,
    step,
    uncommit,
    visible_cells,
)
from duplex.model.lm import LM, LMConfig

TINY = LMConfig(
    width=32,
    layers=3,
    heads=4,
    kv_heads=2,
    hidden=48,
    vocabulary=64,
    rope_theta=1000.0,
    lora_rank=4,
    feature_width=12,
    tick_window=6,
    text_window=10,
)


@pytest.fixture
def model() -> LM:
    torch.manual_seed(0)
    return LM(TINY).eval()


def feed(
    model: LM, x: torch.Tensor, state: LMState, splits=(1,), is_tick=None, slot: int = 0
) -> torch.Tensor:
    """Feed x [L, D] to one slot in calls of these lengths by turns -> hidden states [L, D]."""
    slots = len(state.position)
    found = []
    begin = 0
    while begin < len(x):
        count = min(splits[len(found) % len(splits)], len(x) - begin)
        part = slice(begin, begin + count)
        ticks = np.zeros(count, bool) if is_tick is None else is_tick[part]
        counts = [count if s == slot else 0 for s in range(slots)]
        hidden, state = step(model, x[part], counts, ticks, state)
        found.append(hidden)
        begin += count
    return torch.cat(found)


@torch.no_grad()
def uncached(model: LM, x: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Hidden states [L, D] of one forward pass over x [L, D]; visible bool [L, L]."""
    return model(x[None], torch.arange(len(x))[None], visible[None])[0]


def causal(length: int) -> torch.Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()


def assert_close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("splits", [(1,), (2,), (3, 1, 2), (5,)])
def test_cache_equals_uncached_with_eviction(model, splits):
    """Ticks older than the window are forgotten in the same way, whatever the calls were."""
    x = torch.randn(40, TINY.width)
    is_tick = np.arange(40) % 5 != 4  # Eight text positions are inside the text window.
    got = feed(model, x, initial_state(TINY, 1), splits, is_tick)
    index = np.arange(len(x))
    now = np.cumsum(is_tick) - 1
    visible = visible_cells(TINY, index, np.where(is_tick, now, TEXT), index, now)
    assert_close(got, uncached(model, x, torch.from_numpy(visible)))


def test_memory_is_bounded(model):
    state = initial_state(TINY, 1, prompt_cells=4)
    is_text = np.arange(400) % 3 == 0
    feed(model, torch.randn(400, TINY.width), state, (2,), ~is_text)
    is_used = state.position[0] >= 0
    texts = (is_used & (state.tick[0] == TEXT)).sum()
    ticks = (is_used & (state.tick[0] != TEXT)).sum()
    assert texts <= TINY.text_window + 2  # Those of the last call are counted later.
    assert ticks <= TINY.tick_window + 2  # Text that is about to leave counts as a tick.


def test_rollback_is_exact(model):
    x = torch.randn(12, TINY.width)
    plain, drafted = initial_state(TINY, 1), initial_state(TINY, 1)
    feed(model, x[:6], plain, (2,))
    feed(model, x[:6], drafted, (2,))
    feed(model, torch.randn(3, TINY.width), drafted, (3,))
    rollback(drafted, 0, 3)
    torch.testing.assert_close(feed(model, x[6:], drafted), feed(model, x[6:], plain))
    assert (plain.position == drafted.position).all()


def test_dropped_text_leaves_no_trace(model):
    """What follows a drop sees neither keys nor values of the dropped positions."""
    x = torch.randn(10, TINY.width)
    state = initial_state(TINY, 1)
    feed(model, x[:8], state)
    drop(state, 0, [5, 6, 7])
    got = feed(model, x[8:], state)
    visible = causal(10)
    visible[8:, 5:8] = False
    assert_close(got, uncached(model, x, visible)[8:])


def test_uncommitted_ticks_may_be_fed_again(model):
    """Two positions of text are forgotten with two of the three ticks behind them."""
    x = torch.randn(8, TINY.width)
    is_tick = np.array([True, True, True, False, False, True, True, True])
    state = initial_state(TINY, 1)
    feed(model, x, state, is_tick=is_tick)
    assert uncommit(state, 0, [3, 4], max_ticks=2) == 2
    assert sorted(state.position[0][state.position[0] >= 0]) == [0, 1, 2, 5]
    assert state.now[0] == 3
    again = feed(model, x[6:], state, is_tick=is_tick[6:])
    visible = causal(10)
    visible[8:, [3, 4, 6, 7]] = False
    assert_close(again, uncached(model, torch.cat([x, x[6:]]), visible)[8:])


@pytest.mark.parametrize("after", ["prompt", "all"])
def test_tree_equals_each_branch_alone_and_leaves_no_trace(model, after):
    prompt, x, branch = (torch.randn(n, TINY.width) for n in (3, 6, 4))
    parents = [-1, 0, 0, 2]
    paths = [[0], [0, 1], [0, 2], [0, 2, 3]]

    def fed() -> LMState:
        """Slot 1 of two with a prompt, text, and more ticks than the window holds."""
        state = initial_state(TINY, 2)
        step(model, prompt, [0, 3], np.zeros(3, bool), state, pin=True)
        feed(model, x[:1], state, slot=1)
        for tick in x[1:4].repeat(TINY.tick_window, 1):
            step(model, tick[None], [0, 1], np.ones(1, bool), state)
        return state

    state, untouched = fed(), fed()
    before = state.position.copy()
    got = forward_trees(model, branch, {1: parents}, state, after)
    for place, path in enumerate(paths):
        if after == "all":
            expected = feed(model, branch[path], fed(), slot=1)[-1]
        else:
            text = torch.cat([prompt, branch[path]])
            expected = uncached(model, text, causal(len(text)))[-1]
        assert_close(got[place], expected)
    assert (state.position == before).all()
    assert torch.equal(*(feed(model, x[4:], each, slot=1) for each in (state, untouched)))


def test_slots_do_not_see_each_other(model):
    """Two sessions that join at other times and feed other numbers of positions equal each alone;
    so after a reset."""
    a, b = torch.randn(7, TINY.width), torch.randn(5, TINY.width)
    state = initial_state(TINY, 2)
    feed(model, torch.randn(9, TINY.width), state, slot=1)  # An earlier session.
    state.reset([1])
    assert not state.keys[:, 1].any()
    assert (state.position[1] == -1).all()
    first = feed(model, a[:3], state, (3,))
    text = np.zeros(5, bool)
    middle, state = step(model, torch.cat([a[3:5], b[:3]]), [2, 3], text, state)
    last, state = step(model, torch.cat([a[5:], b[3:]]), [2, 2], text[:4], state)
    assert_close(torch.cat([first, middle[:2], last[:2]]), feed(model, a, initial_state(TINY, 1)))
    assert_close(torch.cat([middle[2:], last[2:]]), feed(model, b, initial_state(TINY, 1)))


def test_too_many_positions_is_a_clear_error(model):
    state = initial_state(TINY, 1, prompt_cells=0)
    with pytest.raises(AssertionError, match="99 positions do not fit into the cache of 80 cells"):
        step(model, torch.zeros(99, TINY.width), [99], np.zeros(99, bool), state)


def feed_plainly(state: LMState, slot: int, is_tick: np.ndarray) -> int:
    """What a call does to the cells of a slot, position by position; returns how many texts it
    hid."""
    hidden = 0
    position, tick = state.position[slot], state.tick[slot]
    is_text = (position >= 0) & (tick == TEXT) & ~state.pinned[slot]
    text = sorted(np.flatnonzero(is_text), key=lambda cell: position[cell])
    counted = int((position[text] < state.tick_position[slot]).sum())
    now = state.now[slot]
    for place, ticks in enumerate(is_tick):
        now += ticks
        if place == 0 and is_tick.any():
            old = (tick <= now - TINY.tick_window) & ~state.pinned[slot]
            position[old] = -1
        if ticks:
            for cell in text[: max(0, counted - TINY.text_window)]:
                if tick[cell] == TEXT:
                    tick[cell] = now - TINY.tick_window
                    hidden += 1
            counted = len(text) + place - int(is_tick[:place].sum())
    for ticks in is_tick:
        cell = np.flatnonzero(position < 0)[0]
        position[cell] = state.next_position[slot]
        state.now[slot] += ticks
        tick[cell] = state.now[slot] if ticks else TEXT
        state.pinned[slot, cell] = False
        if ticks:
            state.tick_position[slot] = position[cell]
        state.next_position[slot] += 1
    return hidden


def test_cells_of_all_slots_are_those_of_a_plain_loop():
    """So many positions, ticks and texts, that both leave their windows; some are taken back."""
    random = np.random.default_rng(0)
    state = initial_state(TINY, 3, prompt_cells=4)
    same = initial_state(TINY, 3, prompt_cells=4)
    same.reach = same.position.shape[1]
    hidden = 0
    for _ in range(300):
        counts = random.integers(0, 6, 3) * (random.random(3) < 0.7)
        counts[random.integers(3)] += 1
        is_tick = random.random(counts.sum()) < 0.4
        step(Echo(), torch.zeros(len(is_tick), 1), counts.tolist(), is_tick, state)
        for slot, own in enumerate(np.split(is_tick, np.cumsum(counts)[:-1])):
            hidden += feed_plainly(same, slot, own)
        slot = int(random.integers(3))
        for each in (state, same):
            drop(each, slot, [int(each.next_position[slot]) - 3])
        for name in ("position", "tick", "pinned", "now", "next_position", "tick_position"):
            np.testing.assert_array_equal(getattr(state, name), getattr(same, name))
        assert (state.position[:, state.reach :] < 0).all()
    assert hidden > 100


class Echo:
    """Stands in for an LM: its states are its inputs."""

    config = TINY

    def __call__(self, x, positions, visible, cache):
        return x
