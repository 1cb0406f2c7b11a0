"""What is heard, as text and as word pieces: the spoken form of a sentence, and how the CTC head spells it.

`choose_pieces` picks the language model's tokens that occur often in spoken text; every other word is put together from
the fewest of them (single letters are always among them).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from hibari.g2p import numbers
from hibari.g2p.normalize import normalize
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from duplex.encoder import PHONES
from duplex.pronounce import Pronounce

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
SAME_PHONES = {"T": "t", "ᵊ": "ə", "ɐ": "ə", "ᵻ": "ɪ"}  # Hibari's -> the ears'
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

MONEY = re.compile(r"([$£€])(\d[\d,]*)(?:\.(\d\d))?(?!\d)")
MONEY_NAMES = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
ORDINAL = re.compile(r"\b(\d+)(?:st|nd|rd|th)\b")
DECADE = re.compile(r"\b(\d{2}|\d{4})s\b")
YEAR = re.compile(r"(?<![\d.,])(1[1-9]\d\d|20[0-9]\d)(?![\d,]|\.\d)")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
HALF_DAY = re.compile(r"\b([ap])\. ?m\b\.?")
INITIALS = re.compile(r"\b(?:[a-z]\.){2,}")
NOT_SPOKEN = re.compile(r"[^a-z' ]+")
SPACES = re.compile(r"\s+")


def load_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    """The language model's tokenizer, from the folder of its GGUF file."""
    return AutoTokenizer.from_pretrained(folder, gguf_file=GGUF_FILE)


def _money(match: re.Match) -> str:
    sign, whole, cents = match.groups()
    name, small = MONEY_NAMES[sign]
    count = int(whole.replace(",", ""))
    words = f"{numbers.cardinal(count)} {name}{'' if count == 1 else 's'}"
    return words + (f" and {numbers.cardinal(int(cents))} {small}s" if cents and int(cents) else "")


def _number(match: re.Match) -> str:
    digits = match.group().replace(",", "")
    if digits.startswith("0") and digits.isdigit() and len(digits) > 1 or len(digits) > 15:
        return " ".join(numbers.cardinal(int(digit)) for digit in digits if digit != ".")
    return numbers.decimal(digits) if "." in digits else numbers.cardinal(int(digits))


def _decade(match: re.Match) -> str:
    words = numbers.year(int(match.group(1))) if len(match.group(1)) == 4 else numbers.cardinal(int(match.group(1)))
    return words[:-1] + "ies" if words.endswith("y") else words + "s"


def heard_form(text: str) -> str:
    """'It's 9:05, isn't it?' -> "it's nine oh five isn't it": lower case words of letters and apostrophes only."""
    text = normalize(text).lower()
    text = MONEY.sub(_money, text)
    text = ORDINAL.sub(lambda match: numbers.ordinal(int(match.group(1))), text)
    text = DECADE.sub(_decade, text)
    text = YEAR.sub(lambda match: numbers.year(int(match.group(1))), text)
    text = NUMBER.sub(lambda match: f" {_number(match)} ", text)
    text = text.replace("%", " percent ").replace("&", " and ")
    text = HALF_DAY.sub(r"\1m", text)
    text = INITIALS.sub(lambda match: match.group().replace(".", " "), text)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = SPACES.split(NOT_SPOKEN.sub(" ", text))
    return " ".join(word.strip("'") for word in words if word.strip("'"))


