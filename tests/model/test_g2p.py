"""The text front end: the same phones however the text is cut, and what a whole-sentence reader says."""

import numpy as np
import pytest

from duplex.model.g2p import G2P, PAD, SPACE

FRONT = G2P()
LETTERS = {id: phone for phone, id in FRONT.alphabet.items()}


def read(pieces) -> list[tuple[str, list[int]]]:
    state, words = FRONT.initial_state(), []
    for piece in pieces:
        more, state = FRONT.push(piece, state)
        words += more
    more, state = FRONT.finish(state)
    assert state == FRONT.initial_state()
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
def test_pieces_may_be_cut_anywhere(text):
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
def test_reads_as_the_whole_sentence_is_read(text):
    assert spell(text) == FRONT.g2p(text)


def test_a_word_comes_with_the_first_letter_after_it():
    state = FRONT.initial_state()
    words, state = FRONT.push("The", state)
    assert words == []
    words, state = FRONT.push(" capital", state)
    assert [word for word, _ in words] == ["The"] and words[0][1][-1] == SPACE
    words, state = FRONT.push(" of", state)
    assert [word for word, _ in words] == ["capital"]
    words, state = FRONT.finish(state)
    assert [word for word, _ in words] == ["of"] and words[0][1][-1] != SPACE


def test_the_next_letter_decides_weak_forms():
    assert spell("the apple") != spell("the pear").replace("pˈɛɹ", "ˈæpᵊl")
    assert spell("the apple").startswith("ði") and spell("the pear").startswith("ðə")


def test_what_cannot_be_said_has_no_phones():
    words = read(["Yes 🙂 **really** sure."])
    assert words[1] == ("🙂", [])
    assert words[2][1] and PAD not in words[2][1]
    assert read([""]) == [] and read(["  "]) == []
