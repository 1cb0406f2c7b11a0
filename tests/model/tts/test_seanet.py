"""SEANet behind our codec's interface: streaming equals the whole clip, and the `encodec` package
once its start is past."""

import numpy as np
import pytest
import torch
from encodec import EncodecModel

from duplex.audio import CODEC_FRAME_SAMPLES, CODEC_FRAMES_PER_TICK, TICK_SAMPLES
from duplex.errors import VoiceError
from duplex.model.tts import seanet
from duplex.model.tts.codec import load_codec, save_codec
from duplex.model.tts.seanet import SeanetCodec, SeanetConfig
from tests.tiny_speech_agent import tiny_agent

FRAMES = 8 * CODEC_FRAMES_PER_TICK
SPLITS = ([1] * FRAMES, [CODEC_FRAMES_PER_TICK] * 8, [2, 9, 1, FRAMES - 12])
START = 30  # Frames until the package's reflected beginning is forgotten.


@pytest.fixture(scope="module")
def codec() -> SeanetCodec:
    torch.manual_seed(0)
    return SeanetCodec(SeanetConfig(filters=4, codebook_size=32)).eval()


@pytest.fixture
def codes() -> torch.Tensor:
    return torch.randint(32, (2, 8, FRAMES), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def wave() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return 0.1 * torch.randn(2, 1, FRAMES * CODEC_FRAME_SAMPLES, generator=generator)


def decode_pieces(codec: SeanetCodec, codes: torch.Tensor, split: list[int]) -> torch.Tensor:
    """The wave [B, N] of codes [B, K, T] that come in pieces."""
    state = codec.initial_decode_state(len(codes))
    pieces = []
    for part in codes.split(split, dim=2):
        piece, state = codec.decode_step(part, state)
        assert piece.shape == (len(codes), part.shape[2] * CODEC_FRAME_SAMPLES)
        pieces.append(piece)
    return torch.cat(pieces, 1)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("number", [2, 4, 8])
def test_decode_stream_is_whole(codec, codes, split, number):
    codes = codes[:, :number]
    streamed = decode_pieces(codec, codes, split)
    torch.testing.assert_close(streamed, codec.decode(codes), rtol=0, atol=1e-6)


@pytest.mark.parametrize("split", SPLITS)
def test_encode_stream_is_whole(codec, wave, split):
    state = codec.initial_encode_state(2)
    pieces = []
    for part in wave.split([n * CODEC_FRAME_SAMPLES for n in split], dim=2):
        piece, state = codec.encode_step(part, state)
        pieces.append(piece)
    assert torch.equal(torch.cat(pieces, 2), codec.encode(wave))


def test_codec_is_the_package_after_the_start(codec, codes, wave):
    with torch.no_grad():
        theirs = codec.decoder(codec.quantizer.decode(codes.transpose(0, 1)))[:, 0]
        latent = codec.encoder(wave)
    ours = codec.decode(codes)
    start = START * CODEC_FRAME_SAMPLES
    # The package reflects what a stream cannot know.
    assert (ours - theirs)[:, :start].abs().max() > 1e-3
    torch.testing.assert_close(ours[:, start:], theirs[:, start:], rtol=0, atol=1e-5)
    theirs = codec.quantizer.vq.encode(latent).transpose(0, 1)
    assert (codec.encode(wave) == theirs)[:, :, START:].float().mean() > 0.99


def test_decoder_sees_no_later_frame(codec, codes):
    later = codes.clone()
    later[:, :, 20:] = (later[:, :, 20:] + 1) % 32
    before = 20 * CODEC_FRAME_SAMPLES
    ours, changed = codec.decode(codes), codec.decode(later)
    torch.testing.assert_close(ours[:, :before], changed[:, :before], rtol=0, atol=1e-6)
    frame = slice(before, before + CODEC_FRAME_SAMPLES)
    assert not torch.equal(ours[:, frame], changed[:, frame])


def test_reset_of_one_slot(codec, codes):
    _, state = codec.decode_step(codes, codec.initial_decode_state(2))
    state.reset([1])
    after, _ = codec.decode_step(codes, state)
    torch.testing.assert_close(after[1], codec.decode(codes)[1], rtol=0, atol=1e-6)
    assert not torch.allclose(after[0], codec.decode(codes)[0], rtol=0, atol=1e-4)


def test_loaded_codec_is_the_saved_one(codec, codes, wave, tmp_path):
    save_codec(codec, tmp_path)
    loaded = load_codec(tmp_path)
    assert torch.equal(loaded.decode(codes), codec.decode(codes))
    assert torch.equal(loaded.encode(wave), codec.encode(wave))
    assert loaded.silence_codes().shape == (8,)


def test_published_weights_keep_their_first_codebooks(monkeypatch):
    """The package's model, here with random weights, gives 32 codebooks; eight of them are ours."""
    published = EncodecModel.encodec_model_24khz(pretrained=False)
    monkeypatch.setattr(EncodecModel, "encodec_model_24khz", lambda: published)
    ours = load_codec(seanet.NAME)
    codes = torch.randint(1024, (1, 8, FRAMES), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        theirs = published.decode([(codes, None)])[:, 0]
    start = START * CODEC_FRAME_SAMPLES
    torch.testing.assert_close(ours.decode(codes)[:, start:], theirs[:, start:], rtol=0, atol=1e-4)


def test_weights_that_cannot_be_fetched_are_an_error(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    with pytest.raises(OSError, match="no route"):
        load_codec(seanet.NAME)


def test_agent_speaks_with_it_and_has_one_voice():
    torch.manual_seed(0)
    codec = SeanetCodec(SeanetConfig(filters=4, codebook_size=16, latent_width=8))
    agent = tiny_agent(2, codec=codec)
    agent.open(1)
    agent.response.synthesizer.push(agent.response.synthesis_state, 1, 0, [20, 21, 22])
    silence = np.zeros((2, TICK_SAMPLES), np.float32)
    wave = np.stack([agent.step(silence, [1])[0] for _ in range(6)])
    assert np.abs(wave).max() > 1e-4
    agent.set_voice(1, "heart")
    with pytest.raises(VoiceError, match="SEANet, has no voice"):
        agent.set_voice(1, "oak")
