"""What of two texts is compared: words as they are said, in one spelling; or letters and digits.

References and all that is heard, by whomever, go through the same functions.
"""

import re
from collections import Counter

from duplex.model.asr.spoken_form import spoken_form

# Words that are written in two ways and said in one.
SAME = {
    "ok": "okay",
    "mr": "mister",
    "mrs": "missus",
    "dr": "doctor",
    "grey": "gray",
    "programme": "program",
    "cheque": "check",
    "tyre": "tire",
    "plough": "plow",
    "mould": "mold",
    "defence": "defense",
    "offence": "offense",
    "licence": "license",
    "practise": "practice",
    "sceptic": "skeptic",
    "judgement": "judgment",
    "jewellery": "jewelry",
    "storey": "story",
    "dialog": "dialogue",
    "catalog": "catalogue",
}
# British endings and what American spelling has for them. No two words of English become one.
SPELLINGS = (
    (r"(?<=[a-z]{2})our(?=(?:s|ed|ing|er|ers|able|ably|ful|less|ite|ites|hood)?$)", "or"),
    (r"^(cent|theat|scept|spect|lust|somb|fib|lit|met|sab|meag|calib)re(?=s?$)", r"\1er"),
    (r"(?<=[a-z]{3})is(?=(?:e|ed|es|er|ers|ing|ation|ations)$)", "iz"),
    (r"(?<=[a-z]{3})ys(?=(?:e|ed|es|er|ers|ing)$)", "yz"),
    (r"(?<=[a-z]{2}[aeiou])ll(?=(?:ed|ing|er|ers)$)", "l"),
)
# Digits as they are said one by one. The letter O and a zero are said alike.
DIGITS = {
    "zero": "0",
    "oh": "0",
    "o": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "zed": "z",
    "zee": "z",
}


def american(word: str) -> str:
    """The word in American spelling: "colours" -> "colors"."""
    word = SAME.get(word, word)
    for pattern, ending in SPELLINGS:
        word = re.sub(pattern, ending, word)
    return word


def normal_form(text: str) -> str:
    """The spoken form of a text in one spelling: "I don't, Mr. Grey" -> "i dont mister gray".

    Apostrophes go, for nobody hears them: "it's" and "its" are the same.
    """
    text = re.sub(r"\bo\. ?k\b\.?", "okay", text, flags=re.IGNORECASE)
    return " ".join(american(word) for word in spoken_form(text).replace("'", "").split())


def characters(text: str) -> str:
    """The letters and digits of a text that is spelled out, without what is between them.

    "A-B 7, oh four" -> "ab704"; "john.smith@example.com" -> "j0hnd0tsmithatexampled0tc0m", and so
    is "john dot smith at example dot com".
    """
    text = text.lower().replace("@", " at ").replace("_", " underscore ").replace("double u", "w")
    text = re.sub(r"(?<=[a-z0-9]{2})\.(?=[a-z0-9]{2})", " dot ", text)
    words = re.findall(r"[a-z]+|\d+", text)
    return "".join(DIGITS.get(word, word) for word in words).replace("o", "0")


def recalled(words: str, heard: str) -> tuple[int, int]:
    """How many of the words that matter were heard, and how many there are.

    Each counts as often as it is among them, in any order. Numbers are words ("12 oz." is "twelve
    ounces"), and a plural counts as its singular ("ounces" is "ounce").
    """
    wanted = Counter(_singular(word) for word in normal_form(words).split())
    found = Counter(_singular(word) for word in normal_form(heard).split())
    return (wanted & found).total(), wanted.total()


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
