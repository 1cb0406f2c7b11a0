"""The compiled decoder's network does what the network does with weights rounded to 8 bits."""

import pytest
import torch

from duplex.cpu.vocoder import CompiledCodec
from duplex.model.tts.codec import Codec, CodecConfig
from tests.cpu.reference import assert_near, rounded

# All that they call is compiled first.
pytestmark = pytest.mark.slow


@pytest.fixture
def codec() -> Codec:
    torch.manual_seed(0)
    sizes = CodecConfig(
        codebook_size=16, latent_width=16, encoder_blocks=1, decoder_width=32, decoder_blocks=2
    )
    codec = Codec(sizes).eval()
    for block in codec.decoder.blocks:
        torch.nn.init.normal_(block.layer_scale)
    return codec


def rounded_decoder(codec: Codec) -> torch.nn.Module:
    """With the weights that the compiled one has: the scale is rounded with them."""
    decoder = rounded(codec.decoder, ())
    for block in decoder.blocks:
        block.down.weight.data *= block.layer_scale.data[:, None]
        block.down.bias.data *= block.layer_scale.data
        block.layer_scale.data.fill_(1.0)
    return rounded(decoder, ("linear.weight", "up.weight", "down.weight", "to_spectrum.weight"))


@torch.no_grad()
def test_compiled_network_is_the_rounded_one(codec):
    """Two slots, in pieces."""
    found = []
    latent = torch.randn(2, 24, 16)
    for one in (rounded_decoder(codec), CompiledCodec(codec)):
        histories = codec.initial_decode_state(2).histories
        outputs = []
        for part in latent.split([6, 1, 11, 6], 1):
            x, spectrum, histories = one.network(part, histories)
            outputs.append(torch.cat([x, spectrum], -1))
        found.append(torch.cat(outputs, 1))
    assert_near(found[1], found[0], 1e-3)


@torch.no_grad()
def test_compiled_codec_sounds_like_the_codec(codec):
    codes = torch.randint(16, (2, 8, 12), generator=torch.Generator().manual_seed(1))
    expected, _ = codec.decode_step(codes, codec.initial_decode_state(2))
    got, _ = CompiledCodec(codec).decode_step(codes, codec.initial_decode_state(2))
    assert_near(got, expected, 0.05)
