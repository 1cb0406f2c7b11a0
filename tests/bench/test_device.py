"""The bench of ticks on a device, with the tiny agent: what is counted, what is told."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from duplex.audio import TICK_SAMPLES
from duplex.bench.device import run as bench
from duplex.bench.device.counted import GPUS, Kernel, count, lm_config
from duplex.errors import BenchError
from tests.tiny_speech_agent import tiny_parts


def test_a_tick_starts_the_same_kernels_for_any_number_of_slots():
    parts = tiny_parts()
    few, many = (count(parts, parts.lm.config, slots) for slots in (64, 512))
    assert few.launches() == many.launches() > 300
    for name, kernels in many.functions.items():
        assert [k.name for k in kernels] == [k.name for k in few.functions[name]]
    assert abs(few.a_slot - many.a_slot) < 0.05 * many.a_slot
    gpu = GPUS["L4"]
    assert few.seconds(gpu, 0) < many.seconds(gpu, 0) < many.seconds(gpu, 3)


def test_a_backbone_of_more_weights_takes_longer():
    parts = tiny_parts()
    small, large = (count(parts, lm_config(name, parts.lm.config), 8) for name in ("135M", "1.5B"))
    assert 130e6 < small.weights / 2 < 140e6 and 1.5e9 < large.weights / 2 < 1.6e9
    products = sum(kernel.flops for kernel in large.functions["LM"])
    assert 0.9 < products / (2 * 8 * 1.31e9) < 1.1  # twice its weights, without the embedding
    for gpu in GPUS.values():
        assert small.seconds(gpu, 2) < large.seconds(gpu, 2)


def test_a_kernel_takes_what_binds_it():
    gpu = GPUS["H200"]
    assert Kernel("nothing", 0, 0).seconds(gpu) == gpu.gap_s
    moved = gpu.bytes_s * gpu.bytes_share
    made = gpu.flops * gpu.flops_share
    assert Kernel("copy", moved, 0).seconds(gpu) == pytest.approx(1.0)
    assert Kernel("product", moved, 2 * made).seconds(gpu) == pytest.approx(2.0)


@pytest.mark.slow
def test_it_tells_what_it_measured_and_what_is_simulated(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "load_parts", lambda args: tiny_parts())
    monkeypatch.setattr(bench, "COUNTED", (8, 64))
    args = Namespace(slots="1,2", seconds=1.0, compute="cpu", dtype="float32", seed=0, out=tmp_path)
    sound = np.random.default_rng(0).normal(0, 0.1, 20 * TICK_SAMPLES).astype(np.float32)
    assert bench.run(args, [sound])
    told = capsys.readouterr().out
    assert "Simulated from counted kernels and bytes, not measured" in told
    report = json.loads((tmp_path / "device.json").read_text())
    assert [row["slots"] for row in report["measured"]] == [1, 2]
    for row in report["measured"]:
        assert row["waits"][1] <= 5 and row["ms"]["tick"][0] > 0
    assert set(report["simulated"]) == {"135M", "0.5B", "1.5B"}


def test_slots_that_are_no_numbers_are_refused(tmp_path: Path):
    with pytest.raises(BenchError, match="no list of numbers"):
        bench.run(Namespace(slots="many", out=tmp_path), [])
