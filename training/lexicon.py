"""Write the lexicon that turns phones into words: every word's phones, and a trigram.

    python -m duplex.training.lexicon --data DATA --texts corpus/user_texts.txt \\
        --words /usr/share/dict/american-english --out runs/lexicon

Words are written as they mostly are inside the texts' sentences, or else in the list: Paris, I'm,
house. What is read and what is heard is then the same to the LM, which knows more of Eleanor
Roosevelt than of eleanor roosevelt.

The trigram backs off with absolute discounting (Ney et al., 1994): a follower's count is lowered,
and what that saves goes to the shorter context. Trigrams that stand only once are left out. Texts
are those of duplex.training.sentences, none of which asks to share alike; a file named twice counts
twice.
"""

import argparse
import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from duplex import checkpoint
from duplex.model.asr.encoder import WORD_END
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.common.options import existing_file, part_folder, pool_folder
from duplex.training.data.normalize import word_phones
from duplex.training.data.pool import Pool
from duplex.training.text.sources import read_sentences

# What is taken off the count of a follower.
DISCOUNT = 0.75


def count_ngrams(
    heard: Iterable[str], listed: Iterable[str], max_words: int = 60
) -> tuple[list[str], list[Counter]]:
    """Count the words in texts in spoken form, and those of a list.

    Longer texts are left out. Returns the words, of which the first is the sentence's bounds; the
    counts of 1, 2 and 3 in a row, by their numbers.
    """
    index = {"": 0}
    counts = [Counter(), Counter(), Counter()]
    for text in heard:
        said = [index.setdefault(word, len(index)) for word in text.split()]
        if 0 < len(said) <= max_words:
            said = [0, *said, 0]
            for n in range(3):
                counts[n].update(zip(*(said[i:] for i in range(n + 1)), strict=False))
    # Each sentence ends once; that it begins is not foretold.
    counts[0][0,] //= 2
    # A word that only stands in a list counts a fifth.
    for word in listed:
        counts[0][index.setdefault(word, len(index)),] += 0.2
    return list(index), counts


def estimate(size: int, counts: list[Counter]) -> dict[str, np.ndarray]:
    """The trigram of `size` words: log-probabilities and back-off weights by sorted keys.

    See duplex.model.asr.lexicon.Lexicon.
    """
    ones = np.zeros(size)
    for (word,), count in counts[0].items():
        ones[word] = count
    unigram = ones / ones.sum()

    bigrams = sorted_rows([(a * size + b, n) for (a, b), n in counts[1].items()])
    keys, times = bigrams.T
    first, second = np.divmod(keys, size)
    seen = np.bincount(first, times, size)  # How often a word has been followed.
    left = 1 - np.bincount(first, times - DISCOUNT, size) / np.maximum(seen, 1)
    bigram = (times - DISCOUNT) / seen[first] + left[first] * unigram[second]

    trigrams = sorted_rows(
        [((a * size + b) * size + c, n) for (a, b, c), n in counts[2].items() if n > 1]
    )
    context, third = np.divmod(trigrams[:, 0], size)
    head = np.searchsorted(keys, context)
    tail = np.searchsorted(keys, context % size * size + third)
    kept = trigrams[:, 1] - DISCOUNT
    # A pair that ends a sentence has no follower, all others have as many as they have counts.
    left_pair = 1 - np.bincount(head, kept, len(keys)) / times
    trigram = kept / times[head] + left_pair[head] * bigram[tail]

    scores = {
        "unigrams": unigram,
        "backoffs": left,
        "bigrams": bigram,
        "bigram_backoffs": left_pair,
        "trigrams": trigram,
    }
    return {
        **{name: np.log(np.maximum(p, 1e-9)).astype(np.float16) for name, p in scores.items()},
        "bigram_words": second.astype(np.int32),
        "bigram_counts": np.bincount(first, minlength=size).astype(np.int32),
        "trigram_words": third.astype(np.int32),
        "trigram_counts": np.bincount(head, minlength=len(keys)).astype(np.uint16),
    }


