"""The speaker head: a stream gives what a whole clip gives; no look-ahead; vectors add up."""

import pytest
import torch

from duplex.audio import ENCODER_FRAMES_PER_TICK
from duplex.model.speaker import SpeakerConfig, SpeakerHead

TINY = SpeakerConfig(width=6, vector=4)
TICKS = 12


@pytest.fixture
def head() -> SpeakerHead:
    torch.manual_seed(0)
    return SpeakerHead(TINY).eval()


def early(batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = batch, TICKS * ENCODER_FRAMES_PER_TICK, 2 * TINY.width
    return torch.randn(shape, generator=generator)


@torch.no_grad()
def test_a_stream_gives_what_a_whole_clip_gives(head):
    sound = early(2)
    whole = head(sound)
    parts = [head(part) for part in sound.split(ENCODER_FRAMES_PER_TICK, 1)]
    assert whole.shape == (2, TICKS, TINY.vector)
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_no_tick_depends_on_another(head):
    sound = early(1).requires_grad_()
    vectors = head(sound)
    for tick in range(TICKS):
        energy = vectors[:, tick].square().sum()
        (gradient,) = torch.autograd.grad(energy, sound, retain_graph=True)
        per_tick = gradient.abs().unflatten(1, (TICKS, -1)).amax((0, 2, 3))
        assert per_tick.nonzero().flatten().tolist() == [tick]


@torch.no_grad()
def test_loudness_does_not_matter(head):
    torch.testing.assert_close(head(3 * early(1)), head(early(1)), rtol=1e-3, atol=1e-3)
