"""The addressee head: is what the user says for the agent?

    hidden state of the LM [D] -> normalised ┐
    what else is known [K] -> to -1 .. 1     ┴-> linear -> GELU -> linear -> log-odds

What people say to each other is not, nor is what a television says. The head remembers nothing:
what came before is in the LM's state.

Letters in shapes: D the LM's width, K numbers that are known beside it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from duplex.checkpoint import load_config, load_tensors


@dataclass(frozen=True)
class AddresseeConfig:
    """Sizes of the head."""

    # The LM's.
    width: int = 576
    # Numbers that are known beside the state, see duplex.agent.addressee.
    known: int = 7
    inner: int = 32


class AddresseeHead(nn.Module):
    """States of the LM -> log-odds that the user's turn so far is for the agent."""

    def __init__(self, config: AddresseeConfig):
        super().__init__()
        self.config = config
        # What of each known number counts as 1; what is larger is as large.
        self.register_buffer("most", torch.ones(config.known))
        self.inner = nn.Linear(config.width + config.known, config.inner)
        self.outer = nn.Linear(config.inner, 1)

    def forward(self, hidden: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """hidden [..., D], known [..., K] -> log-odds [...]."""
        state = F.layer_norm(hidden.to(self.most.dtype), hidden.shape[-1:])
        scaled = (known.to(self.most.dtype) / self.most).clamp(-1, 1)
        return self.outer(F.gelu(self.inner(torch.cat([state, scaled], -1))))[..., 0]


def load_addressee_head(folder: Path) -> AddresseeHead:
    """The head in a folder."""
    head = AddresseeHead(load_config(AddresseeConfig, folder))
    head.load_state_dict(load_tensors(folder))
    return head.eval()
