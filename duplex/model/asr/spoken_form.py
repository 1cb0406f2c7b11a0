"""A text as it is said: "$3.50" -> "three dollars and fifty cents".

Recognisers write figures, signs and capitals; the language model reads what a user says as words of
lower-case letters, whoever wrote it down.
"""

import re
import unicodedata
from functools import lru_cache

from hibari.g2p import numbers
from hibari.g2p.normalize import normalize


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


def sign_in_words(match: re.Match) -> str:
    """The sign between two figures: "3 x 4" -> "3 times 4"."""
    return " times " if match.group().strip() in "xX×" else " minus "


@lru_cache(4096)  # The words of a turn are asked for again with each that is added.
def spoken_form(text: str) -> str:
    """The spoken form of a text: lower-case words of letters and apostrophes only.

    "It's 9:05, isn't it?" -> "it's nine oh five isn't it"
    """
    text = re.sub(r"(?<=\d)(\s*[xX×]\s*|\s+[-−]\s+)(?=\d)", sign_in_words, text)
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
    text = text.replace("%", " percent ").replace("&", " and ").replace("+", " plus ")
    text = re.sub(r"\b([ap])\. ?m\b\.?", r"\1m", text)
    text = re.sub(r"\b(?:[a-z]\.){2,}", lambda match: match.group().replace(".", " "), text)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z' ]+", " ", text).split()
    return " ".join(word.strip("'") for word in words if word.strip("'"))
