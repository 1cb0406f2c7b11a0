"""Draw one symbol from the LM's scores."""

import torch


def sample(
    scores: torch.Tensor, temperature: float, top_k: int, generator: torch.Generator
) -> int:
    """A symbol by its score, out of the `top_k` best.

    scores: float [V], -inf where a symbol is not allowed. temperature 0: the best one.
    """
    if temperature == 0:
        return int(scores.argmax())
    best, symbols = scores.topk(min(top_k, len(scores)))
    probabilities = (best / temperature).softmax(-1)
    return int(symbols[torch.multinomial(probabilities, 1, generator=generator)])
