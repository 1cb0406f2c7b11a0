"""The draft: a small network that guesses what the LM will say next in a tick, so that the LM checks it in one call.

It guesses the LM's next hidden state from the last one and the next input; the LM's own output layer turns that into a
symbol (after EAGLE, Li et al. 2024, arXiv 2401.15077, section 3, without its attention: the LM's state has seen everything).
A guess is one symbol, not a distribution. Rejection sampling against it then is: draw from the LM as always, and keep what
the LM has already been fed for as long as the draws agree with the guesses. So the symbols are those of decoding without
a draft, draw for draw, and not only their distribution (Leviathan et al. 2023, arXiv 2211.17192, with a draft of one point).
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from duplex.model.tokens import FIRST_TEXT_ID, NEXT, STOP, Grammar, advance, allowed_mask


@dataclass(frozen=True)
class DraftConfig:
    width: int = 576  # of the LM
    hidden: int = 1536


class Draft(nn.Module):
    def __init__(self, config: DraftConfig):
        super().__init__()
        self.config = config
        self.gate_up = nn.Linear(2 * config.width, 2 * config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)
        nn.init.zeros_(self.down.weight)

    def forward(self, hidden: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The LM's hidden states [..., D] after its last norm, the inputs after them [..., D] -> the next hidden states."""
        width = (self.config.width,)
        both = torch.cat([F.rms_norm(hidden, width), F.rms_norm(x, width)], dim=-1)
        gate, up = self.gate_up(both).chunk(2, dim=-1)
        return hidden + self.down(F.silu(gate) * up)


@dataclass
class Asked:
    """What the draft needs of one session: its last hidden state [D], the inputs [n, D] the LM is about to be fed, its rules."""

    hidden: torch.Tensor
    inputs: torch.Tensor
    grammar: Grammar
    speaking_allowed: bool
    audible: bool


@torch.inference_mode()
def propose(
    draft: Draft, lm, asked: dict[int, Asked], most: int, next_penalty: float, least: float
) -> dict[int, list[int]]:
    """Guess, for every session, the symbols up to <next> -> at most `most` each, as long as each is likelier than `least`.

    <stop> is never guessed: it makes the LM forget what was not said, and must itself be read without that.
    """
    guesses: dict[int, list[int]] = {slot: [] for slot in asked}
    hidden, grammar = {}, {}
    for slot, a in asked.items():
        state = a.hidden[None]
        for x in a.inputs:
            state = draft(state, x[None])
        hidden[slot], grammar[slot] = state[0], a.grammar
    for step in range(most):
        if not hidden:
            break
        slots = list(hidden)
        rules = [
            allowed_mask(grammar[s], lm.config.vocabulary, asked[s].speaking_allowed, asked[s].audible)
            for s in slots
        ]
        text = any(bool(rule[FIRST_TEXT_ID]) for rule in rules)
        scores = lm.logits(torch.stack([hidden[s] for s in slots]), text=text)
        scores = scores.masked_fill(
            ~torch.stack(rules).to(scores.device)[:, : scores.shape[1]], float("-inf")
        )
        scores[:, NEXT] -= next_penalty
        sure, symbols = scores.softmax(-1).max(-1)
        going_on = {}
        for slot, p, symbol in zip(slots, sure.tolist(), symbols.tolist(), strict=True):
            if symbol in (NEXT, STOP) or p < least:
                continue
            guesses[slot].append(symbol)
            grammar[slot] = advance(grammar[slot], symbol)
            if step + 1 < most:
                going_on[slot] = symbol
        if going_on:
            x = lm.embed(torch.tensor(list(going_on.values()), device=scores.device)).to(
                scores.dtype
            )
            state = draft(torch.stack([hidden[s] for s in going_on]), x)
            hidden = dict(zip(going_on, state, strict=True))
        else:
            hidden = {}
    return guesses
