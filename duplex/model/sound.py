"""The sound head: which sound it is, scores a tick.

    early frames of the encoder [B, 4n, 2C] -> statistics of each tick [B, n, 4C], see speaker.py
        -> linear -> scores [B, n, K]

The scores of some ticks are averaged, and the greatest says what is heard: one of the named sounds,
or nothing that has a name, as speech and silence. The head remembers nothing.

Letters in shapes: B slots, n ticks, C the encoder's width, K kinds of sound.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from duplex.checkpoint import load_config, load_tensors
from duplex.model.speaker import tick_statistics


@dataclass(frozen=True)
class SoundConfig:
    """Sizes of the head, and what it names."""

    # The encoder's.
    width: int = 384
    # The first kinds. All others are nothing that has a name.
    names: tuple[str, ...] = ()
    kinds: int = 0


class SoundHead(nn.Module):
    """Early frames of the encoder -> how much each tick sounds like each kind."""

    def __init__(self, config: SoundConfig):
        super().__init__()
        self.config = config
        self.score = nn.Linear(4 * config.width, config.kinds)

    def forward(self, early: torch.Tensor) -> torch.Tensor:
        """early [B, 4n, 2C] -> scores [B, n, K]."""
        return self.score(tick_statistics(early))


def load_sound_head(folder: Path) -> SoundHead:
    """The head in a folder."""
    head = SoundHead(load_config(SoundConfig, folder))
    head.load_state_dict(load_tensors(folder))
    return head.eval()
