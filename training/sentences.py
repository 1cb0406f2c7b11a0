"""Sentences to be spoken for the ears and for the talker: many different words, rare ones often.

    python -m duplex.training.sentences --data DATA --count 52000 --out sentences.txt
    python -m duplex.training.sentences --data DATA --count 9000 --words /usr/share/dict/american-english --rare 6000 --out spoken.txt
    python -m duplex.training.sentences --data DATA --count 0 --words /usr/share/dict/american-english --even 60000 \\
        --tokenizer TOKENIZER_FOLDER --out even.txt

Taken from Tatoeba (CC-BY 2.0 FR), the chit-chat of BYU (MIT) and the questions of WebQuestions (CC-BY 4.0). With --words, a list
with one word a line (Debian's wamerican is in the public domain), --rare further sentences name words of it in a row, and --even
ones name words of it and of the sources such that all pieces of the LM are said about equally often, and with them all ways
in which phones follow each other.
"""

import argparse
import collections
import random
import re
from pathlib import Path

from duplex.training.data.normalize import heard_form
from duplex.training.text.sources import read_sentences
from duplex.training.text.templates import expand

from duplex.model.tokens import load_tokenizer

LENGTH = (2, 28)  # words of a sentence
PLAIN = re.compile(r"[A-Za-z0-9 ,.!?'-]+")
FRAMES = (
    "{The|A|This|That|Her|My} $a {and the|or the|near the|with the|without any|against the} $b {was|is|looks|seems} $c."
    "|{What|Who} {is|was} {the|a} $a {of|behind|in} the $b?|{He|She|They} said $a, $b and $c."
    "|{I|We} {wrote|read|heard} about $a and $b.|{Is|Was} it $a, $b or $c?"
)


LISTS = (
    "$a, $b, $c and $d.|$a $b $c $d|{Not|Only|Why|Is it} $a or $b, {but|and} {not|also} $c $d."
    "|{The|A|Some|Our} $a {of|for|with} $b, {the|a|their} $c {and|or} $d.|$a {and|in|of} $b {was|is|are|will be} $c by $d."
    "|{I|We|They} {know|need|like|saw|said} $a, $b, $c, {maybe|or even|then} $d."
)


def rare_often(lines: list[str], count: int, rng: random.Random) -> list[str]:
    """A draw of `count` lines without repetition, weighted by how rare their words are (Efraimidis and Spirakis 2006)."""
    words = [heard_form(line).split() for line in lines]
    said = collections.Counter(word for line in words for word in set(line))
    weights = [
        0.02 + sum(said[word] ** -0.5 for word in line if said[word] > 1) for line in words
    ]  # once: a misspelling
    fitting = [i for i, line in enumerate(words) if LENGTH[0] <= len(line) <= LENGTH[1]]
    order = sorted(fitting, key=lambda i: rng.random() ** (1 / weights[i]), reverse=True)
    return [lines[i] for i in order[:count]]


def rare_words(words: list[str], count: int, rng: random.Random) -> list[str]:
    """Sentences, with no sense, that name two or three of the words."""
    return [
        expand(FRAMES, rng, dict(zip("abc", rng.sample(words, 3), strict=True)))
        for _ in range(count)
    ]


def even_words(words: list[str], spell, count: int, rng: random.Random) -> list[str]:
    """Sentences, with no sense, that name four words each; every piece that `spell(word)` gives is said about equally often."""
    having = collections.defaultdict(list)
    for word in words:
        for piece in set(spell(word.lower())):
            having[piece].append(word)
    said, lines = collections.Counter(dict.fromkeys(having, 0)), []
    while len(lines) < count:
        turn = sorted(having, key=lambda piece: said[piece] + 3 * rng.random())[
            : 4 * (len(having) // 16 or 1)
        ]  # the least said
        chosen = [rng.choice(having[piece]) for piece in rng.sample(turn, len(turn))]
        for four in zip(*[iter(chosen)] * 4, strict=False):
            said.update(piece for word in four for piece in spell(word.lower()))
            lines.append(expand(LISTS, rng, dict(zip("abcd", four, strict=True))))
    return lines[:count]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with text/")
    parser.add_argument("--count", type=int, default=52000, help="sentences of the sources")
    parser.add_argument("--words", type=Path, help="a list of words, one a line")
    parser.add_argument(
        "--rare", type=int, default=0, help="further sentences, with words of the list"
    )
    parser.add_argument(
        "--even",
        type=int,
        default=0,
        help="further sentences, in which all pieces are said about equally often",
    )
    parser.add_argument("--tokenizer", help="folder with the LM's tokenizer.json")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    if (args.rare or args.even) and not args.words or args.even and not args.tokenizer:
        parser.error("--rare and --even need --words; --even needs --tokenizer as well")
    sentences = list(
        dict.fromkeys(line for line in read_sentences(args.data) if PLAIN.fullmatch(line))
    )
    lines = rare_often(sentences, args.count, rng)
    listed = args.words.read_text(encoding="utf-8").split() if args.words else []
    if args.rare:
        lines += rare_words(
            [word for word in listed if re.fullmatch("[A-Za-z][a-z]{3,}", word)], args.rare, rng
        )
    if args.even:
        pieces = load_tokenizer(Path(args.tokenizer))
        said = collections.Counter(
            word for line in sentences for word in re.findall(r"[A-Za-z']+[a-z]", line)
        )
        words = {word for word in listed if re.fullmatch("[A-Za-z][a-z]+", word)} | {
            word for word in said if said[word] > 2
        }
        lines += even_words(
            sorted(words), lambda word: pieces.encode(" " + heard_form(word)).ids, args.even, rng
        )
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(
        f"{len(lines)} sentences, {len({word for line in lines for word in heard_form(line).split()})} different words"
    )


if __name__ == "__main__":
    main()
