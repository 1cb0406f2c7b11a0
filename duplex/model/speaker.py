"""The speaker head: whose voice it is, a vector a tick.

    early frames of the encoder [B, 4n, 2C] -> each half normalised
        -> mean and mean square of a tick's frames [B, n, 4C] -> linear -> vectors [B, n, V]

Vectors are there to be added over somebody's speech: the cosine of two such sums says how alike two
voices are. The head remembers nothing; what came before is in the encoder's frames.

Letters in shapes: B slots, n ticks, C the encoder's width, V numbers of a vector.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from duplex.audio import ENCODER_FRAMES_PER_TICK
from duplex.checkpoint import load_config, load_tensors


@dataclass(frozen=True)
class SpeakerConfig:
    """Sizes of the head."""

    # The encoder's.
    width: int = 384
    vector: int = 128


class SpeakerHead(nn.Module):
    """Early frames of the encoder -> a vector for each tick that tells voices apart."""

    def __init__(self, config: SpeakerConfig):
        super().__init__()
        self.config = config
        self.project = nn.Linear(4 * config.width, config.vector)

    def forward(self, early: torch.Tensor) -> torch.Tensor:
        """early [B, 4n, 2C] -> vectors [B, n, V]."""
        return self.project(tick_statistics(early))


def tick_statistics(early: torch.Tensor) -> torch.Tensor:
    """early [B, 4n, 2C] -> mean and mean square of each tick's frames [B, n, 4C]."""
    halves = early.unflatten(-1, (2, -1))
    frames = F.layer_norm(halves, halves.shape[-1:]).flatten(-2)
    ticks = frames.unflatten(1, (-1, ENCODER_FRAMES_PER_TICK))
    return torch.cat([ticks.mean(2), ticks.square().mean(2)], -1)


def load_speaker_head(folder: Path) -> SpeakerHead:
    """The head in a folder."""
    head = SpeakerHead(load_config(SpeakerConfig, folder))
    head.load_state_dict(load_tensors(folder))
    return head.eval()
