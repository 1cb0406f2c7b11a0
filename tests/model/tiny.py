"""Tiny real networks that several tests use."""

import torch

from duplex.model.tts.talker import Talker, TalkerConfig


def tiny_talker(patch_frames: int = 2, **options) -> Talker:
    """A talker of 16 channels, in float64 so that rounding cannot turn a draw."""
    torch.manual_seed(0)
    sizes = dict(
        phone_width=16,
        width=16,
        layers=2,
        heads=2,
        hidden=24,
        code_width=16,
        codebooks=3,
        codebook_size=32,
        patch_frames=patch_frames,
        window_frames=24,
    )
    talker = Talker(TalkerConfig(**{**sizes, **options})).double()
    talker.silence_codes.copy_(torch.tensor([3, 1, 2]))
    with torch.no_grad():
        for parameter in talker.parameters():
            parameter.mul_(2.0)  # History is to matter.
        talker.phone_encoder.duration[-1].weight.mul_(0.1)
        talker.phone_encoder.duration[-1].bias.fill_(1.4)  # About four frames a phone.
    return talker.eval()
