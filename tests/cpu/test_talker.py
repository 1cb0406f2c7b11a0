"""The compiled talker does what the network does with weights rounded to 8 bits."""

import copy

import numpy as np
import pytest
import torch

from duplex.cpu.talker import CompiledTalker, sample_code
from duplex.model.tts.talker import PatchCache, Talker, TalkerConfig
from tests.cpu.reference import assert_near, round_rows, rounded

# All that they call is compiled first.
pytestmark = pytest.mark.slow

SLOTS = 3


def tiny_talker(temperature: float) -> Talker:
    torch.manual_seed(0)
    config = TalkerConfig(
        phone_width=16,
        width=32,
        layers=2,
        heads=2,
        hidden=48,
        code_width=16,
        codebooks=4,
        codebook_size=48,
        drawn_codebooks=3,
        window_frames=24,
        temperature_first=temperature,
        temperature_rest=temperature,
        top_k=7,
    )
    talker = Talker(config).eval()
    talker.silence_codes.copy_(torch.tensor([3, 1, 2, 0]))
    return talker


def rounded_talker(talker: Talker) -> Talker:
    """With the weights that the compiled one has."""
    talker = copy.deepcopy(talker)
    for parameter in (talker.head.inner, talker.head.outer):  # They are applied the other way.
        parameter.data = round_rows(parameter.data.transpose(1, 2)).transpose(1, 2)
    joined = torch.cat([talker.history_in.weight, talker.condition_in.weight], 1).data
    talker.history_in.weight.data, talker.condition_in.weight.data = round_rows(joined).chunk(2, 1)
    names = ("qkv", "out.", "gate_up", "down", "head_in", "head_condition", "head_previous")
    return rounded(talker, names)


@pytest.mark.parametrize(
    ("temperature", "dtype", "share"),
    [(0.0, torch.float32, 1e-3), (0.6, torch.float32, 1e-3), (0.6, torch.bfloat16, 2e-2)],
)
@torch.no_grad()
def test_compiled_talker_is_the_rounded_one(temperature, dtype, share):
    """The same codes from the same random numbers, beyond the window, and silence where it is
    forced; the third slot is silent throughout."""
    talker = tiny_talker(temperature)
    config = talker.config
    plain, compiled = rounded_talker(talker), CompiledTalker(talker)
    ring = config.window + 1
    shape = (config.layers, SLOTS, config.heads, ring, config.width // config.heads)
    caches = [
        (torch.zeros(shape, dtype=kind), torch.zeros(shape, dtype=kind))
        for kind in (torch.float32, dtype)
    ]
    visible = torch.zeros(SLOTS, 1, 1, ring, dtype=torch.bool)
    history = torch.zeros(SLOTS, config.patch_frames * config.code_width)
    same = []
    for patch in range(30):
        place = torch.tensor([patch % ring])
        visible[..., (patch - config.window) % ring] = False
        visible[..., place] = True
        rest = visible, place, plain.rotary[[patch]]
        forced = torch.tensor([[False, False], [patch % 3 == 0, False], [True, True]])
        conditions = torch.randn(SLOTS, config.patch_frames, config.code_width)
        uniform = torch.rand(SLOTS, config.patch_frames, config.drawn)
        hidden, our_hidden = (
            one.patch_state(history, conditions, forced, PatchCache(*cache, *rest))
            for one, cache in zip((plain, compiled), caches, strict=True)
        )
        assert_near(our_hidden[:2], hidden[:2], share)
        (codes, sums), (our_codes, our_sums) = (
            one.sample_patch(hidden, conditions, uniform, forced) for one in (plain, compiled)
        )
        same.append((codes == our_codes).all(-1))
        silence = talker.silence_codes[: config.drawn].expand(int(forced.sum()), -1)
        assert torch.equal(our_codes[forced], silence)
        embedded = talker.embed(our_codes).sum(2)
        torch.testing.assert_close(our_sums.view(embedded.shape), embedded)
        history = sums  # Both go on from the same.
    # A draw on a border may fall to the other side.
    assert torch.stack(same).float().mean() > 0.95
    # The compiled one's keys lie cell beside cell.
    keys = caches[1][0].view(*shape[:3], shape[4], ring).transpose(-1, -2)
    assert_near(keys[:, :2], caches[0][0][:, :2], share)
    assert_near(caches[1][1][:, :2], caches[0][1][:, :2], share)


@pytest.mark.parametrize("kind", ["spread", "ties", "equal", "below zero"])
def test_sampling_the_best_equals_sorting_all(kind):
    rng = np.random.default_rng(0)
    spread = (rng.standard_normal((200, 300)) * rng.uniform(0.1, 9, (200, 1))).astype(np.float32)
    logits = {
        "spread": spread,
        "ties": spread.round(),
        "equal": np.ones_like(spread),
        "below zero": spread - 50,
    }[kind]
    uniform, best = rng.random(200, np.float32), np.empty(30, np.int64)
    temperature = np.float32(0.7)
    ours = [
        sample_code(row, temperature, 30, share, best)
        for row, share in zip(logits, uniform, strict=True)
    ]
    order = np.argsort(-logits, axis=1, kind="stable")[:, :30]  # The first of equal ones.
    top = torch.from_numpy(np.take_along_axis(logits, order, 1))
    shares = top.div(0.7).softmax(-1).cumsum(-1).numpy()
    expected = [
        row[(share < u * share[-1]).sum()]
        for row, share, u in zip(order, shares, uniform, strict=True)
    ]
    # A draw on a border may fall to the other side.
    assert np.mean(np.array(ours) == expected) > 0.98
