"""Room for the control tokens in a tokenizer whose first ids hold text.

SmolLM2's ids 0 to 16 are special tokens, and the control tokens take their places. Others, as
Qwen2's, begin with text and have their chat marks and spare ids at the end: there both change
places, in the tokenizer here and in the rows of the embedding (`LMConfig.moved`).
"""

import gzip
import json
import re
from pathlib import Path

import torch
from tokenizers import Tokenizer

from duplex.errors import BackboneError
from duplex.model.tokens import COMPRESSED_TOKENIZER, FIRST_TEXT_ID

# What stands at ids 0 to 2.
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def load_tokenizer(folder: Path) -> Tokenizer:
    """The LM's tokenizer, with room for the control tokens, from tokenizer.json or its .gz in a
    folder. Raises BackboneError."""
    tokenizer = read_tokenizer(folder)
    return with_room(tokenizer, moves(tokenizer))


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder as it is."""
    plain = folder / "tokenizer.json"
    if plain.exists():
        return Tokenizer.from_file(str(plain))
    compressed = (folder / COMPRESSED_TOKENIZER).read_bytes()
    return Tokenizer.from_str(gzip.decompress(compressed).decode())


def moves(tokenizer: Tokenizer) -> tuple[tuple[int, int], ...]:
    """Pairs of ids that change places; none where the first ids are special tokens already.

    Raises BackboneError where there are no chat marks.
    """
    names = [tokenizer.id_to_token(place) or "<none>" for place in range(FIRST_TEXT_ID)]
    taken = [name for name in names if not re.fullmatch(r"<.+>", name)]
    if not taken:
        return ()
    marks = [tokenizer.token_to_id(mark) for mark in MARKS]
    if None in marks:
        raise BackboneError(
            f"the first {FIRST_TEXT_ID} positions of the vocabulary hold text "
            f"({' '.join(taken)}), and there is no {MARKS[marks.index(None)]}"
        )
    spare = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    spares = range(spare, spare + FIRST_TEXT_ID - len(MARKS))
    return tuple(zip(range(FIRST_TEXT_ID), [*marks, *spares], strict=True))


def with_room(tokenizer: Tokenizer, moved: tuple[tuple[int, int], ...]) -> Tokenizer:
    """The tokenizer with ids that have changed places: see `moves`."""
    if not moved:
        return tokenizer
    place = {**dict(moved), **{other: first for first, other in moved}}
    told = json.loads(tokenizer.to_str())
    added = {token["content"]: token["id"] for token in told["added_tokens"]}
    known = {**told["model"]["vocab"], **added}
    spare = {f"<|control {n}|>": n for n in range(len(MARKS), FIRST_TEXT_ID)}
    told["model"]["vocab"] = {name: place.get(n, n) for name, n in known.items()} | spare
    for token in told["added_tokens"]:
        token["id"] = place.get(token["id"], token["id"])
    return Tokenizer.from_str(json.dumps(told))


def check_room(moved: tuple[tuple[int, int], ...], vocabulary: int) -> None:
    """Raises BackboneError where a model with so many ids has none for a text that moves."""
    missing = max((other for _, other in moved), default=0) + 1 - vocabulary
    if missing > 0:
        raise BackboneError(f"the model lacks {missing} spare ids for the control tokens")


def exchanged(table: torch.Tensor, moved: tuple[tuple[int, int], ...]) -> torch.Tensor:
    """Rows of ids [V, D], those that have changed places there."""
    if not moved:
        return table
    order = torch.arange(len(table))
    pairs = torch.tensor(moved)
    order[pairs[:, 0]] = pairs[:, 1]
    order[pairs[:, 1]] = pairs[:, 0]
    return table[order]
