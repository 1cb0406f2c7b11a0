"""The codec: streaming equals the whole clip, nothing looks ahead, slots are independent. Tiny random models."""

import pytest
import torch
from duplex.training.objectives import codebooks

from duplex.audio import CODEC_FRAME_SAMPLES, CODEC_FRAMES_PER_TICK, SAMPLE_RATE
from duplex.model.codec import Codec, CodecConfig, load_codec, save_codec
from duplex.model.vocoder import (
    OVERLAP_FRAMES,
    WINDOW_SAMPLES,
    minimum_phase,
    overlap_add,
    pulse_train,
)

CONFIG = CodecConfig(
    codebook_size=32,
    latent_width=16,
    encoder_width=24,
    encoder_blocks=2,
    decoder_width=32,
    decoder_blocks=2,
)
FRAMES = 4 * CODEC_FRAMES_PER_TICK
SPLITS = ([1] * FRAMES, [CODEC_FRAMES_PER_TICK] * 4, [2, 9, 1, 12])


@pytest.fixture(scope="module")
def codec() -> Codec:
    torch.manual_seed(0)
    codec = Codec(CONFIG)
    wave = 0.1 * torch.randn(8, 1, FRAMES * CODEC_FRAME_SAMPLES)
    with torch.no_grad():
        latent = codec.encode_latent(wave).flatten(0, 1)
    codebooks.start(codec.quantizer, latent, len(latent), torch.Generator().manual_seed(0))
    return codec.eval()


@pytest.fixture
def wave() -> torch.Tensor:
    return 0.1 * torch.randn(
        2, 1, FRAMES * CODEC_FRAME_SAMPLES, generator=torch.Generator().manual_seed(1)
    )


def relative(ours: torch.Tensor, true: torch.Tensor) -> float:
    return float((ours - true).detach().norm() / true.detach().norm())


def decode_pieces(codec: Codec, codes: torch.Tensor, split: list[int]) -> torch.Tensor:
    state, pieces = codec.initial_decode_state(codes.shape[0]), []
    for part in codes.split(split, dim=2):
        piece, state = codec.decode_step(part, state)
        assert piece.shape == (codes.shape[0], part.shape[2] * CODEC_FRAME_SAMPLES)
        pieces.append(piece)
    return torch.cat(pieces, dim=1)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("number", [2, 4, 8])
def test_decode_stream_is_whole(codec, wave, split, number):
    codes = codec.encode(wave, number)
    assert codes.shape == (2, number, FRAMES)
    assert relative(decode_pieces(codec, codes, split), codec.decode(codes)) <= 1e-5


@pytest.mark.parametrize("split", SPLITS)
def test_encode_stream_is_whole(codec, wave, split):
    state, latents, codes = codec.initial_encode_state(2), [], []
    other = codec.initial_encode_state(2)
    for part in wave.split([frames * CODEC_FRAME_SAMPLES for frames in split], dim=2):
        latent, state = codec.encoder.step(part[:, 0], state)
        latents.append(latent)
        piece, other = codec.encode_step(part, other)
        codes.append(piece)
    assert relative(torch.cat(latents, dim=1), codec.encode_latent(wave)) <= 1e-5
    assert (
        torch.cat(codes, dim=2) == codec.encode(wave)
    ).float().mean() > 0.99  # a tie may fall either way


def test_encode_fills_up_the_last_frame(codec, wave):
    assert codec.encode(wave[..., :-5]).shape[2] == FRAMES
    assert codec.encode(wave[..., : CODEC_FRAME_SAMPLES + 1]).shape[2] == 2


def test_codes_are_in_range_and_leading_codebooks_are_a_prefix(codec, wave):
    codes = codec.encode(wave)
    assert codes.dtype == torch.int64 and 0 <= codes.min() and codes.max() < CONFIG.codebook_size
    assert torch.equal(codec.encode(wave, 4), codes[:, :4])


def test_encoder_sees_no_later_sample(codec, wave):
    wave.requires_grad_()
    frame = 5
    codec.encode_latent(wave)[:, frame].sum().backward()
    edge = (frame + 1) * CODEC_FRAME_SAMPLES
    assert wave.grad[..., edge:].abs().max() == 0
    assert wave.grad[..., :edge].abs().max() > 0


