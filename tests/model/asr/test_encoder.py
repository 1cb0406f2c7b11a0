"""The encoder: `step` equals `forward`, beyond the window too; no look-ahead; slots apart."""

import pytest
import torch

from duplex.audio import MEL_FRAMES_PER_TICK
from duplex.model.asr.encoder import PHONES, Encoder, EncoderConfig

TINY = EncoderConfig(width=24, layers=2, heads=3, window=16)  # Four ticks of window.


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(TINY).eval()
    for block in encoder.blocks:
        # Every distance has its own bias, or mistakes in distance would not show.
        torch.nn.init.normal_(block.distance_bias)
    return encoder


def mel(batch: int, ticks: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, ticks * MEL_FRAMES_PER_TICK, 80, generator=generator)


@torch.no_grad()
def run(
    encoder: Encoder, sound: torch.Tensor, chunks: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and CTC log-probabilities of a stream that comes in chunks of so many ticks."""
    state = encoder.initial_state(len(sound))
    parts = []
    for part in sound.split([n * MEL_FRAMES_PER_TICK for n in chunks], 1):
        out, state = encoder.step(part, state)
        parts.append(out)
    features, log_probs = zip(*parts, strict=True)
    return torch.cat(features, 1), torch.cat(log_probs, 1)


@pytest.mark.parametrize("chunks", [[1] * 15, [3, 1, 7, 4], [15], [5, 10]])
def test_step_equals_forward_beyond_the_window(encoder, chunks):
    """15 ticks are nearly four windows, and the ring of 5 ticks goes round three times."""
    sound = mel(2, 15)
    with torch.no_grad():
        whole = encoder(sound)
    for ours, theirs in zip(run(encoder, sound, chunks), whole, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).norm() / theirs.norm() < 1e-6


def test_shapes(encoder):
    features, log_probs = encoder(mel(2, 3))
    assert features.shape == (2, 3, TINY.features)
    assert log_probs.shape == (2, 12, 1 + len(PHONES))
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(2, 12))


def test_no_tick_depends_on_later_sound(encoder):
    sound = mel(1, 6).requires_grad_()
    _, log_probs = encoder(sound)
    for tick in range(6):
        frames = slice(4 * tick, 4 * tick + 4)
        energy = log_probs[:, frames].square().sum()
        (gradient,) = torch.autograd.grad(energy, sound, retain_graph=True)
        per_tick = gradient.abs().unflatten(1, (6, -1)).amax((0, 2, 3))
        assert per_tick[tick] > 0
        assert not per_tick[tick + 1 :].any()


@torch.no_grad()
def test_long_stream_forgets_what_is_out_of_reach(encoder):
    """After many windows the outputs are finite and no longer know how the stream began."""
    ending = mel(1, 12)
    long, _ = run(encoder, torch.cat([mel(1, 80, seed=2), ending], 1), [1] * 92)
    short, _ = run(encoder, torch.cat([mel(1, 9, seed=3), ending], 1), [1] * 21)
    assert long.isfinite().all()
    # Each of the two blocks looks back 16 frames, the convolutions less than one tick: 9 ticks are
    # enough.
    assert (long[:, -3:] - short[:, -3:]).norm() / short[:, -3:].norm() < 1e-5


@torch.no_grad()
def test_reset_of_one_slot_leaves_the_others(encoder):
    sound = mel(3, 14)
    undisturbed, heard = run(encoder, sound, [14])
    state = encoder.initial_state(3)
    encoder.step(sound[:, : 7 * MEL_FRAMES_PER_TICK], state)
    state.reset([1])
    (features, log_probs), _ = encoder.step(sound[:, 7 * MEL_FRAMES_PER_TICK :], state)
    assert torch.allclose(features[[0, 2]], undisturbed[[0, 2], 7:], atol=1e-5)
    assert torch.allclose(log_probs[[0, 2]], heard[[0, 2], 28:], atol=1e-4)
    fresh, heard = run(encoder, sound[1:2, 7 * MEL_FRAMES_PER_TICK :], [7])
    assert torch.allclose(features[1], fresh[0], atol=1e-5)
    assert torch.allclose(log_probs[1], heard[0], atol=1e-4)
