"""The compiled encoder does what the network does with weights rounded to 8 bits."""

import pytest
import torch

from duplex.audio import MEL_FRAMES_PER_TICK
from duplex.cpu.encoder import CompiledEncoder
from duplex.model.asr.encoder import Encoder, EncoderConfig
from duplex.model.asr.features import BANDS
from tests.cpu.reference import assert_near, rounded

# All that they call is compiled first.
pytestmark = pytest.mark.slow


def test_compiled_encoder_is_the_rounded_one():
    """Longer than its window, two slots, one of which begins anew."""
    torch.manual_seed(0)
    network = Encoder(EncoderConfig(width=32, layers=2, heads=2, window=16)).eval()
    for block in network.blocks:
        torch.nn.init.normal_(block.distance_bias)
    mel = torch.randn(2, 8 * MEL_FRAMES_PER_TICK, BANDS)
    plain = rounded(network, ("qkv", "out", "up", "down", "conv"))
    found = []
    for encoder in (plain, CompiledEncoder(network)):
        state = encoder.initial_state(2)
        outputs = []
        for tick, part in enumerate(mel.split(MEL_FRAMES_PER_TICK, 1)):
            if tick == 3:
                state.reset([1])
            (features, phones), state = encoder.step(part, state)
            outputs.append(torch.cat([features.flatten(1), phones.flatten(1)], 1).detach())
        found.append(torch.cat(outputs, 1))
    assert_near(found[1], found[0], 1e-3)
