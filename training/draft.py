"""Count the draft: which token of the agent's mostly follows those before it.

    python -m duplex.training.draft --corpus corpus/dialogues.jsonl \\
        --leave-out client/questions/questions.json --out runs/draft

It learns the answers of the dialogues that the LM is trained on, in the LM's tokens: for another
backbone give its --tokenizer. The report is the share of guesses that are right in dialogues that
were held out: of the next token, by how sure the guess was, and by the answer's tokens so far.
"""

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from duplex import checkpoint
from duplex.model.ngram_draft import (
    WHOLE,
    NgramConfig,
    NgramDraft,
    contexts,
    key_of,
    spoken_words,
)
from duplex.model.tokens import AGENT, END
from duplex.model.vocabulary import load_tokenizer
from duplex.training.common.options import add_tokenizer, corpus_path, existing_file, folder_to_make
from duplex.training.scenes.scene import read_dialogues

# A context is left out whose ending has the same likeliest token, with a share that differs less.
SAME_SHARE = 0.1


class Turn(NamedTuple):
    """What the agent says."""

    tokens: list[int]  # from <agent> to <end>
    words: list[str]  # that the user said before


def read_turns(corpus: Path, split: str, tokenizer, left_out: list[str]) -> list[Turn]:
    """What the agent says in a split, but for the answers to texts that are left out."""
    texts = []
    questions = []
    hidden = [spoken_words(text) for text in left_out]
    for dialogue in read_dialogues(corpus, split):
        words: list[str] = []
        for turn in dialogue["turns"]:
            if turn["role"] == "agent" and words not in hidden:
                texts.append(turn["text"])
                questions.append(words)
            elif turn["role"] == "user":
                words = spoken_words(turn["text"])
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [
        Turn([AGENT, *found.ids, END], words)
        for found, words in zip(encoded, questions, strict=True)
    ]


def count(turns: list[Turn], config: NgramConfig) -> NgramDraft:
    """The draft of some turns. A share is that of the token among all, and one more."""
    plain: dict[tuple[int, ...], Counter] = defaultdict(Counter)
    opening: dict[tuple[int, ...], Counter] = defaultdict(Counter)
    for tokens, words in turns:
        for place in range(1, len(tokens)):
            begun = contexts(config, tokens[:place], words)
            for following, found in zip((plain, opening), begun, strict=True):
                for context in found:
                    following[tuple(context)][tokens[place]] += 1
    kept: dict[tuple[int, ...], tuple[int, float]] = {}
    for following in (plain, opening):
        for context in sorted(following, key=len):
            counts = following[context]
            token, times = counts.most_common(1)[0]
            share = times / (counts.total() + 1)
            known = next((kept[end] for end in endings(context) if end in kept), None)
            is_new = known is None or known[0] != token or abs(known[1] - share) >= SAME_SHARE
            if is_new:
                kept[context] = token, share
    entries = sorted((key_of([*context]), *guess) for context, guess in kept.items())
    keys, tokens, shares = zip(*entries, strict=True)
    return NgramDraft(
        config,
        np.array(keys, np.int64),
        np.array(tokens, np.int32),
        np.round(np.array(shares) * WHOLE).astype(np.uint8),
    )


def endings(context: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Its proper endings, the longest first."""
    return [context[begin:] for begin in range(1, len(context))]


def report(draft: NgramDraft, turns: list[Turn]) -> dict:
    """The share of right guesses in turns that were not counted; see the module's docstring."""
    by_share = defaultdict(list)
    by_place = defaultdict(list)
    for tokens, words in turns:
        for place in range(1, len(tokens)):
            guess = draft.likeliest(tokens[:place], words)
            is_right = guess is not None and guess[0] == tokens[place]
            by_share[int(10 * guess[1]) / 10 if guess else 0.0].append(is_right)
            by_place[min(place - 1, 8)].append(is_right)
    every = [right for found in by_place.values() for right in found]
    return {
        "contexts": len(draft.keys),
        "right": round(float(np.mean(every)), 3),
        "by share": {key: share_of(by_share[key]) for key in sorted(by_share)},
        "by tokens so far": {key: share_of(by_place[key]) for key in sorted(by_place)},
    }


def share_of(found: list[bool]) -> list[float]:
    """[share that is true, number]"""
    return [round(float(np.mean(found)), 3), len(found)]


def save(draft: NgramDraft, folder: Path) -> None:
    """Write a run's folder."""
    names = ("keys", "tokens", "shares")
    tensors = {name: torch.from_numpy(getattr(draft, name)) for name in names}
    checkpoint.save(tensors, draft.config, folder)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus",
        type=corpus_path,
        required=True,
        metavar="FILE",
        help="dialogues.jsonl of duplex.training.corpus",
    )
    parser.add_argument(
        "--leave-out",
        type=existing_file,
        metavar="FILE",
        help="questions that measure the draft, as the values of a JSON object",
    )
    add_tokenizer(parser)
    parser.add_argument(
        "--out", type=folder_to_make, required=True, metavar="FOLDER", help="run folder"
    )
    args = parser.parse_args(arguments)
    tokenizer = load_tokenizer(args.tokenizer)
    left_out = [*json.loads(args.leave_out.read_text()).values()] if args.leave_out else []
    train, valid = (
        read_turns(args.corpus, split, tokenizer, left_out) for split in ("train", "valid")
    )
    config = NgramConfig(vocabulary=tokenizer.get_vocab_size())
    draft = count(train, config)
    save(draft, args.out)
    print(json.dumps(report(draft, valid), indent=1))


if __name__ == "__main__":
    main()
