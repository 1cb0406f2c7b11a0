"""Word error rates of what was heard of a text, by letters and by sound."""

import difflib
import re
from functools import lru_cache

from duplex.training.data.normalize import word_errors
from duplex.training.evaluation.hearing.normal_form import normal_form

# Words in a row that are missing, or too many: fewer may be a mishearing.
MIN_LOST_WORDS = 3


def error_rate(wanted: list[str], heard: list[str]) -> float:
    """Word errors over the words of all `wanted` texts, both in their normal form."""
    pairs = [(normal_form(a), normal_form(b)) for a, b in zip(wanted, heard, strict=True)]
    return _rate(pairs)


def sound_error_rate(wanted: list[str], heard: list[str]) -> float:
    """`error_rate` by sound: a recogniser's spelling of a name or number is no error of a voice."""
    return _rate([(sounds(a), sounds(b)) for a, b in zip(wanted, heard, strict=True)])


def _rate(pairs: list[tuple[str, str]]) -> float:
    return sum(word_errors(a, b) for a, b in pairs) / max(1, sum(len(a.split()) for a, _ in pairs))


def sounds(text: str) -> str:
    """The phones of a text's words, without stress: colonel and kernel are one word."""
    phones = " ".join(_reader().phonemize(text)).replace("-", " ")
    return " ".join(re.sub(r"[^\w\s]|[ˌˈ]", "", phones).split())


@lru_cache(1)
def _reader():
    from hibari import Hibari

    return Hibari()


def has_lost_words(wanted: str, heard: str) -> bool:
    """Whether MIN_LOST_WORDS in a row were skipped, repeated or made up."""
    a = normal_form(wanted).split()
    b = normal_form(heard).split()
    changes = difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    return any(abs((i2 - i1) - (j2 - j1)) >= MIN_LOST_WORDS for _, i1, i2, j1, j2 in changes)
