"""Grapheme to phoneme: the same phones however the text is cut, and as whole sentences are read."""

import numpy as np
import pytest

from duplex.model.tts.g2p import G2P, PAD, SPACE

READER = G2P()
LETTERS = {number: phone for phone, number in READER.alphabet.items()}


def read(pieces) -> list[tuple[str, list[int]]]:
    """The words of a whole turn, whose text comes in pieces."""
    state = READER.initial_state()
    words = []
    for piece in pieces:
        more, state = READER.push(piece, state)
        words += more
    more, state = READER.finish(state)
    assert state == READER.initial_state()
    return words + more


def spell(text: str) -> str:
    return "".join(LETTERS[phone] for _, phones in read([text]) for phone in phones)


@pytest.mark.parametrize(
    "text",
    [
        "Hello there, the apple is in the box. I want to go to Italy.",
        "It's 3:30 pm, and it costs $5 million, or $5.50.",
        "Dr. Smith ate 25% of it!  Call   555-1234.",
    ],
)
def test_text_may_be_cut_anywhere(text):
    whole = read([text])
    assert read(text) == whole
    rng = np.random.default_rng(0)
    for _ in range(5):
        cuts = [0, *sorted(rng.integers(0, len(text), 6).tolist()), len(text)]
        assert read([text[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]) == whole
    assert " ".join(word for word, _ in whole) == " ".join(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "Hello there, the apple is in the box.",
        "It is 3:30 pm and it costs $5 million, or $5.50.",
        "Dr. Smith lives at 5 St. Paul Ave.",
        "He is 5 km away.",
        "On March 5, 2024, he ran 10 miles in 1999.",
        "I was born in 1984!",
        "The zorblax isn't blue; it's (mostly) green?",
    ],
)
def test_words_are_read_as_in_the_whole_sentence(text):
    assert spell(text) == READER.g2p(text)


def test_word_is_complete_with_the_first_letter_after_it():
    state = READER.initial_state()
    words, state = READER.push("The", state)
    assert words == []
    words, state = READER.push(" capital", state)
    assert [word for word, _ in words] == ["The"]
    assert words[0][1][-1] == SPACE
    words, state = READER.push(" of", state)
    assert [word for word, _ in words] == ["capital"]
    words, state = READER.finish(state)
    assert [word for word, _ in words] == ["of"]
    assert words[0][1][-1] != SPACE


def test_weak_forms_follow_the_next_letter():
    assert spell("the apple") != spell("the pear").replace("pˈɛɹ", "ˈæpᵊl")
    assert spell("the apple").startswith("ði")
    assert spell("the pear").startswith("ðə")


def test_what_cannot_be_said_has_no_phones():
    words = read(["Yes 🙂 **really** sure."])
    assert words[1] == ("🙂", [])
    assert words[2][1]
    assert PAD not in words[2][1]
    assert read([""]) == read(["  "]) == []
