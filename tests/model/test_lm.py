"""The LM against `transformers`, and its cache against the uncached forward pass."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from duplex.model import kv_cache
from duplex.model.backbone import fill
from duplex.model.kv_cache import (
    TEXT,
    consider,
    drop,
    initial_state,
    reset,
    rollback,
    step,
    visible_cells,
)
from duplex.model.lm import LM, LMConfig

TINY = LMConfig(
    width=32, layers=3, heads=4, kv_heads=2, hidden=48, vocabulary=64, rope_theta=1000.0, lora_rank=4, feature_width=12,
    tick_window=6, text_window=10,
)  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = LM(TINY).eval()
    for block in model.blocks:  # adapters that do something
        for linear in (block.qkv, block.out, block.gate_up, block.down):
            torch.nn.init.normal_(linear.lora_b, std=0.1)
    return model


def feed(model, x, state, slot=0, splits=(1,), is_tick=None, slots=1):
    """Feed x [L, D] to one slot in chunks -> hidden [L, D]."""
    rows, begin, i = [], 0, 0
    while begin < len(x):
        count = min(splits[i % len(splits)], len(x) - begin)
        batch = torch.zeros(slots, count, x.shape[1])
        batch[slot] = x[begin : begin + count]
        ticks = np.zeros((slots, count), bool)
        if is_tick is not None:
            ticks[slot] = is_tick[begin : begin + count]
        counts = [count if s == slot else 0 for s in range(slots)]
        hidden, state = step(model, batch, counts, ticks, state)
        rows.append(hidden[slot])
        begin, i = begin + count, i + 1
    return torch.cat(rows)


def uncached(model, x, is_tick):
    """The same through one forward pass with the visibility rule written out."""
    index = np.arange(len(x))
    now = np.cumsum(is_tick) - 1
    cell_tick = np.where(is_tick, now, TEXT)
    visible = visible_cells(TINY, index, cell_tick, index, now)
    with torch.no_grad():
        return model(x[None], torch.arange(len(x))[None], torch.from_numpy(visible)[None])[0]


def test_equals_transformers_llama():
    """Logits of our blocks and of `LlamaForCausalLM` with the same random weights agree."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48,
        vocab_size=64, rope_parameters={"rope_type": "default", "rope_theta": 1000.0}, rms_norm_eps=1e-5, tie_word_embeddings=True,
    )  # fmt: skip
    reference = LlamaForCausalLM(config).eval()
    for name, parameter in reference.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    ours = LM(TINY).eval()
    fill(ours, {k.removeprefix("model."): v for k, v in reference.state_dict().items()})
    ours.control_in.data.copy_(ours.embedding[: len(ours.control_in)])
    ours.control_out.data.copy_(ours.embedding[: len(ours.control_out)])
    tokens = torch.randint(0, 64, (2, 9))
    with torch.no_grad():
        expected = reference(tokens).logits
        causal = torch.ones(9, 9, dtype=torch.bool).tril()[None].expand(2, -1, -1)
        got = ours.logits(ours(ours.embed(tokens), torch.arange(9)[None].expand(2, -1), causal))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        state = initial_state(TINY, 1)
        cached = ours.logits(feed(ours, ours.embed(tokens[0]), state, splits=(2, 1, 3)))
    torch.testing.assert_close(cached, expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("splits", [(1,), (2,), (3, 1, 2), (5,)])
def test_cache_equals_uncached_with_eviction(model, splits):
    """Ticks older than the window are forgotten in the same way, whatever the calls were."""
    x, is_tick = (
        torch.randn(40, TINY.width),
        np.arange(40) % 5 != 4,
    )  # 8 text positions: inside the text window
    state = initial_state(TINY, 1)
    got = feed(model, x, state, splits=splits, is_tick=is_tick)
    torch.testing.assert_close(got, uncached(model, x, is_tick), rtol=1e-4, atol=1e-5)


def test_memory_is_bounded(model):
    state, text = initial_state(TINY, 1, prompt_cells=4), np.arange(400) % 3 == 0
    feed(model, torch.randn(400, TINY.width), state, splits=(2,), is_tick=~text)
    used = state.position[0] >= 0
    assert (
        used & (state.tick[0] == TEXT)
    ).sum() <= TINY.text_window + 2  # and the positions of the last call
    assert (
        used & (state.tick[0] != TEXT)
    ).sum() <= TINY.tick_window + 2  # and text that is about to leave


def test_rollback_is_exact(model):
    x, is_tick = torch.randn(12, TINY.width), np.zeros(12, bool)
    plain, drafted = initial_state(TINY, 1), initial_state(TINY, 1)
    feed(model, x[:6], plain, splits=(2,), is_tick=is_tick)
    feed(model, x[:6], drafted, splits=(2,), is_tick=is_tick)
    feed(model, torch.randn(3, TINY.width), drafted, splits=(3,))
    rollback(drafted, 0, 3)
    expected, got = (feed(model, x[6:], s, splits=(1,)) for s in (plain, drafted))
    torch.testing.assert_close(got, expected)
    assert (plain.position == drafted.position).all()


def test_dropped_text_leaves_no_trace(model):
    """What follows a drop sees neither keys nor values of the dropped positions."""
    x = torch.randn(10, TINY.width)
    state = initial_state(TINY, 1)
    feed(model, x[:8], state)
    drop(state, 0, [5, 6, 7])
    got = feed(model, x[8:], state)
    visible = torch.ones(10, 10, dtype=torch.bool).tril()
    visible[8:, 5:8] = False
    with torch.no_grad():
        expected = model(x[None], torch.arange(10)[None], visible[None])[0, 8:]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("after", ["prompt", "all"])
def test_a_tree_is_read_ahead_and_leaves_no_trace(model, after):
    """Each branch as if it stood alone after the prompt, or came next; what is fed then goes on as it would have."""
    prompt, x, branch = (torch.randn(n, TINY.width) for n in (3, 6, 4))
    parents, paths = [-1, 0, 0, 2], [[0], [0, 1], [0, 2], [0, 2, 3]]

    def fed():
        state, batch = initial_state(TINY, 2), torch.zeros(2, 3, TINY.width)
        batch[1] = prompt
        step(model, batch, [0, 3], np.zeros((2, 3), bool), state, pin=True)
        feed(model, x[:1], state, slot=1, slots=2)
        for tick in x[1:4].repeat(TINY.tick_window, 1):  # more than the window holds
            step(model, tick.expand(2, 1, -1), [0, 1], np.ones((2, 1), bool), state)
        return state

    state, untouched = fed(), fed()
    got, before = consider(model, branch, parents, state, 1, after), state.position.copy()
    for place, path in enumerate(paths):
        if after == "all":
            expected = feed(model, branch[path], fed(), slot=1, slots=2)[-1]
        else:
            text = torch.cat([prompt, branch[path]])
            causal = torch.ones(len(text), len(text), dtype=torch.bool).tril()
            with torch.no_grad():
                expected = model(text[None], torch.arange(len(text))[None], causal[None])[0, -1]
        torch.testing.assert_close(got[place], expected, rtol=1e-4, atol=1e-5)
    assert (state.position == before).all()
    assert torch.equal(*(feed(model, x[4:], each, slot=1, slots=2) for each in (state, untouched)))


def test_slots_do_not_see_each_other(model):
    """Two sessions that join at other times and feed other numbers of positions equal each alone; so after a reset."""
    a, b = torch.randn(7, TINY.width), torch.randn(5, TINY.width)
    alone = [feed(model, a, initial_state(TINY, 1)), feed(model, b, initial_state(TINY, 1))]
    state = initial_state(TINY, 2)
    feed(model, torch.randn(9, TINY.width), state, slot=1, slots=2)  # an earlier session
    reset(state, 1)
    assert not state.keys[:, 1].any() and (state.position[1] == -1).all()
    first = feed(model, a[:3], state, slot=0, splits=(3,), slots=2)
    batch = torch.zeros(2, 3, TINY.width)
    batch[0, :2], batch[1] = a[3:5], b[:3]
    both, state = step(model, batch, [2, 3], np.zeros((2, 3), bool), state)
    batch = torch.zeros(2, 2, TINY.width)
    batch[0], batch[1] = a[5:], b[3:]
    last, state = step(model, batch, [2, 2], np.zeros((2, 2), bool), state)
    torch.testing.assert_close(
        torch.cat([first, both[0, :2], last[0]]), alone[0], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(torch.cat([both[1], last[1]]), alone[1], rtol=1e-4, atol=1e-5)


def test_causality_by_gradient(model):
    x = torch.randn(1, 8, TINY.width, requires_grad=True)
    visible = torch.ones(1, 8, 8, dtype=torch.bool).tril()
    model(x, torch.arange(8)[None], visible)[0, 4].sum().backward()
    assert x.grad[0, :5].abs().sum(-1).min() > 0
    assert x.grad[0, 5:].abs().max() == 0


def test_merged_adapters_change_nothing(model):
    x = torch.randn(1, 6, TINY.width)
    visible, positions = torch.ones(1, 6, 6, dtype=torch.bool).tril(), torch.arange(6)[None]
    with torch.no_grad():
        expected = model.logits(model(x, positions, visible))
        merged = model.merge()
        torch.testing.assert_close(
            merged.logits(merged(x, positions, visible)), expected, rtol=1e-4, atol=1e-4
        )


def test_projector_speaks_the_embeddings(model):
    """A tick with one sure piece looks like that piece's own embedding, with two like their mean; features add a residual."""
    with torch.no_grad():
        one, none, two, unsure = model.project(
            torch.randn(4, 12), [[(24, 1.0)], [], [(24, 1.0), (30, 1.0)], [(24, 0.25)]]
        )
    torch.testing.assert_close(one, model.embedding[24])
    torch.testing.assert_close(none, model.blank)
    torch.testing.assert_close(two, model.embedding[[24, 30]].mean(0))
    torch.testing.assert_close(unsure, 0.25 * model.embedding[24] + 0.75 * model.blank)
    torch.nn.init.normal_(model.residual.weight)
    assert not torch.allclose(
        model.project(torch.randn(1, 12), [[(24, 1.0)]])[0], model.embedding[24]
    )


def test_too_many_positions_is_a_clear_error(model):
    state = initial_state(TINY, 1, prompt_cells=0)
    with pytest.raises(AssertionError, match="do not fit"):
        step(model, torch.zeros(1, 99, TINY.width), [99], np.zeros((1, 99), bool), state)
    assert kv_cache.initial_state(TINY, 1).keys.shape[0] == TINY.layers
