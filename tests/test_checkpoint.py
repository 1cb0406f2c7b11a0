"""Checkpoints: what is saved is what is loaded, packed or not."""

from dataclasses import dataclass

import torch
from safetensors.torch import save_file

from duplex.checkpoint import load_config, load_tensors, pack, save


@dataclass(frozen=True)
class Config:
    width: int = 3
    pieces: tuple[int, ...] = ()


def test_round_trip(tmp_path):
    tensors = {"a": torch.randn(4, 5), "n": torch.arange(3)}
    save(tensors, Config(7, (1, 2)), tmp_path)
    assert load_config(Config, tmp_path) == Config(7, (1, 2))
    loaded = load_tensors(tmp_path)
    assert torch.equal(loaded["a"], tensors["a"]) and torch.equal(loaded["n"], tensors["n"])


def test_packed_rows_keep_their_own_scale(tmp_path):
    """8 bits cost a small matrix nothing, a large one at most half a step of its own row."""
    large = torch.randn(3, 64, 128) * torch.logspace(-3, 3, 3)[:, None, None]
    tensors = {"large": large, "small": torch.randn(4, 4), "ids": torch.arange(5)}
    save_file(pack(tensors), tmp_path / "model.safetensors")
    loaded = load_tensors(tmp_path)
    assert set(loaded) == set(tensors) and torch.equal(loaded["ids"], tensors["ids"])
    step = large.abs().amax(-1, keepdim=True) / 127
    assert ((loaded["large"] - large).abs() <= 0.52 * step).all()
    torch.testing.assert_close(loaded["small"], tensors["small"], rtol=1e-3, atol=1e-3)
