"""The draft: an n-gram model of what agents say, which proposes how the agent's text goes on.

The LM verifies the proposals in one call. Its answers are short and much alike: the tokens so far,
and at first the last words of the user, tell the next token two times of three, and that costs
nothing beside a call. `duplex.training.draft` counts it.

A proposal is one token, not a distribution. Rejection sampling against it then is: draw from the
LM as always, and keep what the LM has already been fed for as long as the draws agree with the
proposals. So the symbols are those of decoding without a draft, draw for draw, and not only their
distribution (Leviathan et al. 2023, arXiv 2211.17192, with a draft of one point).
"""

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duplex import checkpoint
from duplex.model.tokens import END

# Of the polynomial in it that makes a key of tokens, modulo 2^63.
BASE = 6_364_136_223_846_793_005
# What a share of 1 is stored as.
WHOLE = 255


@dataclass(frozen=True)
class NgramConfig:
    """What the tables were counted from."""

    # Tokens that a guess looks back at, at most; <agent> is the first of a turn.
    order: int = 5
    # Tokens of a turn, <agent> included, before which the user's words count as well; and how many
    # of his words.
    opening: int = 4
    words: int = 2
    # Size of the tokenizer.
    vocabulary: int = 49_152


@dataclass(frozen=True)
class NgramDraft:
    """The likeliest token after C contexts: so many tokens of a turn, or all of it so far and the
    last words before it. A context that is not listed counts as its ending."""

    config: NgramConfig
    keys: np.ndarray  # int64 [C] of the contexts, sorted; see `key_of`, `contexts`
    tokens: np.ndarray  # int32 [C]
    shares: np.ndarray  # uint8 [C] how often the token came, of WHOLE

    def likeliest(self, turn: list[int], words: list[str]) -> tuple[int, float] | None:
        """The token that most often followed a turn so far, and its share.

        words: the last ones of the user. Of the longest ending of the turn that is known and of
        what the words tell the surest guess counts.
        """
        plain, opening = contexts(self.config, turn, words)
        found = [guess for context in opening if (guess := self._find(context))]
        for context in plain:
            if guess := self._find(context):
                found.append(guess)
                break
        return max(found, key=lambda guess: guess[1], default=None)

    def _find(self, context: list[int]) -> tuple[int, float] | None:
        key = key_of(context)
        place = int(np.searchsorted(self.keys, key))
        if place == len(self.keys) or self.keys[place] != key:
            return None
        return int(self.tokens[place]), int(self.shares[place]) / WHOLE

    def continuation(
        self, turn: list[int], words: list[str], most: int, is_worth: Callable[[float], bool]
    ) -> list[tuple[int, float]]:
        """How a turn of the agent's goes on after the user's last words, at most so many tokens.

        Each comes with the probability of all tokens up to it together. The turn's end is the last
        one; before the first that is not worth it, it breaks off.
        """
        found: list[tuple[int, float]] = []
        turn = [*turn]
        together = 1.0
        while len(found) < most and (guess := self.likeliest(turn, words)) is not None:
            token, share = guess
            together *= share
            if not is_worth(together):
                break
            found.append((token, together))
            turn.append(token)
            if token == END:
                break
        return found


def contexts(
    config: NgramConfig, turn: list[int], words: list[str]
) -> tuple[list[list[int]], list[list[int]]]:
    """What may tell the token after a turn so far: its endings, the longest first; and while it
    opens, all of it behind one, two ... of the last words."""
    plain = [turn[-length:] for length in range(min(config.order, len(turn)), 0, -1)]
    marks = [-1 - zlib.crc32(word.encode()) for word in words[-config.words :]]
    is_opening = len(turn) <= config.opening
    opening = [[*marks[begin:], *turn] for begin in range(len(marks)) if is_opening]
    return plain, opening


def spoken_words(text: str) -> list[str]:
    """The words of a text, as alike as possible whether it was said or written."""
    return re.findall(r"[a-z0-9']+", text.lower())


def key_of(tokens: list[int]) -> int:
    """One number for some tokens: two different lists have hardly ever the same."""
    key = len(tokens)
    for token in tokens:
        key = (key * BASE + token + 1) & 0x7FFF_FFFF_FFFF_FFFF
    return key


def load_draft(folder: Path, vocabulary: int) -> NgramDraft | None:
    """The draft in a folder; None where there is none that can be used.

    It may have been counted with other tokens, or be a network, as drafts of older agents are.
    """
    if not folder.is_dir():
        return None
    if json.loads((folder / "config.json").read_text()).get("vocabulary") != vocabulary:
        return None
    config = checkpoint.load_config(NgramConfig, folder)
    stored = checkpoint.read(folder / "model.safetensors")
    return NgramDraft(config, **{name: value.numpy() for name, value in stored.items()})
