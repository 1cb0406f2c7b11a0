"""The probe finds the past a layer may use and the units it has; evaluating the ears keeps what it has done."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from duplex.training.evaluation import hearing as evaluate_ears
from duplex.training.evaluation import probe

from duplex.audio import MEL_FRAMES_PER_TICK, TICK_SAMPLES
from duplex.events import Event
from duplex.model.encoder import Encoder, EncoderConfig

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


def test_held():
    assert probe.held(torch.tensor([0.5, 0.4, 0.09, 0.01]), 0.9) == 2
    assert probe.held(torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), 0.99).tolist() == [1, 3]


def test_all_of_an_even_window_is_used(encoder, tmp_path):
    rows, curves, _ = probe.probe_layers(encoder, [sound()])
    assert [row["attention s"][1] for row in rows] == [TINY.window * probe.FRAME_S] * 2
    assert torch.allclose(curves["attention"].sum(1), torch.ones(2))
    probe.draw(curves, {0.32: [0.5, 0.0], 0.16: [0.6, 0.1]}, tmp_path / "probe.png")
    assert (tmp_path / "probe.png").stat().st_size > 1000


def test_forbidden_past_is_not_used(encoder):
    """Two layers that see the last 5 frames: the first reaches 5 frames of its input, the second 9."""
    rows, curves, _ = probe.probe_layers(probe.with_window(encoder, NEAR), [sound()])
    assert [row["attention s"][1] for row in rows] == [round(NEAR * probe.FRAME_S, 2)] * 2
    assert (curves["attention"][:, :NEAR] > 0).all() and not curves["attention"][:, NEAR:].any()
    for curve, reach in zip(curves["influence"], (NEAR, 2 * NEAR - 1), strict=True):
        assert (curve[:reach] > 0).all() and not curve[reach:].any()


def test_influence_is_the_norm_of_the_jacobian(encoder, monkeypatch):
    """Against all rows of the Jacobian of the first layer's last frame, over many random vectors."""
    monkeypatch.setattr(probe, "TARGETS", 1)
    mel, block = sound(6), encoder.blocks[0]

    def last(x: torch.Tensor) -> torch.Tensor:
        return block.attend(x, *block.project(x), block.clip_bias(x.shape[1]))[0, -1]

    jacobian = torch.autograd.functional.jacobian(
        last, probe.convolved(encoder, mel).detach()
    )  # [C, 1, T, C]
    exact = jacobian.square().sum((0, 1, 3)).sqrt().flip(0)  # [T]
    found = torch.stack([probe.influence(encoder, mel)[0] for _ in range(100)]).mean(0)[
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


def test_effective_rank():
    assert probe.effective_rank(torch.randn(2000, 6)) == pytest.approx(6, abs=0.1)
    assert probe.effective_rank(torch.randn(2000, 1) * torch.ones(6)) == pytest.approx(1, abs=1e-3)


class Echo:
    """Two slots; writes down the tick's loudness, three ticks later."""

    slots = 2

    def __init__(self):
        self.late: list[list[str]] = [[], []]

    def open(self, slot: int, seed: int) -> None:
        self.late[slot] = ["", "", ""]

    def close(self, slot: int) -> None:
        self.late[slot] = []

    def step(self, heard: np.ndarray, active: list[int]):
        events = [[], []]
        for slot in active:
            self.late[slot].append(
                f" {round(float(heard[slot].max()))}" if heard[slot].any() else ""
            )
            events[slot].append(Event("heard", 0, self.late[slot].pop(0)))
        return heard, events


def test_clips_side_by_side_come_back_in_their_order():
    waves = [
        np.full(ticks * TICK_SAMPLES - 7, level, np.float32)
        for ticks, level in ((3, 1), (1, 2), (2, 3))
    ]
    assert [text.split() for text in evaluate_ears.written(Echo(), waves)] == [
        ["1"] * 3,
        ["2"],
        ["3"] * 2,
    ]


def test_the_teacher_hears_no_sound_twice(tmp_path):
    heard = []

    def recognise(wave: np.ndarray) -> str:
        heard.append(wave)
        return "so it is"

    for _ in range(2):  # the second reads what the first has kept
        teacher = evaluate_ears.Offline(tmp_path / "teacher.jsonl", recognise)
        assert [teacher.transcribe(np.full(9, level, np.float32)) for level in (0.1, 0.2, 0.1)] == [
            "so it is"
        ] * 3
    assert len(heard) == 2


def test_plot_of_a_training(tmp_path):
    lines = [
        {"minutes": m, "pool": p, "phone_errors": w}
        for m, p, w in ((5, "a", 0.9), (5, "b", 0.8), (10, "a", 0.5))
    ]
    (tmp_path / "log.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in [{"minutes": 1, "ctc": 3.0}, *lines])
    )
    args = Namespace(plot=tmp_path / "log.jsonl", result=tmp_path / "training.json")
    assert evaluate_ears.plot_training(args) == {"a": [10, 0.5], "b": [5, 0.8]}
    assert (tmp_path / "training.png").stat().st_size > 1000


def test_wordless_sound_and_its_rate():
    noises = [np.random.default_rng(1).integers(-9000, 9000, 48_000).astype(np.int16)]
    waves = evaluate_ears.wordless(noises, 5 / 3, np.random.default_rng(0))
    assert (
        len(waves) == 5 and not waves[0].any() and all(0 < np.abs(wave).max() for wave in waves[1:])
    )
    assert evaluate_ears.words_a_minute(["so it is", "", "", "", ""], waves) == pytest.approx(1.8)
