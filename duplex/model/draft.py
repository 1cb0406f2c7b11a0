"""The draft: a small network that proposes what the LM will say next in a tick.

The LM then verifies it in one call. The draft predicts the LM's next hidden state from the last one
and the next input; the LM's own output layer turns that into a symbol (after EAGLE, Li et al. 2024,
arXiv 2401.15077, section 3, without its attention: the LM's state has seen everything).

A proposal is one symbol, not a distribution. Rejection sampling against it then is: draw from the
LM as always, and keep what the LM has already been fed for as long as the draws agree with the
proposals. So the symbols are those of decoding without a draft, draw for draw, and not only their
distribution (Leviathan et al. 2023, arXiv 2211.17192, with a draft of one point).
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from duplex.model import tokens
from duplex.model.tokens import Grammar


@dataclass(frozen=True)
class DraftConfig:
    """Sizes of the draft."""

    # Width of the LM.
    width: int = 576
    hidden: int = 1536


class Draft(nn.Module):
    """A gated MLP from a hidden state and an input to the next hidden state."""

    def __init__(self, config: DraftConfig):
        super().__init__()
        self.config = config
        self.gate_up = nn.Linear(2 * config.width, 2 * config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)
        nn.init.zeros_(self.down.weight)

    def forward(self, hidden: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The LM's hidden states [..., D] after its last norm, and the inputs after them [..., D]
        -> the next hidden states [..., D]."""
        width = (self.config.width,)
        both = torch.cat([F.rms_norm(hidden, width), F.rms_norm(x, width)], dim=-1)
        gate, up = self.gate_up(both).chunk(2, dim=-1)
        return hidden + self.down(F.silu(gate) * up)


@dataclass
class DraftInput:
    """What the draft needs of one session."""

    hidden: torch.Tensor  # [D] the LM's last hidden state
    inputs: torch.Tensor  # [n, D] what the LM is about to be fed
    grammar: Grammar
    can_speak: bool  # see tokens.allowed
    is_audible: bool


@torch.inference_mode()
def propose(
    draft: Draft,
    lm,
    sessions: dict[int, DraftInput],
    max_symbols: int,
    next_penalty: float,
    min_probability: float,
) -> dict[int, list[int]]:
    """Propose, for every session by its slot, the symbols up to <next>.

    <stop> is never proposed: it makes the LM forget what was not said, and must itself be read
    without that.

    Args:
        next_penalty: taken off the score of <next>.
        min_probability: a session's proposals end before a symbol that is less likely.
    """
    proposals: dict[int, list[int]] = {slot: [] for slot in sessions}
    hidden, grammar = {}, {}
    for slot, session in sessions.items():
        state = session.hidden[None]
        for x in session.inputs:
            state = draft(state, x[None])
        hidden[slot] = state[0]
        grammar[slot] = session.grammar
    for number in range(max_symbols):
        if not hidden:
            break
        best = _best_symbols(lm, sessions, hidden, grammar, next_penalty)
        going_on = {}
        for slot, (probability, symbol) in best.items():
            if symbol in (tokens.NEXT, tokens.STOP) or probability < min_probability:
                continue
            proposals[slot].append(symbol)
            grammar[slot] = tokens.advance(grammar[slot], symbol)
            if number + 1 < max_symbols:
                going_on[slot] = symbol
        hidden = _advance(draft, lm, hidden, going_on) if going_on else {}
    return proposals


def _best_symbols(
    lm,
    sessions: dict[int, DraftInput],
    hidden: dict[int, torch.Tensor],
    grammar: dict[int, Grammar],
    next_penalty: float,
) -> dict[int, tuple[float, int]]:
    """The likeliest symbol after each hidden state, with its probability."""
    masks = []
    for slot in hidden:
        session = sessions[slot]
        masks.append(
            tokens.allowed_mask(
                grammar[slot], lm.config.vocabulary, session.can_speak, session.is_audible
            )
        )
    text = any(bool(mask[tokens.FIRST_TEXT_ID]) for mask in masks)
    scores = lm.logits(torch.stack([*hidden.values()]), text=text)
    allowed = torch.stack(masks).to(scores.device)[:, : scores.shape[1]]
    scores = scores.masked_fill(~allowed, float("-inf"))
    scores[:, tokens.NEXT] -= next_penalty
    probabilities, symbols = scores.softmax(-1).max(-1)
    best = zip(probabilities.tolist(), symbols.tolist(), strict=True)
    return dict(zip(hidden, best, strict=True))


def _advance(
    draft: Draft, lm, hidden: dict[int, torch.Tensor], symbols: dict[int, int]
) -> dict[int, torch.Tensor]:
    """The hidden states after these symbols, of the slots that have one."""
    before = torch.stack([hidden[slot] for slot in symbols])
    x = lm.embed(torch.tensor([*symbols.values()], device=before.device))
    return dict(zip(symbols, draft(before, x.float()), strict=True))
