"""Contextual biasing: words that are likely now are favoured while a transcript is decoded.

It is shallow fusion with a trie of their tokens (Zhao et al., 2019, Shallow-Fusion End-to-End
Contextual Biasing): the first token of such a word is favoured a little wherever a word may begin,
the others much, once the word has begun.
"""

from collections.abc import Callable
from dataclasses import dataclass

# A node: the tokens that may follow, each with its own node.
Trie = dict[int, "Trie"]


@dataclass(frozen=True)
class FavouredWords:
    """Words and what they gain, in nats: their first tokens and those that follow."""

    trie: Trie
    first_bonus: float
    next_bonus: float


def favour(
    words: list[str], encode: Callable[[str], list[int]], first_bonus: float, next_bonus: float
) -> FavouredWords:
    """Words, or groups of words, as they are given and with a capital.

    encode: the tokens of a word inside a text, with the space before it.
    """
    trie: Trie = {}
    for word in words:
        for form in {word, word[:1].upper() + word[1:]}:
            node = trie
            for token in encode(form):
                node = node.setdefault(token, {})
    return FavouredWords(trie, first_bonus, next_bonus)


def bonuses(favoured: FavouredWords, begun: list[Trie]) -> dict[int, float]:
    """What the next token gains, by token. begun: the nodes that the last tokens have led to."""
    found = dict.fromkeys(favoured.trie, favoured.first_bonus)
    for node in begun:
        found |= dict.fromkeys(node, favoured.next_bonus)
    return found


def advance(favoured: FavouredWords, begun: list[Trie], token: int) -> list[Trie]:
    """The nodes to which one more token leads."""
    return [node[token] for node in (favoured.trie, *begun) if node.get(token)]
