"""The compiled LM does what the network does with weights rounded to 8 bits."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from duplex.cpu.lm import CompiledLM
from duplex.model.kv_cache import forward_trees, initial_state, step
from duplex.model.lm import LM, LMConfig
from tests.cpu.reference import assert_near, rounded

# All that they call is compiled first.
pytestmark = pytest.mark.slow

CONFIG = LMConfig(
    width=32,
    layers=3,
    heads=4,
    kv_heads=2,
    hidden=48,
    vocabulary=75,
    rope_theta=1000.0,
    tick_window=6,
    text_window=10,
)


def run(lm: LM, dtype: torch.dtype) -> torch.Tensor:
    """Hidden states [n, D] of three slots of different lengths, in calls of one to five positions,
    over more ticks than the window holds, and of two trees."""
    torch.manual_seed(1)
    state = initial_state(CONFIG, 3, 16, dtype=dtype)
    found = []
    for counts in ([1, 0, 0], [2, 3, 1], *[[1, 5, 1]] * 6, [0, 0, 1]):
        is_tick = np.concatenate([np.arange(count) % 2 == 0 for count in counts])
        hidden, state = step(lm, torch.randn(len(is_tick), CONFIG.width), counts, is_tick, state)
        found.append(hidden)
    for after in ("prompt", "all"):
        x = torch.randn(3, CONFIG.width)
        found.append(forward_trees(lm, x, {1: [-1, 0, 0]}, state, after))
    return torch.cat(found)


@pytest.mark.parametrize(
    ("dtype", "share", "more"),
    [
        (torch.float32, 1e-3, {}),
        (torch.float32, 1e-3, {"qkv_bias": True, "tied": False}),
        (torch.bfloat16, 2e-2, {}),
    ],
)
def test_compiled_lm_is_the_rounded_one(dtype, share, more):
    torch.manual_seed(0)
    lm = LM(replace(CONFIG, **more)).merge().eval()
    for block in lm.blocks:
        if block.qkv.bias is not None:
            torch.nn.init.normal_(block.qkv.bias)
    if lm.output is not None:
        torch.nn.init.normal_(lm.output, std=0.02)
    plain = rounded(lm, ("qkv.weight", ".out.", "gate_up", "down", "embedding", "output"))
    compiled = CompiledLM(copy.deepcopy(lm))
    expected = run(plain, torch.float32)
    hidden = run(compiled, dtype)
    assert_near(hidden, expected, share)
    for text in (True, False):
        assert_near(compiled.logits(hidden, text), plain.logits(expected, text).detach(), share)
