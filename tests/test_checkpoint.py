"""Checkpoints: what is saved is what is loaded, packed or not."""

from dataclasses import dataclass

import pytest
import torch
from duplex.training.average import average
from duplex.training.export import export_part
from safetensors.torch import save_file

from duplex.checkpoint import load_config, load_tensors, pack, save
from duplex.model.lm import LMConfig


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


def test_the_mean_of_checkpoints_of_one_model(tmp_path):
    for name, value, width in (("a", 1.0, 7), ("b", 4.0, 7), ("other", 4.0, 8)):
        save({"w": torch.full((2, 3), value), "n": torch.arange(3)}, Config(width), tmp_path / name)
    average([(tmp_path / "a", 0.5), (tmp_path / "b", 1.0)], tmp_path / "mean")
    mean = load_tensors(tmp_path / "mean")
    assert load_config(Config, tmp_path / "mean") == Config(7)
    assert torch.equal(mean["w"], torch.full((2, 3), 3.0)) and torch.equal(
        mean["n"], torch.arange(3)
    )
    with pytest.raises(ValueError, match="not of one model"):
        average([(tmp_path / "a", 0.5), (tmp_path / "other", 0.5)], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_exported_part_is_packed_and_its_adapters_may_be_weaker(tmp_path):
    weight = torch.randn(300, 64)
    save({"block.weight": weight}, LMConfig(lora_scale=2.0), tmp_path / "lm")
    export_part(tmp_path / "lm", tmp_path / "agent" / "lm", strength=0.8)
    assert load_config(LMConfig, tmp_path / "agent" / "lm").lora_scale == pytest.approx(1.6)
    assert (load_tensors(tmp_path / "agent" / "lm")["block.weight"] - weight).abs().max() < 0.03
