"""Sentences to be spoken for the encoder and for the talker: many different words, rare ones often.

    python -m duplex.training.sentences --data DATA --count 52000 --out sentences.txt
    python -m duplex.training.sentences --data DATA --count 9000 --rare 6000 \\
        --words /usr/share/dict/american-english --out spoken.txt
    python -m duplex.training.sentences --data DATA --count 0 --even 60000 \\
        --words /usr/share/dict/american-english --out even.txt

Taken from Tatoeba (CC-BY 2.0 FR), the chit-chat of BYU (MIT) and the questions of WebQuestions
(CC-BY 4.0). With --words, a list with one word a line (Debian's wamerican is in the public domain),
--rare further sentences name words of it in a row, and --even ones name words of it and of the
sources such that all tokens of the LM are said about equally often, and with them all ways in which
phones follow each other.
"""

import argparse
import collections
import random
import re
from collections.abc import Callable
from pathlib import Path

from duplex.model.asr.spoken_form import spoken_form
from duplex.model.vocabulary import load_tokenizer
from duplex.training.common.options import add_tokenizer, existing_file
from duplex.training.text.sources import read_sentences
from duplex.training.text.templates import expand


def rare_often(lines: list[str], count: int, rng: random.Random) -> list[str]:
    """A draw of `count` lines of 2 to 28 words without repetition, weighted by their rare words.

    It is that of Efraimidis and Spirakis (2006). A word that stands only once is a misspelling.
    """
    words = [spoken_form(line).split() for line in lines]
    said = collections.Counter(word for line in words for word in set(line))
    weights = [0.02 + sum(said[w] ** -0.5 for w in line if said[w] > 1) for line in words]
    fitting = [i for i, line in enumerate(words) if 2 <= len(line) <= 28]
    order = sorted(fitting, key=lambda i: rng.random() ** (1 / weights[i]), reverse=True)
    return [lines[i] for i in order[:count]]


def rare_words(words: list[str], count: int, rng: random.Random) -> list[str]:
    """Sentences, with no sense, that name two or three of the words."""
    templates = (
        "{The|A|This|That|Her|My} $a {and the|or the|near the|with the|without any|against the} $b "
        "{was|is|looks|seems} $c."
        "|{What|Who} {is|was} {the|a} $a {of|behind|in} the $b?|{He|She|They} said $a, $b and $c."
        "|{I|We} {wrote|read|heard} about $a and $b.|{Is|Was} it $a, $b or $c?"
    )
    return [
        expand(templates, rng, dict(zip("abc", rng.sample(words, 3), strict=True)))
        for _ in range(count)
    ]


def even_words(
    words: list[str], spell: Callable[[str], list[int]], count: int, rng: random.Random
) -> list[str]:
    """Sentences, with no sense, that name four words each.

    Every token that spell(word) gives is said about equally often.
    """
    templates = (
        "$a, $b, $c and $d.|$a $b $c $d|{Not|Only|Why|Is it} $a or $b, {but|and} {not|also} $c $d."
        "|{The|A|Some|Our} $a {of|for|with} $b, {the|a|their} $c {and|or} $d."
        "|$a {and|in|of} $b {was|is|are|will be} $c by $d."
        "|{I|We|They} {know|need|like|saw|said} $a, $b, $c, {maybe|or even|then} $d."
    )
    having = collections.defaultdict(list)
    for word in words:
        for token in set(spell(word.lower())):
            having[token].append(word)
    said = collections.Counter(dict.fromkeys(having, 0))
    size = 4 * (len(having) // 16 or 1)
    lines = []
    while len(lines) < count:
        rarest = sorted(having, key=lambda token: said[token] + 3 * rng.random())[:size]
        chosen = [rng.choice(having[token]) for token in rng.sample(rarest, len(rarest))]
        for four in zip(*[iter(chosen)] * 4, strict=False):
            said.update(token for word in four for token in spell(word.lower()))
            lines.append(expand(templates, rng, dict(zip("abcd", four, strict=True))))
    return lines[:count]


def even_vocabulary(sentences: list[str], listed: list[str]) -> list[str]:
    """The words of a list without capitals inside, and those said more than twice, sorted."""
    said = collections.Counter(
        word for line in sentences for word in re.findall(r"[A-Za-z']+[a-z]", line)
    )
    words = {word for word in listed if re.fullmatch("[A-Za-z][a-z]+", word)}
    return sorted(words | {word for word in said if said[word] > 2})


def make_sentences(args: argparse.Namespace) -> list[str]:
    """The sentences that the arguments ask for."""
    rng = random.Random(args.seed)
    plain = re.compile(r"[A-Za-z0-9 ,.!?'-]+")
    found = (line for line in read_sentences(args.data) if plain.fullmatch(line))
    sentences = list(dict.fromkeys(found))
    lines = rare_often(sentences, args.count, rng)
    listed = args.words.read_text(encoding="utf-8").split() if args.words else []
    if args.rare:
        words = [word for word in listed if re.fullmatch("[A-Za-z][a-z]{3,}", word)]
        lines += rare_words(words, args.rare, rng)
    if args.even:
        tokenizer = load_tokenizer(args.tokenizer)

        def spell(word: str) -> list[int]:
            return tokenizer.encode(" " + spoken_form(word)).ids

        lines += even_words(even_vocabulary(sentences, listed), spell, args.even, rng)
    return lines


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with text/")
    parser.add_argument("--count", type=int, default=52000, help="sentences of the sources")
    parser.add_argument(
        "--words", type=existing_file, metavar="FILE", help="a list of words, one a line"
    )
    parser.add_argument(
        "--rare", type=int, default=0, help="further sentences, with words of the list"
    )
    parser.add_argument(
        "--even",
        type=int,
        default=0,
        help="further sentences, in which all tokens are said about equally often",
    )
    add_tokenizer(parser)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    args = parser.parse_args(arguments)
    if (args.rare or args.even) and not args.words:
        parser.error("--rare and --even need --words")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    lines = make_sentences(args)
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    different = len({word for line in lines for word in spoken_form(line).split()})
    print(f"{len(lines)} sentences, {different} different words")


if __name__ == "__main__":
    main()
