"""The vocoder's arithmetic, and that its decoder looks no further than promised."""

import math

import torch

from duplex.audio import CODEC_FRAME_SAMPLES, SAMPLE_RATE
from duplex.model.tts.vocoder import (
    OVERLAP_FRAMES,
    WINDOW_SAMPLES,
    FrameDecoder,
    minimum_phase,
    overlap_add,
    pulse_train,
)
from duplex.voices import Voice


def relative(ours: torch.Tensor, true: torch.Tensor) -> float:
    return float((ours - true).norm() / true.norm())


def test_decoder_sees_no_later_frame():
    torch.manual_seed(0)
    decoder = FrameDecoder(16, 32, 2, 7)
    latent = torch.randn(1, 24, 16, requires_grad=True)
    wave, _ = decoder.step(latent, decoder.initial_state(1))
    frame = 7
    own = slice(frame * CODEC_FRAME_SAMPLES, (frame + 1) * CODEC_FRAME_SAMPLES)
    wave[:, own].square().sum().backward()
    assert latent.grad[:, frame + 1 :].abs().max() == 0
    assert latent.grad[:, frame].abs().max() > 0


def test_overlap_add_is_the_plain_sum():
    windows = torch.randn(2, 5, OVERLAP_FRAMES * 4)
    plain = torch.zeros(2, (5 + OVERLAP_FRAMES - 1) * 4)
    for t in range(5):
        plain[:, t * 4 : (t + OVERLAP_FRAMES) * 4] += windows[:, t]
    wave, tail = overlap_add(windows, torch.zeros(2, OVERLAP_FRAMES - 1, 4))
    torch.testing.assert_close(torch.cat([wave, tail.flatten(1)], dim=1), plain)


def test_pulses_are_the_sum_of_harmonics():
    hz = torch.tensor([[200.0]])
    pulses, _ = pulse_train(hz, hz[:, 0], torch.zeros(1, dtype=torch.float64))
    time = torch.arange(1, CODEC_FRAME_SAMPLES + 1, dtype=torch.float64) / SAMPLE_RATE
    plain = sum(torch.cos(2 * torch.pi * 200 * harmonic * time) for harmonic in range(1, 56))
    assert relative(pulses[0].double(), plain) < 1e-3


def test_pulses_in_pieces_are_the_whole():
    hz = torch.tensor([[200.0, 210.0, 230.0, 190.0]])
    start = torch.tensor([200.0]), torch.zeros(1, dtype=torch.float64)
    whole, _ = pulse_train(hz, *start)
    first, cycles = pulse_train(hz[:, :1], *start)
    second, _ = pulse_train(hz[:, 1:], hz[:, 0], cycles)
    assert relative(torch.cat([first, second], dim=1), whole) < 1e-5


def test_minimum_phase_is_causal_and_keeps_the_magnitude():
    frequency = torch.linspace(0, 1, WINDOW_SAMPLES // 2 + 1)
    log_magnitude = torch.sin(7 * frequency) + frequency
    spectrum = minimum_phase(log_magnitude)
    torch.testing.assert_close(spectrum.abs().log(), log_magnitude, rtol=1e-4, atol=1e-4)
    response = torch.fft.irfft(spectrum).square()
    assert response[: WINDOW_SAMPLES // 2].sum() > 0.99 * response.sum()


def test_state_of_some_slots_is_a_copy_that_can_be_put_back():
    state = FrameDecoder(16, 32, 2, 7).initial_state(3)
    for tensor in state.tensors():
        tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape))
    part = state.select([2, 0])
    assert [len(tensor) for tensor in part.tensors()] == [2] * len(state.tensors())
    before = [tensor.clone() for tensor in state.tensors()]
    part.reset([1])
    assert all(map(torch.equal, state.tensors(), before)), "the whole state has not changed"
    state.assign([2, 0], part)
    for tensor, old in zip(state.tensors(), before, strict=True):
        assert not tensor[0].any()
        assert torch.equal(tensor[1:], old[1:])


def test_voice_is_that_of_one_slot():
    state = FrameDecoder(16, 32, 2, 7).initial_state(2)
    state.set_voice(1, Voice(pitch=0.5, tract=0.8))
    torch.testing.assert_close(state.log_pitch, torch.tensor([0.0, math.log(0.5)]))
    torch.testing.assert_close(state.log_tract, torch.tensor([0.0, math.log(0.8)]))
