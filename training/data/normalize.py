"""What is heard, as phones: how the words of a spoken form are said."""

from functools import lru_cache

import torchaudio

from duplex.model.asr.encoder import PHONES, WORD_END
from duplex.model.tts.g2p import G2P


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
    """A text in its spoken form as indices of the CTC over phones.

    A word ends with WORD_END, the last one too.
    """
    return [phone for word in heard.split() for phone in (*word_phones(word), WORD_END)]


def word_errors(reference: str, heard: str) -> int:
    """Words to insert, delete or replace to turn one text into the other."""
    return torchaudio.functional.edit_distance(reference.split(), heard.split())