def test_decoder_sees_no_later_frame(codec):
    latent = torch.randn(1, FRAMES, CONFIG.latent_width, requires_grad=True)
    wave, _ = codec.decoder.step(latent, codec.initial_decode_state(1))
    frame = 7
    wave[
        :, frame * CODEC_FRAME_SAMPLES : (frame + 1) * CODEC_FRAME_SAMPLES
    ].square().sum().backward()
    assert latent.grad[:, frame + 1 :].abs().max() == 0
    assert latent.grad[:, frame].abs().max() > 0


def test_overlap_add_is_the_plain_sum():
    windows = torch.randn(2, 5, OVERLAP_FRAMES * 4)
    slow = torch.zeros(2, (5 + OVERLAP_FRAMES - 1) * 4)
    for t in range(5):
        slow[:, t * 4 : (t + OVERLAP_FRAMES) * 4] += windows[:, t]
    wave, tail = overlap_add(windows, torch.zeros(2, OVERLAP_FRAMES - 1, 4))
    torch.testing.assert_close(torch.cat([wave, tail.flatten(1)], dim=1), slow)


def test_pulses_are_the_sum_of_harmonics_in_pieces_too():
    hz = torch.tensor([[200.0, 210.0, 230.0, 190.0]])
    whole, _ = pulse_train(hz, torch.tensor([200.0]), torch.zeros(1, dtype=torch.float64))
    first, cycles = pulse_train(
        hz[:, :1], torch.tensor([200.0]), torch.zeros(1, dtype=torch.float64)
    )
    second, _ = pulse_train(hz[:, 1:], hz[:, 0], cycles)
    assert relative(torch.cat([first, second], dim=1), whole) < 1e-5
    time = (
        torch.arange(1, CODEC_FRAME_SAMPLES + 1, dtype=torch.float64) / SAMPLE_RATE
    )  # the first frame: 200 Hz
    plain = sum(torch.cos(2 * torch.pi * 200 * harmonic * time) for harmonic in range(1, 56))
    assert relative(first[0].double(), plain) < 1e-3


def test_minimum_phase_is_causal_and_keeps_the_magnitude():
    frequency = torch.linspace(0, 1, WINDOW_SAMPLES // 2 + 1)
    log_magnitude = torch.sin(7 * frequency) + frequency
    spectrum = minimum_phase(log_magnitude)
    torch.testing.assert_close(spectrum.abs().log(), log_magnitude, rtol=1e-4, atol=1e-4)
    response = torch.fft.irfft(spectrum).square()
    assert response[: WINDOW_SAMPLES // 2].sum() > 0.99 * response.sum()


def test_reset_of_one_slot(codec, wave):
    """The reset slot sounds as if new, nothing of its past in it; the other goes on as if nothing happened."""
    codes = codec.encode(wave)
    begin, rest = codes[..., :10], codes[..., 10:]
    _, kept = codec.decode_step(begin, codec.initial_decode_state(2))
    _, state = codec.decode_step(begin, codec.initial_decode_state(2))
    state.reset([1])
    assert state.tail[1].abs().max() == 0 and all(
        history[1].abs().max() == 0 for history in state.histories
    )
    ours, _ = codec.decode_step(rest, state)
    undisturbed, _ = codec.decode_step(rest, kept)
    torch.testing.assert_close(ours[0], undisturbed[0])
    torch.testing.assert_close(ours[1], codec.decode(rest)[1])
    assert relative(ours[1], undisturbed[1]) > 1e-3


def test_reset_of_the_encoder(codec, wave):
    _, state = codec.encode_step(wave, codec.initial_encode_state(2))
    state.reset([0])
    latent, _ = codec.encoder.step(wave[:, 0], state)
    torch.testing.assert_close(latent[0], codec.encode_latent(wave)[0])
    assert relative(latent[1], codec.encode_latent(wave)[1]) > 1e-3


def test_silence_codes_are_what_lasting_silence_becomes(codec):
    codes = codec.encode(torch.zeros(1, 1, 100 * CODEC_FRAME_SAMPLES))
    assert torch.equal(codes[0, :, -1], codec.silence_codes())


def test_saved_and_loaded_it_is_the_same(codec, wave, tmp_path):
    save_codec(codec, tmp_path)
    loaded, codes = load_codec(tmp_path), codec.encode(wave)
    assert torch.equal(loaded.encode(wave), codes) and torch.equal(
        loaded.decode(codes), codec.decode(codes)
    )
