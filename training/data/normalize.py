"""What is heard, as text and as phones: the spoken form of a sentence, and how its words are said."""

import re
import unicodedata
from functools import lru_cache

from hibari.g2p import numbers
from hibari.g2p.normalize import normalize

from duplex.model.encoder import PHONES, WORD_END
from duplex.model.g2p import G2P

SAME_PHONES = {"T": "t", "ᵊ": "ə", "ɐ": "ə", "ᵻ": "ɪ"}  # Hibari's -> the ears'

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
    words = (
        numbers.year(int(match.group(1)))
        if len(match.group(1)) == 4
        else numbers.cardinal(int(match.group(1)))
    )
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


@lru_cache(1)
def front() -> G2P:
    return G2P()


@lru_cache(200_000)
def word_phones(word: str) -> tuple[int, ...]:
    """How a heard word is said, by itself: indices of the encoder's CTC over phones."""
    symbols = {number: symbol for symbol, number in front().alphabet.items()}
    said = "".join(
        SAME_PHONES.get(p, p) for p in (symbols[number] for number in front().phones(word, (), "b"))
    )
    return tuple(PHONES.index(p) + 1 for p in said if p in PHONES.strip())


def phones(heard: str) -> list[int]:
    """'it is' -> indices of the CTC over phones; a word ends with the space after it, the last one too."""
    return [phone for word in heard.split() for phone in (*word_phones(word), WORD_END)]


def word_errors(reference: str, heard: str) -> int:
    """Words to insert, delete or replace to turn one text into the other."""
    target = reference.split()
    row = list(range(len(target) + 1))
    for n, word in enumerate(heard.split(), 1):
        above, row[0] = row[0], n
        for i, wanted in enumerate(target, 1):
            above, row[i] = row[i], min(row[i] + 1, row[i - 1] + 1, above + (word != wanted))
    return row[-1]
