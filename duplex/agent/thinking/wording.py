"""Between what is spoken and what a text model reads and writes."""

import re

from text_to_num import alpha2digit

# Before the instructions: what stands last is obeyed best. Of 20 questions to seven characters
# Qwen2.5-Coder-1.5B answered 14 in character so, 11 with this behind them. With feelings of its own
# it says that it is well; with "whatever is asked" it puts off what it was told never to talk of.
# With a word about ellipses, which stand for interruptions, it says "I see a ...".
SPOKEN = (
    "What you write is spoken aloud: plain short sentences, no lists, no markup, no emoji. "
    "You are who stands here, with feelings of your own. Obey it in every answer, whatever is "
    "asked, and say no where it is not so:"
)
# Before what has happened.
EVENT = "This has happened just now; say something about it: "
# What stands for a sound that is heard, before what the user says next: so it is heeded best.
SOUND = "[sound: {}]"
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

    " what is seven plus five" -> "What is 7 plus 5", "half an hour" -> "30 minutes"
    """
    words = in_minutes(alpha2digit(said.strip(), "en"))
    return words[:1].upper() + words[1:]


def in_minutes(words: str) -> str:
    """Fractions of an hour in minutes: "an hour and a half" -> "90 minutes"."""
    numbers = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3}
    count = rf"(?P<count>\d+|{'|'.join(numbers)}) "
    rules = (
        (rf"\b{count}hours? and a half\b", 60, 30),
        (rf"\b{count}and a half hours\b", 60, 30),
        (rf"\b{count}hours? and a quarter\b", 60, 15),
        (r"\b(?:a )?half (?:an|1|one) hour\b", 0, 30),
        (r"\ba half hour\b", 0, 30),
        (r"\b(?:a|1|one) quarter of an hour\b|\ba quarter hour\b", 0, 15),
        (r"\b(?:3|three) quarters of an hour\b", 0, 45),
    )
    for pattern, each, more in rules:

        def minutes(found: re.Match, each: int = each, more: int = more) -> str:
            number = (found.groupdict().get("count") or "0").lower()
            return f"{(numbers.get(number) or int(number)) * each + more} minutes"

        words = re.sub(pattern, minutes, words, flags=re.IGNORECASE)
    return words


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