class Pieces:
    """Spells heard text in the pieces of the CTC head. Index 0 is its blank, so piece i has index i + 1."""

    def __init__(self, ctc_tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.index = {token: i + 1 for i, token in enumerate(ctc_tokens)}
        self.texts = [tokenizer.decode([token]) for token in ctc_tokens]
        self.by_text = {text: i + 1 for i, text in enumerate(self.texts)}
        self.longest = max(map(len, self.texts))
        self.word = lru_cache(100_000)(self._word)
        self.said = lru_cache(100_000)(lambda written: self.spell(heard_form(written)))  # one written word

    def _word(self, word: str) -> tuple[int, ...]:
        """CTC indices of one word: the language model's own tokens if all are pieces, else the fewest pieces."""
        tokens = self.tokenizer.encode(" " + word, add_special_tokens=False)
        if all(token in self.index for token in tokens):
            return tuple(self.index[token] for token in tokens)
        return fewest_pieces(" " + word, self.by_text, self.longest)

    def spell(self, heard: str) -> list[int]:
        """Heard text (see `heard_form`) -> CTC indices."""
        return [index for word in heard.split() for index in self.word(word)]

    def timed(self, words: list, target: list[int]) -> list[tuple[int, float]] | None:
        """words [[written, start_s, end_s], ...] -> each piece with the time at which it has been said.

        None where there are no times, or the words spelled one by one are not the whole text's `target`.
        """
        pieces = []
        for written, start, end in words:
            said = self.said(written)
            pieces += [(piece, start + (end - start) * (n + 1) / len(said)) for n, piece in enumerate(said)]
        return pieces if pieces and [piece for piece, _ in pieces] == target else None

    def text(self, indices: Iterable[int]) -> str:
        """CTC indices, blanks and repeats already gone -> heard text."""
        return SPACES.sub(" ", "".join(self.texts[index - 1] for index in indices)).strip()

    def greedy(self, best: Sequence[int]) -> str:
        """The most probable index of each tick -> heard text."""
        return self.text(i for n, i in enumerate(best) if i and (n == 0 or i != best[n - 1]))


def fewest_pieces(text: str, by_text: dict[str, int], longest: int) -> tuple[int, ...]:
    """Cut `text` into as few known pieces as can be."""
    best: list[tuple[int, ...] | None] = [()] + [None] * len(text)
    for end in range(1, len(text) + 1):
        for start in range(max(0, end - longest), end):
            piece, head = by_text.get(text[start:end]), best[start]
            if piece and head is not None and (best[end] is None or len(head) + 1 < len(best[end])):
                best[end] = (*head, piece)
    assert best[-1] is not None, f"cannot spell {text!r}"
    return best[-1]


@lru_cache(1)
def front() -> Pronounce:
    return Pronounce()


@lru_cache(200_000)
def word_phones(word: str) -> tuple[int, ...]:
    """How a heard word is said, by itself: indices of the encoder's CTC over phones."""
    symbols = {number: symbol for symbol, number in front().alphabet.items()}
    said = "".join(SAME_PHONES.get(p, p) for p in (symbols[number] for number in front().phones(word, (), "b")))
    return tuple(PHONES.index(p) + 1 for p in said if p in PHONES.strip())


def phones(heard: str) -> list[int]:
    """'it is' -> indices of the CTC over phones; a word ends with the space after it, the last one too."""
    return [phone for word in heard.split() for phone in (*word_phones(word), PHONES.index(" ") + 1)]


def piece_ids(text: str, ctc_tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Any text -> CTC indices. Keep a `Pieces` when there is more than one text."""
    return Pieces(ctc_tokens, tokenizer).spell(heard_form(text))


def choose_pieces(heard: Iterable[str], tokenizer: PreTrainedTokenizerBase, count: int = 3800) -> list[int]:
    """The `count` most frequent tokens of heard texts, and all letters, as sorted token ids."""
    words = Counter(word for text in heard for word in text.split())
    tokens: Counter[int] = Counter()
    for word, times in words.items():
        for token in tokenizer.encode(" " + word, add_special_tokens=False):
            tokens[token] += times
    single = [tokenizer.encode(space + letter, add_special_tokens=False) for letter in LETTERS for space in ("", " ")]
    letters = {ids[0] for ids in single if len(ids) == 1}
    return sorted(letters | {token for token, _ in tokens.most_common(count)})


def word_errors(reference: str, heard: str) -> int:
    """Words to insert, delete or replace to turn one text into the other."""
    target = reference.split()
    row = list(range(len(target) + 1))
    for n, word in enumerate(heard.split(), 1):
        above, row[0] = row[0], n
        for i, wanted in enumerate(target, 1):
            above, row[i] = row[i], min(row[i] + 1, row[i - 1] + 1, above + (word != wanted))
    return row[-1]
