"""What the LM would write if it always took the likeliest symbol: answers, and transcripts."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from duplex.model.kv_cache import LMState, initial_state, step
from duplex.model.lm import LM
from duplex.model.tokens import END, FIRST_TEXT_ID, NEXT, USER_END, Grammar, advance, allowed_mask
from duplex.training.common.precision import fast_dtype, mixed


@dataclass
class Rows:
    """Sequences that are decoded side by side."""

    lm: LM
    state: LMState
    grammars: list[Grammar]
    symbols: list[list[int]]  # Decoded so far.
    open: set[int]  # Rows that have not ended.

    def feed(self, inputs: dict[int, Tensor], is_tick: bool) -> dict[int, Tensor]:
        """Inputs [n, D] of some rows -> the hidden state of each after its last input [D]."""
        counts = [len(inputs.get(row, ())) for row in range(len(self.grammars))]
        x = torch.cat([inputs[row] for row in sorted(inputs)]).to(self.lm.embedding.dtype)
        hidden, _ = step(self.lm, x, counts, np.full(len(x), is_tick), self.state)
        last = np.cumsum(counts) - 1
        return {row: hidden[last[row]] for row in inputs}

    def choose(self, row: int, hidden: Tensor) -> int:
        """Take the likeliest symbol of a row after its hidden state [D]."""
        scores = self.lm.logits(hidden)
        allowed = answerable(self.lm, self.grammars[row])
        symbol = int(scores.masked_fill(~allowed, -torch.inf).argmax())
        if symbol != NEXT:
            self.symbols[row].append(symbol)
            self.grammars[row] = advance(self.grammars[row], symbol)
        if symbol in (END, USER_END):
            self.open.discard(row)
        return symbol


@torch.no_grad()
def greedy(
    lm: LM, begun: list[Tensor], ticks: list[Tensor], grammar: Grammar, cap: int
) -> list[list[int]]:
    """The likeliest symbols of every row, at most `cap` a tick, up to its <end> or </user>.

    begun: inputs to start from, each [n, D]; ticks: each [T, D], or none at all where text alone is
    answered.
    """
    room = max(map(len, begun)) + cap * max(1, max(map(len, ticks), default=0))
    config = replace(lm.config, text_window=room)
    count = len(begun)
    with mixed():
        state = initial_state(config, count, dtype=fast_dtype())
        rows = Rows(lm, state, [grammar] * count, [[] for _ in begun], set(range(count)))
        hidden = rows.feed(dict(enumerate(begun)), False)
        for tick in range(max(map(len, ticks), default=1)):
            if ticks:
                going_on = [row for row in rows.open if tick < len(ticks[row])]
                here = {row: ticks[row][tick : tick + 1] for row in going_on}
                hidden = rows.feed(here, True) if here else {}
            for _ in range(cap):
                symbols = {row: rows.choose(row, after) for row, after in hidden.items()}
                chosen = {
                    row: lm.embed(torch.tensor([symbol]))
                    for row, symbol in symbols.items()
                    if symbol != NEXT and row in rows.open
                }
                if not chosen:
                    break
                hidden = rows.feed(chosen, False)
    return rows.symbols


def answerable(lm: LM, grammar: Grammar) -> Tensor:
    """bool [V]: inside an answer its text or its end, otherwise what hearing allows."""
    mask = allowed_mask(grammar, lm.config.vocabulary, grammar.agent_open, False)
    if grammar.agent_open:
        mask[:FIRST_TEXT_ID] = False
        mask[END] = True
    return mask
