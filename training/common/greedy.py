"""What the LM would write if it always took the likeliest symbol: short answers to text, and transcripts tick by tick."""

from dataclasses import replace

import numpy as np
import torch
from duplex.training.common.precision import fast_dtype, mixed

from duplex.model.kv_cache import initial_state, step
from duplex.model.lm import LM
from duplex.model.tokens import END, FIRST_TEXT_ID, NEXT, USER_END, Grammar, advance, allowed_mask


@torch.no_grad()
def greedy(
    lm: LM, begun: list[torch.Tensor], ticks: list[torch.Tensor], grammar: Grammar, cap: int
) -> list[list[int]]:
    """The likeliest symbols of every row, at most `cap` a tick, up to its <end> or </user>.

    begun: inputs to start from, each [n, D]; ticks: each [T, D], or none at all where text alone is answered.
    """
    room = max(map(len, begun)) + cap * max(1, max(map(len, ticks), default=0))
    grammars, said, open_rows = [grammar] * len(begun), [[] for _ in begun], set(range(len(begun)))
    with mixed():
        state = initial_state(replace(lm.config, text_window=room), len(begun), dtype=fast_dtype())

        def feed(inputs: dict[int, torch.Tensor], is_tick: bool) -> dict[int, torch.Tensor]:
            """Row -> inputs [n, D]; back: row -> the hidden state after its last input [D]."""
            counts = [len(inputs.get(row, ())) for row in range(len(begun))]
            x = lm.embedding.new_zeros(len(begun), max(counts), lm.config.width)
            for row, value in inputs.items():
                x[row, : len(value)] = value
            hidden, _ = step(lm, x, counts, np.full(x.shape[:2], is_tick), state)
            return {row: hidden[row, counts[row] - 1] for row in inputs}

        hidden = feed(dict(enumerate(begun)), False)
        for tick in range(max(map(len, ticks), default=1)):
            if ticks:
                here = {
                    row: ticks[row][tick : tick + 1] for row in open_rows if tick < len(ticks[row])
                }
                hidden = feed(here, True) if here else {}
            for _ in range(cap):
                chosen = {}
                for row, state_after in hidden.items():
                    symbol = int(
                        lm.logits(state_after)
                        .masked_fill(~answerable(lm, grammars[row]), -torch.inf)
                        .argmax()
                    )
                    if symbol != NEXT:
                        chosen[row] = lm.embed(torch.tensor([symbol]))
                        said[row].append(symbol)
                        grammars[row] = advance(grammars[row], symbol)
                    if symbol in (END, USER_END):
                        open_rows.discard(row)
                chosen = {row: x for row, x in chosen.items() if row in open_rows}
                if not chosen:
                    break
                hidden = feed(chosen, False)
    return said


def answerable(lm: LM, grammar: Grammar) -> torch.Tensor:
    """bool [V]: inside an answer its text or its end, otherwise what hearing allows."""
    mask = allowed_mask(grammar, lm.config.vocabulary, grammar.agent_open, False)
    if grammar.agent_open:
        mask[:FIRST_TEXT_ID] = False
        mask[END] = True
    return mask
