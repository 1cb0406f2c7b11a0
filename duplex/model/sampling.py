"""Draw one symbol from the LM's scores."""

import torch


def sample(
    scores: torch.Tensor,
    mask: torch.Tensor,
    temperature: float,
    top_k: int,
    generator: torch.Generator,
) -> int:
    """scores [V] float32, mask bool [V] of the symbols allowed -> a symbol. temperature 0: the best one."""
    scores = scores.masked_fill(~mask, float("-inf"))
    if temperature == 0:
        return int(scores.argmax())
    best, symbols = scores.topk(min(top_k, len(scores)))
    return int(symbols[torch.multinomial((best / temperature).softmax(-1), 1, generator=generator)])
