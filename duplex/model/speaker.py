"""The speaker head: whose voice it is, a vector a tick.

    early frames of the encoder [B, 4n, 2C] -> two layers over frames of 20 ms -> mean of a tick
        -> with its mean and deviation over the last half second and the last seconds
        -> vectors [B, n, V]

Vectors are there to be added: the direction of the sum over somebody's speech says who it is, and
the length of each says how much it tells. Where nobody speaks it is short. The cosine of two such
sums is how alike two voices are.

All of it is causal, and one function serves whole clips and streams.

Letters in shapes: B slots, n ticks, T frames, W width, V numbers of a vector.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from duplex.audio import ENCODER_FRAMES_PER_TICK, TICK_S
from duplex.checkpoint import load_config, load_tensors

# Frames before the present one that the second layer sees.
HISTORY = 2
# Least variance of what is remembered, so that a deviation has a gradient.
MIN_VARIANCE = 1e-4


@dataclass(frozen=True)
class SpeakerConfig:
    """Sizes of the head."""

    # The encoder's width; it is given twice as much.
    encoder_width: int = 384
    width: int = 128
    hidden: int = 192
    vector: int = 128
    # How long each memory lasts: by then it has fallen to 1/e.
    memories_s: tuple[float, ...] = (0.5, 2.5)


@dataclass
class SpeakerState:
    """What the head remembers of each slot."""

    tail: torch.Tensor  # [B, 2, W] frames of the first layer
    # [memories, B, 1 + 2W] decaying sums of weights, of weighted frames and of their squares
    sums: torch.Tensor

    def reset(self, slots: list[int]) -> None:
        """Put these slots back to the beginning."""
        self.tail[slots] = 0.0
        self.sums[:, slots] = 0.0


class SpeakerHead(nn.Module):
    """Early frames of the encoder -> a vector for each tick that tells voices apart."""

    def __init__(self, config: SpeakerConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.norm = nn.LayerNorm(config.encoder_width, elementwise_affine=False)
        self.frame = nn.Linear(2 * config.encoder_width, width)
        self.context = nn.Linear((HISTORY + 1) * width, width)
        self.attention = nn.Linear(width, 1)
        self.up = nn.Linear((1 + 2 * len(config.memories_s)) * width, config.hidden)
        self.down = nn.Linear(config.hidden, config.vector)
        decays = torch.exp(-TICK_S / torch.tensor(config.memories_s))
        self.register_buffer("decays", decays, persistent=False)

    def initial_state(self, batch: int) -> SpeakerState:
        """A state before the first sound."""
        config, weight = self.config, self.frame.weight
        return SpeakerState(
            tail=weight.new_zeros(batch, HISTORY, config.width),
            sums=weight.new_zeros(len(config.memories_s), batch, 1 + 2 * config.width),
        )

    def forward(self, early: torch.Tensor) -> torch.Tensor:
        """Whole clips: early [B, 4n, 2C] -> vectors [B, n, V]."""
        return self.step(early, self.initial_state(len(early)))[0]

    def step(self, early: torch.Tensor, state: SpeakerState) -> tuple[torch.Tensor, SpeakerState]:
        """early [B, 4n, 2C] -> vectors [B, n, V], and the next state."""
        early = self.norm(early.unflatten(-1, (2, -1))).flatten(-2)
        frames = torch.cat([state.tail, F.gelu(self.frame(early))], 1)
        tail = frames[:, -HISTORY:]
        frames = F.gelu(self.context(frames.unfold(1, HISTORY + 1, 1).flatten(2)))  # [B, 4n, W]
        ticks = frames.unflatten(1, (-1, ENCODER_FRAMES_PER_TICK))
        squares = ticks.square().mean(2)
        ticks = ticks.mean(2)  # [B, n, W]
        weight = self.attention(ticks).sigmoid()
        told = torch.cat([weight, weight * ticks, weight * squares], -1)
        sums = self.remember(told, state.sums)
        total, first, second = sums.split([1, ticks.shape[-1], ticks.shape[-1]], -1)
        mean = first / (total + 1e-3)
        deviation = (second / (total + 1e-3) - mean.square()).clamp(min=MIN_VARIANCE).sqrt()
        memory = torch.cat([mean, deviation], -1)  # [memories, B, n, 2W]
        known = torch.cat([ticks, *memory], -1)
        vectors = weight * self.down(F.gelu(self.up(known)))
        return vectors, SpeakerState(tail, sums[:, :, -1])

    def remember(self, told: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Decaying sums [memories, B, n, X] up to each tick of told [B, n, X], after sums `before`
        [memories, B, X]."""
        row = torch.arange(told.shape[1], device=told.device)
        age = row[:, None] - row  # [n, n]
        decays = self.decays[:, None, None]
        matrix = torch.where(age >= 0, decays ** age.clamp(min=0), 0.0)
        return matrix[:, None] @ told + (decays ** (row[:, None] + 1))[:, None] * before[:, :, None]


def load_speaker_head(folder: Path) -> SpeakerHead:
    """The head in a folder."""
    head = SpeakerHead(load_config(SpeakerConfig, folder))
    head.load_state_dict(load_tensors(folder))
    return head.eval()
