"""Between what is spoken and what a text model reads and writes."""

import re

from text_to_num import alpha2digit

# Before the instructions: what stands last is obeyed best. Of 20 questions to seven characters
# Qwen2.5-Coder-1.5B answered 14 in character so, 11 with this behind them, 9 without its second
# sentence. With a word about ellipses, which stand for interruptions, it says "I see a ...".
SPOKEN = (
    "What you write is spoken aloud: plain short sentences, no lists, no markup, no emoji. "
    "Keep to this in every answer, and say no where it is not so:"
)
# Before what has happened.
EVENT = "This has happened just now; say something about it: "
# Signs that stand alone, as they are said.
SIGNS = {
    "+": "plus",
    "=": "equals",
    "×": "times",
    "÷": "divided by",
    "−": "minus",
    "≈": "is about",
    "<": "is less than",
    "&": "and",
}


def heard_words(said: str) -> str:
    """Words that the user said, as a text model counts with them.

    " what is seven plus five" -> "What is 7 plus 5"
    """
    words = alpha2digit(said.strip(), "en")
    return words[:1].upper() + words[1:]


def complete_words(text: str) -> int:
    """Characters of the text up to its last space: what stands before cannot grow any more."""
    return max((match.end() for match in re.finditer(r"\s", text)), default=0)


def speakable(word: str) -> str:
    """A word without markup and pictures; empty where nothing is left to be said.

    "**Paris**" -> "Paris", "+" -> "plus"; signs inside stay, for they are read: "2*3", "C#"
    """
    if word in SIGNS:
        return SIGNS[word]
    word = re.sub(r"</?\w+/?>", "", word)
    word = re.sub(r"^(?:[*_`|\\>]|~(?![\d$£€])|#(?!\w))+|[*_`~|\\]+(?=[.,;:!?)\"”’]*$)", "", word)
    kept = "’‘“”…–—£€°−×÷±√≈≤≥≠→½¼¾²³"
    word = "".join(c for c in word if c.isascii() or c.isalpha() or c in kept)
    return word if any(c.isalnum() for c in word) else ""
