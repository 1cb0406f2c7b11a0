"""What is heard, as text and as phones: a sentence's spoken form, and how its words are said."""

import re
import unicodedata
from functools import lru_cache

import torchaudio
from hibari.g2p import numbers
from hibari.g2p.normalize import normalize

from duplex.model.encoder import PHONES, WORD_END
from duplex.model.g2p import G2P


def money_in_words(match: re.Match) -> str:
    """A sign, whole units and perhaps hundredths.

    "$3.50" -> "three dollars and fifty cents"
    """
    names = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
    sign, whole, cents = match.groups()
    name, small = names[sign]
    count = int(whole.replace(",", ""))
    words = f"{numbers.cardinal(count)} {name}{'' if count == 1 else 's'}"
    return words + (f" and {numbers.cardinal(int(cents))} {small}s" if cents and int(cents) else "")


def number_in_words(match: re.Match) -> str:
    """A number; digit by digit if it begins with a zero or is very long."""
    digits = match.group().replace(",", "")
    begins_with_zero = digits.startswith("0") and digits.isdigit() and len(digits) > 1
    if begins_with_zero or len(digits) > 15:
        words = " ".join(numbers.cardinal(int(digit)) for digit in digits if digit != ".")
    elif "." in digits:
        words = numbers.decimal(digits)
    else:
        words = numbers.cardinal(int(digits))
    return f" {words} "


def decade_in_words(match: re.Match) -> str:
    """The digits of a decade: "1980" of "1980s" -> "nineteen eighties"."""
    digits = match.group(1)
    words = numbers.year(int(digits)) if len(digits) == 4 else numbers.cardinal(int(digits))
    return words[:-1] + "ies" if words.endswith("y") else words + "s"


def heard_form(text: str) -> str:
    """The spoken form of a text: lower-case words of letters and apostrophes only.

    "It's 9:05, isn't it?" -> "it's nine oh five isn't it"
    """
    text = normalize(text).lower()
    text = re.sub(r"([$£€])(\d[\d,]*)(?:\.(\d\d))?(?!\d)", money_in_words, text)
    text = re.sub(
        r"\b(\d+)(?:st|nd|rd|th)\b", lambda match: numbers.ordinal(int(match.group(1))), text
    )
    text = re.sub(r"\b(\d{2}|\d{4})s\b", decade_in_words, text)
    text = re.sub(
        r"(?<![\d.,])(1[1-9]\d\d|20[0-9]\d)(?![\d,]|\.\d)",
        lambda match: numbers.year(int(match.group(1))),
        text,
    )
    text = re.sub(r"\d[\d,]*(?:\.\d+)?", number_in_words, text)
    text = text.replace("%", " percent ").replace("&", " and ")
    text = re.sub(r"\b([ap])\. ?m\b\.?", r"\1m", text)
    text = re.sub(r"\b(?:[a-z]\.){2,}", lambda match: match.group().replace(".", " "), text)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z' ]+", " ", text).split()
    return " ".join(word.strip("'") for word in words if word.strip("'"))


@lru_cache(1)
def front_end() -> G2P:
    """Hibari's, which says words."""
    return G2P()


@lru_cache(200_000)
def word_phones(word: str) -> tuple[int, ...]:
    """How a heard word is said, by itself: indices of the encoder's CTC over phones."""
    # Hibari's phones that the encoder does not tell apart.
    same = {"T": "t", "ᵊ": "ə", "ɐ": "ə", "ᵻ": "ɪ"}
    symbols = {number: symbol for symbol, number in front_end().alphabet.items()}
    said = (symbols[number] for number in front_end().phones(word, (), "b"))
    said = "".join(same.get(symbol, symbol) for symbol in said)
    return tuple(PHONES.index(phone) + 1 for phone in said if phone in PHONES.strip())


def phones(heard: str) -> list[int]:
    """A text in heard form as indices of the CTC over phones.

    A word ends with WORD_END, the last one too.
    """
    return [phone for word in heard.split() for phone in (*word_phones(word), WORD_END)]


def word_errors(reference: str, heard: str) -> int:
    """Words to insert, delete or replace to turn one text into the other."""
    return torchaudio.functional.edit_distance(reference.split(), heard.split())
