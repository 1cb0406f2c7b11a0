"""Draws from scores: a symbol of the LM, codes of the talker."""

import torch


def sample(scores: torch.Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    """A symbol by its score, out of the `top_k` best; at temperature 0 the best one.

    Args:
        scores: [V] float, -inf where a symbol is not allowed.
    """
    if temperature == 0:
        return int(scores.argmax())
    best, symbols = scores.topk(min(top_k, len(scores)))
    probabilities = (best / temperature).softmax(-1)
    return int(symbols[torch.multinomial(probabilities, 1, generator=generator)])


def sample_codes(
    logits: torch.Tensor, temperature: float, top_k: int, uniform: torch.Tensor
) -> torch.Tensor:
    """Draw a code for each row among the `top_k` best, by the inverse of their distribution.

    Args:
        logits: [B, codes].
        uniform: [B, 1] random numbers from 0 to 1.

    Returns [B, 1].
    """
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    values, indices = logits.topk(min(top_k, logits.shape[-1]))
    cumulative = (values / temperature).softmax(-1, dtype=torch.float32).cumsum(-1)
    place = (cumulative < uniform * cumulative[:, -1:]).sum(-1, keepdim=True)
    return indices.gather(1, place)
