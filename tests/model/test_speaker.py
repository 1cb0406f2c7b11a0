"""The speaker head: a stream gives what a whole clip gives; no look-ahead; slots apart."""

import pytest
import torch

from duplex.audio import ENCODER_FRAMES_PER_TICK
from duplex.model.speaker import SpeakerConfig, SpeakerHead

TINY = SpeakerConfig(encoder_width=6, width=5, hidden=7, vector=4)
TICKS = 12


@pytest.fixture
def head() -> SpeakerHead:
    torch.manual_seed(0)
    return SpeakerHead(TINY).eval()


def early(batch: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = batch, TICKS * ENCODER_FRAMES_PER_TICK, 2 * TINY.encoder_width
    return torch.randn(shape, generator=generator)


@torch.no_grad()
@pytest.mark.parametrize("chunks", [[1] * TICKS, [5, 1, 6]])
def test_a_stream_gives_what_a_whole_clip_gives(head, chunks):
    sound = early(2)
    state = head.initial_state(2)
    parts = []
    for part in sound.split([n * ENCODER_FRAMES_PER_TICK for n in chunks], 1):
        vectors, state = head.step(part, state)
        parts.append(vectors)
    whole = head(sound)
    assert whole.shape == (2, TICKS, TINY.vector)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-6)


def test_no_tick_depends_on_later_sound(head):
    sound = early(1).requires_grad_()
    vectors = head(sound)
    for tick in range(TICKS):
        (gradient,) = torch.autograd.grad(vectors[:, tick].square().sum(), sound, retain_graph=True)
        per_tick = gradient.abs().unflatten(1, (TICKS, -1)).amax((0, 2, 3))
        assert per_tick[tick] > 0
        assert not per_tick[tick + 1 :].any()


@torch.no_grad()
def test_a_slot_that_is_reset_has_heard_nothing(head):
    state = head.initial_state(2)
    _, state = head.step(early(2), state)
    state.reset([1])
    found, _ = head.step(early(2, seed=2), state)
    fresh, _ = head.step(early(2, seed=2), head.initial_state(2))
    torch.testing.assert_close(found[1], fresh[1])
    assert not torch.allclose(found[0], fresh[0])
