"""The probe finds the past a layer may use and the units it has."""

import pytest
import torch

from duplex.audio import ENCODER_FRAME_S, MEL_FRAMES_PER_TICK
from duplex.model.encoder import Encoder, EncoderConfig
from duplex.training.evaluation import probe

TINY = EncoderConfig(width=24, layers=2, heads=3, window=16)
NEAR = 5  # frames


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(TINY).eval()
    for block in encoder.blocks:  # every frame within reach counts nearly the same
        block.distance_bias.data.zero_()
    return encoder


def sound(ticks: int = 30) -> torch.Tensor:
    return torch.randn(1, ticks * MEL_FRAMES_PER_TICK, 80)


def test_held_counts_entries_that_hold_a_share():
    assert probe.held(torch.tensor([0.5, 0.4, 0.09, 0.01]), 0.9) == 2
    assert probe.held(torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), 0.99).tolist() == [1, 3]


def test_all_of_an_even_window_is_used(encoder, tmp_path):
    rows, curves, _ = probe.probe_layers(encoder, [sound()])
    assert [row["attention s"][1] for row in rows] == [TINY.window * ENCODER_FRAME_S] * 2
    assert torch.allclose(curves["attention"].sum(1), torch.ones(2))
    probe.plot_probe(curves, {0.32: [0.5, 0.0], 0.16: [0.6, 0.1]}, tmp_path / "probe.png")
    assert (tmp_path / "probe.png").stat().st_size > 1000


def test_forbidden_past_is_not_used(encoder):
    """Two layers that see the last 5 frames: the first reaches 5 of its input, the second 9."""
    rows, curves, _ = probe.probe_layers(probe.with_window(encoder, NEAR), [sound()])
    assert [row["attention s"][1] for row in rows] == [round(NEAR * ENCODER_FRAME_S, 2)] * 2
    assert (curves["attention"][:, :NEAR] > 0).all() and not curves["attention"][:, NEAR:].any()
    for curve, reach in zip(curves["influence"], (NEAR, 2 * NEAR - 1), strict=True):
        assert (curve[:reach] > 0).all() and not curve[reach:].any()


def test_influence_is_the_norm_of_the_jacobian(encoder):
    """Against all rows of the Jacobian of the first layer's last frame, over many vectors."""
    mel, block = sound(6), encoder.blocks[0]

    def last(x: torch.Tensor) -> torch.Tensor:
        return block.attend(x, *block.project(x), block.clip_bias(x.shape[1]))[0, -1]

    jacobian = torch.autograd.functional.jacobian(
        last, probe.convolved(encoder, mel).detach()
    )  # [C, 1, T, C]
    exact = jacobian.square().sum((0, 1, 3)).sqrt().flip(0)  # [T]
    found = torch.stack([probe.influence(encoder, mel, targets=1)[0] for _ in range(100)]).mean(0)[
        : len(exact)
    ]
    assert torch.allclose(found, exact, rtol=0.2, atol=1e-3)


def test_idle_units_show(encoder):
    idle = 30
    encoder.blocks[1].down.weight.data[:, :idle] = 0  # these move nothing
    encoder.blocks[0].up.weight.data[:idle] = 0  # these never change
    mels = [sound()]
    rows, curves, units = probe.probe_layers(encoder, mels)
    assert [row["units at work"] for row in rows] == [4 * TINY.width - idle] * 2
    assert all(row["units that hold"][1] <= row["units at work"] for row in rows)
    smaller = probe.with_fewer_units(encoder, units, 1 - idle / (4 * TINY.width))
    with torch.no_grad():
        assert torch.allclose(smaller(mels[0])[0], encoder(mels[0])[0], atol=1e-5)
        assert not torch.allclose(
            probe.with_fewer_units(encoder, units, 0.25)(mels[0])[0], encoder(mels[0])[0], atol=1e-3
        )


def test_effective_rank_counts_directions():
    assert probe.effective_rank(torch.randn(2000, 6)) == pytest.approx(6, abs=0.1)
    assert probe.effective_rank(torch.randn(2000, 1) * torch.ones(6)) == pytest.approx(1, abs=1e-3)