def sorted_rows(rows: list[tuple[int, int]]) -> np.ndarray:
    """(key, count) rows as int64 [N, 2], by key."""
    array = np.array(rows, np.int64).reshape(-1, 2)
    return array[np.argsort(array[:, 0])]


def spellings(words: Iterable[str], lines: Iterable[str], listed: Iterable[str]) -> list[str]:
    """How each lower-case word is mostly written inside the lines, or else in the list.

    Lines without capitals say nothing of it.
    """
    written = (line for line in lines if line[:1].isupper() and not line.isupper())
    pairs = (pair for line in written for pair in pairwise(line.split()))
    inside = Counter(
        word.strip(".,;:!?\"'()[]-")
        for before, word in pairs
        if not before.endswith((".", "!", "?"))
    )
    found: dict[str, str] = {}
    for form, _ in inside.most_common():
        found.setdefault(form.lower(), form)
    for form in sorted(listed, reverse=True):  # Small letters before capitals.
        found.setdefault(form.lower(), form)
    return [found.get(word, word) for word in words]


def pack(
    heard: Iterable[str], listed: Iterable[str] = (), spell: Callable = list
) -> dict[str, np.ndarray]:
    """All that lexicon.unpack needs, of texts in spoken form and the words of a list.

    What cannot be said is left out. spell: words -> how they are written.
    """
    heard = [" ".join(word for word in text.split() if word_phones(word)) for text in heard]
    words, counts = count_ngrams(heard, (word for word in listed if word_phones(word)))
    phones = [phone for word in words[1:] for phone in (*word_phones(word), WORD_END)]
    return {
        "words": as_bytes(spell(words[1:])),
        "phones": np.array(phones, np.uint8),
        **estimate(len(words), counts),
    }


def as_bytes(words: list[str]) -> np.ndarray:
    """The words one a line, uint8 [N]."""
    return np.frombuffer("\n".join(words).encode(), np.uint8)


def make_lexicon(lines: list[str], listed: list[str], start: Path | None) -> dict[str, np.ndarray]:
    """The tensors of a lexicon, of sentences and the words of a list.

    start: a lexicon of which all stays but how its words are written.
    """
    if start:
        tensors = checkpoint.read(start / "model.safetensors")
        stored = {name: value.numpy() for name, value in tensors.items()}
        words = stored["words"].tobytes().decode().lower().split("\n")
        return {**stored, "words": as_bytes(spellings(words, lines, listed))}
    with get_context("spawn").Pool() as workers:
        heard = workers.map(spoken_form, lines, chunksize=2000)
    plain = {word.lower() for word in listed}
    plain = {w for w in plain if re.fullmatch(r"[a-z']+", w) and not w.endswith("'s")}
    return pack(heard, sorted(plain), lambda words: spellings(words, lines, listed))


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with text/")
    parser.add_argument(
        "--texts",
        type=existing_file,
        nargs="*",
        default=[],
        metavar="FILE",
        help="files with one sentence a line",
    )
    parser.add_argument(
        "--pool",
        type=pool_folder,
        action="append",
        default=[],
        metavar="FOLDER",
        help="speech pool whose training texts are read too, repeatable",
    )
    parser.add_argument(
        "--words", type=existing_file, metavar="FILE", help="a list of words, one a line"
    )
    parser.add_argument(
        "--start",
        type=part_folder,
        metavar="FOLDER",
        help="lexicon of which all stays but how its words are written",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the lexicon")
    return parser.parse_args(arguments)


def main() -> None:
    args = parse_arguments()
    lines = [line for path in args.texts for line in path.read_text().splitlines()]
    lines += read_sentences(args.data)
    lines += [entry["text"] for folder in args.pool for entry in Pool(folder, "train").entries]
    listed = args.words.read_text().splitlines() if args.words else []
    stored = make_lexicon(lines, listed, args.start)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(stored, args.out / "model.safetensors")
    sizes = {name: len(stored[name]) for name in ("unigrams", "bigrams", "trigrams")}
    megabytes = sum(value.nbytes for value in stored.values()) / 1e6
    print(f"{len(lines)} sentences: {sizes}, {megabytes:.1f} MB")


if __name__ == "__main__":
    main()
