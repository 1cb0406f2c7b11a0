"""What the addressee head is asked, and when: host and device ask it in the same way.

Its answer is the field `for_agent` of an Observation; turn_policy.py says what follows.
"""

import torch

from duplex.agent.turn_policy import Observation
from duplex.model.addressee import AddresseeHead

# Fields of an Observation that the head knows beside the LM's state, and what counts as much.
KNOWN = {
    "agent_open": 1.0,
    "queued_s": 2.0,
    "ticks_since_agent_word": 125.0,
    "silence_ticks": 12.0,
    "transcribed_words": 8.0,
    "is_far": 1.0,
    "partner_likeness": 1.0,
}


def known(seen: Observation) -> torch.Tensor:
    """What the head knows [..., K], of one session or of an Observation of tensors [...]."""
    columns = [getattr(seen, name) for name in KNOWN]
    if not isinstance(columns[0], torch.Tensor):
        return torch.tensor(columns, dtype=torch.float32)
    return torch.stack([column.float() for column in columns], -1)


def log_odds(head: AddresseeHead, hidden: torch.Tensor, seen: Observation) -> torch.Tensor:
    """That what the user says is for the agent [...], from states [..., D]; 0: it is not asked.

    It is where somebody has said a word and the agent is silent: whether assent or an interruption
    is said into its voice the LM's own scores tell better.
    """
    found = head(hidden, known(seen))
    is_said = torch.as_tensor(seen.user_open, device=found.device)
    has_words = torch.as_tensor(seen.transcribed_words, device=found.device) > 0
    is_silent = ~torch.as_tensor(seen.agent_open, device=found.device)
    is_silent &= torch.as_tensor(seen.queued_s, device=found.device) == 0
    return found.masked_fill(~(is_said & has_words & is_silent), 0.0)
