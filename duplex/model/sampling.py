"""Draws from scores: a symbol of the LM, codes of the talker.

A symbol's draw is a function of its session's seed, the tick and its number in the tick, and of
nothing else: it can be repeated, and does not depend on who else is there.

Letters in shapes: S slots or rows, V vocabulary, B batch.
"""

import torch

# Low 32 bits.
WORD = 0xFFFFFFFF


def philox(key, counter: tuple, rounds: int = 10) -> tuple:
    """Philox2x32 (Salmon et al., 2011): two random words of 32 bits for a key and a counter of two.

    All are int, or int64 tensors of one shape; only their low 32 bits count.
    """
    high, low = counter
    key = key & WORD
    for _ in range(rounds):
        product = (high & WORD) * 0xD256D193  # a product of int64 may overflow: its bits are right
        high, low = (product >> 32) & WORD ^ key ^ low & WORD, product & WORD
        key = (key + 0x9E3779B9) & WORD
    return high, low


def draw(seed, tick, number):
    """The uniform number from 0 to below 1 of a session's draw.

    Args:
        seed: of the session, int or int64 [S]. Of a larger one all bits count.
        tick, number: the same, the session's tick and which draw of that tick it is.

    Returns float, or float32 [S]: a multiple of 2^-24, which both hold exactly.
    """
    word, _ = philox((seed >> 32) ^ seed, (tick, number))
    if isinstance(word, torch.Tensor):
        return (word >> 8).to(torch.float32) * 2.0**-24
    return (word >> 8) * 2.0**-24


def sample(scores: torch.Tensor, temperature: float, top_k: int, uniform: float) -> int:
    """A symbol by its score, out of the `top_k` best; at temperature 0 the best one.

    Args:
        scores: [V] float, -inf where a symbol is not allowed.
        uniform: a random number from 0 to 1, see `draw`.
    """
    if temperature == 0:
        return int(scores.numpy().argmax())  # of so many numbers in a tenth of torch's time
    share = scores.new_tensor([[uniform]])
    return int(sample_codes(scores[None], temperature, top_k, share))


def sample_each(
    scores: torch.Tensor, temperature: torch.Tensor, top_k: int, uniform: torch.Tensor
) -> torch.Tensor:
    """The same for each row at a temperature of its own.

    Args:
        scores: [S, V].
        temperature: [S]; 0: the best symbol.
        uniform: [S].

    Returns int64 [S].
    """
    is_drawn = temperature > 0
    divisor = temperature.masked_fill(~is_drawn, 1.0).to(scores.dtype)
    drawn = _by_inverse(scores, divisor[:, None], top_k, uniform[:, None].to(scores.dtype))
    return torch.where(is_drawn, drawn[:, 0], scores.argmax(-1))


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
    return _by_inverse(logits, temperature, top_k, uniform)


def _by_inverse(logits, temperature, top_k: int, uniform: torch.Tensor) -> torch.Tensor:
    """sample_codes at a temperature above 0, a number or [B, 1]."""
    values, indices = logits.topk(min(top_k, logits.shape[-1]))
    cumulative = (values / temperature).softmax(-1, dtype=torch.float32).cumsum(-1)
    place = (cumulative < uniform * cumulative[:, -1:]).sum(-1, keepdim=True)
    return indices.gather(1, place)
