"""Write the lexicon that turns phones into words: every word's phones, and which words follow which (a trigram).

    python -m duplex.training.lexicon --data DATA --texts corpus/user_texts.txt --words /usr/share/dict/american-english \\
        --out runs/lexicon

Words are written as they mostly are inside the texts' sentences, or else in the list: Paris, I'm, house. What is read and what is
heard is then the same to the LM, which knows more of Eleanor Roosevelt than of eleanor roosevelt.

The trigram backs off with absolute discounting (Ney et al., 1994): a follower's count is lowered by DISCOUNT, and what that
saves goes to the shorter context. Trigrams that stand only once are left out. Texts are those of duplex.training.sentences, none of
which asks to share alike; a file named twice counts twice.
"""

import argparse
import re
from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from duplex.training.data.normalize import heard_form, word_phones
from duplex.training.data.pool import Pool
from duplex.training.text.sources import read_sentences

from duplex.model.encoder import WORD_END

DISCOUNT = 0.75
UNREAD_COUNT = 0.2  # of a word that only stands in a list
LONGEST = 60  # words of a sentence
PUNCTUATION = ".,;:!?\"'()[]-"


def count(heard: Iterable[str], listed: Iterable[str]) -> tuple[list[str], list[Counter]]:
    """Heard forms, words of a list -> words (the first is the sentence's bounds), counts of 1, 2 and 3 in a row by index."""
    index, counts = {"": 0}, [Counter(), Counter(), Counter()]
    for text in heard:
        said = [index.setdefault(word, len(index)) for word in text.split()]
        if 0 < len(said) <= LONGEST:
            said = [0, *said, 0]
            for n in range(3):
                counts[n].update(zip(*(said[i:] for i in range(n + 1)), strict=False))
    counts[0][0,] //= 2  # each sentence ends once; that it begins is not foretold
    for word in listed:
        counts[0][index.setdefault(word, len(index)),] += UNREAD_COUNT
    return list(index), counts


def estimate(size: int, counts: list[Counter]) -> dict[str, np.ndarray]:
    """Counts -> log-probabilities and back-off weights by sorted keys, see duplex.model.lexicon.Lexicon."""
    ones = np.zeros(size)
    for (word,), n in counts[0].items():
        ones[word] = n
    bigrams = np.array([(a * size + b, n) for (a, b), n in counts[1].items()], np.int64)
    bigrams = bigrams[np.argsort(bigrams[:, 0])]
    trigrams = np.array(
        [((a * size + b) * size + c, n) for (a, b, c), n in counts[2].items() if n > 1], np.int64
    ).reshape(-1, 2)
    trigrams = trigrams[np.argsort(trigrams[:, 0])]
    unigram = ones / ones.sum()
    (keys, times), (first, second) = bigrams.T, np.divmod(bigrams[:, 0], size)
    seen = np.bincount(first, times, size)  # how often a word has been followed
    left = 1 - np.bincount(first, times - DISCOUNT, size) / np.maximum(seen, 1)
    bigram = (times - DISCOUNT) / seen[first] + left[first] * unigram[second]
    longer, (context, third) = trigrams[:, 1], np.divmod(trigrams[:, 0], size)
    head = np.searchsorted(keys, context)
    # a pair that ends a sentence has no follower, all others have as many as they have counts
    left_pair = 1 - np.bincount(head, longer - DISCOUNT, len(keys)) / times
    tail = np.searchsorted(keys, context % size * size + third)
    trigram = (longer - DISCOUNT) / times[head] + left_pair[head] * bigram[tail]
    scores = {
        "unigrams": unigram,
        "backoffs": left,
        "bigrams": bigram,
        "bigram_backoffs": left_pair,
        "trigrams": trigram,
    }
    scores = {
        name: np.log(np.maximum(value, 1e-9)).astype(np.float16) for name, value in scores.items()
    }
    return {
        **scores,
        "bigram_words": second.astype(np.int32), "bigram_counts": np.bincount(first, minlength=size).astype(np.int32),
        "trigram_words": third.astype(np.int32), "trigram_counts": np.bincount(head, minlength=len(keys)).astype(np.uint16),
    }  # fmt: skip


def spellings(words: Iterable[str], lines: Iterable[str], listed: Iterable[str]) -> list[str]:
    """Lower-case words -> each as it is mostly written inside the lines (of those with capitals), or else in the list."""
    written = (line for line in lines if line[:1].isupper() and not line.isupper())
    pairs = (pair for line in written for pair in pairwise(line.split()))
    inside = Counter(
        word.strip(PUNCTUATION) for before, word in pairs if not before.endswith((".", "!", "?"))
    )
    found: dict[str, str] = {}
    for form, _ in inside.most_common():
        found.setdefault(form.lower(), form)
    for form in sorted(listed, reverse=True):  # small letters before capitals
        found.setdefault(form.lower(), form)
    return [found.get(word, word) for word in words]


def pack(heard: Iterable[str], listed: Iterable[str] = (), spell=list) -> dict[str, np.ndarray]:
    """Heard forms of sentences, words of a list -> all that duplex.model.lexicon.unpack needs. What cannot be said is left out.
    spell: words -> as they are written."""
    heard = [" ".join(word for word in text.split() if word_phones(word)) for text in heard]
    words, counts = count(heard, (word for word in listed if word_phones(word)))
    phones = [phone for word in words[1:] for phone in (*word_phones(word), WORD_END)]
    return {
        "words": as_bytes(spell(words[1:])),
        "phones": np.array(phones, np.uint8),
        **estimate(len(words), counts),
    }


def as_bytes(words: list[str]) -> np.ndarray:
    return np.frombuffer("\n".join(words).encode(), np.uint8)


def main() -> None:
    from safetensors.numpy import load_file, save_file

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with text/, see the model card"
    )
    parser.add_argument(
        "--texts", type=Path, nargs="*", default=[], help="files with one sentence a line"
    )
    parser.add_argument(
        "--pool",
        type=Path,
        action="append",
        default=[],
        help="speech pool whose training texts are read too",
    )
    parser.add_argument("--words", type=Path, help="a list of words, one a line")
    parser.add_argument(
        "--start",
        type=Path,
        help="folder of a lexicon of which all stays but how its words are written",
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    lines = [line for path in args.texts for line in path.read_text().splitlines()] + list(
        read_sentences(args.data)
    )
    lines += [entry["text"] for folder in args.pool for entry in Pool(folder, "train").entries]
    listed = args.words.read_text().splitlines() if args.words else []
    spell = partial(spellings, lines=lines, listed=listed)
    if args.start:
        stored = load_file(args.start / "model.safetensors")
        stored["words"] = as_bytes(spell(stored["words"].tobytes().decode().lower().split("\n")))
    else:
        with get_context("spawn").Pool() as workers:
            heard = workers.map(heard_form, lines, chunksize=2000)
        listed = {word.lower() for word in listed}
        stored = pack(
            heard,
            sorted(
                word
                for word in listed
                if re.fullmatch(r"[a-z']+", word) and not word.endswith("'s")
            ),
            spell,
        )
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(stored, args.out / "model.safetensors")
    sizes = {name: len(stored[name]) for name in ("unigrams", "bigrams", "trigrams")}
    print(f"{len(lines)} sentences: {sizes}, {sum(v.nbytes for v in stored.values()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
