"""The codec: streaming equals the whole clip, nothing looks ahead, slots are independent."""

import pytest
import torch

from duplex.audio import CODEC_FRAME_SAMPLES, CODEC_FRAMES_PER_TICK
from duplex.model.tts.codec import Codec, CodecConfig, load_codec, save_codec
from duplex.training.objectives import codebooks

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
    generator = torch.Generator().manual_seed(1)
    return 0.1 * torch.randn(2, 1, FRAMES * CODEC_FRAME_SAMPLES, generator=generator)


def relative(ours: torch.Tensor, true: torch.Tensor) -> float:
    return float((ours - true).detach().norm() / true.detach().norm())


def decode_pieces(codec: Codec, codes: torch.Tensor, split: list[int]) -> torch.Tensor:
    """The wave [B, N] of codes [B, K, T] that come in pieces."""
    state = codec.initial_decode_state(codes.shape[0])
    pieces = []
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
    latent_state, state = codec.initial_encode_state(2), codec.initial_encode_state(2)
    latents, codes = [], []
    for part in wave.split([frames * CODEC_FRAME_SAMPLES for frames in split], dim=2):
        latent, latent_state = codec.encoder.step(part[:, 0], latent_state)
        latents.append(latent)
        piece, state = codec.encode_step(part, state)
        codes.append(piece)
    assert relative(torch.cat(latents, dim=1), codec.encode_latent(wave)) <= 1e-5
    # A tie may fall either way.
    assert (torch.cat(codes, dim=2) == codec.encode(wave)).float().mean() > 0.99


def test_last_frame_is_filled_up(codec, wave):
    assert codec.encode(wave[..., :-5]).shape[2] == FRAMES
    assert codec.encode(wave[..., : CODEC_FRAME_SAMPLES + 1]).shape[2] == 2


def test_codes_are_in_range_and_leading_codebooks_are_a_prefix(codec, wave):
    codes = codec.encode(wave)
    assert codes.dtype == torch.int64
    assert 0 <= codes.min() <= codes.max() < CONFIG.codebook_size
    assert torch.equal(codec.encode(wave, 4), codes[:, :4])


def test_encoder_sees_no_later_sample(codec, wave):
    wave.requires_grad_()
    frame = 5
    codec.encode_latent(wave)[:, frame].sum().backward()
    edge = (frame + 1) * CODEC_FRAME_SAMPLES
    assert wave.grad[..., edge:].abs().max() == 0
    assert wave.grad[..., :edge].abs().max() > 0


def test_reset_of_the_decoder(codec, wave):
    """The reset slot sounds as if new; the other goes on as if nothing happened."""
    codes = codec.encode(wave)
    begin, rest = codes[..., :10], codes[..., 10:]
    _, kept = codec.decode_step(begin, codec.initial_decode_state(2))
    _, state = codec.decode_step(begin, codec.initial_decode_state(2))
    state.reset([1])
    assert not any(tensor[1].any() for tensor in state.tensors())
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


def test_loaded_codec_is_the_saved_one(codec, wave, tmp_path):
    save_codec(codec, tmp_path)
    loaded = load_codec(tmp_path)
    codes = codec.encode(wave)
    assert torch.equal(loaded.encode(wave), codes)
    assert torch.equal(loaded.decode(codes), codec.decode(codes))
