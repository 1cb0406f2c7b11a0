"""The spoken form of texts, their spelling in word pieces, and paths of known times."""

import numpy as np
import pytest

from duplex.audio import TICK_SAMPLES
from duplex.encoder import BLANK
from training.clips import UNKNOWN, Clip, ticks_needed
from training.transcript import Pieces, fewest_pieces, heard_form, word_errors

TEXTS = [" the", " cat", "s", "'s", " c", "a", "t", " d", "o", "g"]


class LongestFirst:
    """A tokenizer of a few tokens, numbered from 100."""

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        tokens = []
        while text:
            piece = max((p for p in TEXTS if text.startswith(p)), key=len)
            tokens.append(100 + TEXTS.index(piece))
            text = text[len(piece) :]
        return tokens

    def decode(self, tokens: list[int]) -> str:
        return "".join(TEXTS[token - 100] for token in tokens)


@pytest.mark.parametrize(
    "written, heard",
    [
        ("It's 9:05, isn't it?", "it's nine oh five isn't it"),
        ("In 1984 he paid $3.50.", "in nineteen eighty four he paid three dollars and fifty cents"),
        ("The 21st of 1,250", "the twenty first of one thousand two hundred and fifty"),
        ("At 7 PM the U.S. team", "at seven pm the u s team"),
        ("Café “quoted” – words!", "cafe quoted words"),
    ],
)
def test_heard_form(written, heard):
    assert heard_form(written) == heard


def test_words_are_spelled_and_read_back():
    pieces = Pieces([100, 101, 102, 103, 104, 105, 106], LongestFirst())
    assert pieces.spell("the cat's") == [1, 2, 4]
    assert pieces.text(pieces.spell("the cats cat's")) == "the cats cat's"
    assert pieces.greedy([0, 1, 1, 0, 2, 0, 0, 4]) == "the cat's"


def test_a_word_with_an_unknown_token_gets_the_fewest_pieces():
    pieces = Pieces([100, 102, 104, 105, 106], LongestFirst())  # " cat" is missing
    assert pieces.text(pieces.spell("cats")) == "cats" and len(pieces.spell("cats")) == 4
    assert fewest_pieces("aab", {"a": 1, "aa": 2, "ab": 3, "b": 4}, 2) in [(2, 4), (1, 3)]


def test_times_only_where_words_and_text_agree():
    pieces = Pieces(range(100, 110), LongestFirst())
    words = [["the", 0.0, 0.1], ["Cats,", 0.2, 0.6]]
    assert pieces.timed(words, pieces.spell("the cats")) == [(1, 0.1), (2, 0.4), (3, pytest.approx(0.6))]
    assert pieces.timed(words, pieces.spell("the cat")) is None and pieces.timed([], []) is None


def test_path_keeps_order_and_blanks_between_equal_pieces():
    clip = Clip(parts=[np.zeros(TICK_SAMPLES * 20, np.float32)], timed=[(3, 0.1), (3, 0.1), (4, 0.12)])
    path = clip.path()
    assert len(path) == clip.ticks == 20
    spoken = [i for i, index in enumerate(path) if index != BLANK]
    assert [path[i] for i in spoken] == [3, 3, 4] and spoken[1] == spoken[0] + 2 and spoken[2] == spoken[1] + 1
    assert ticks_needed([3, 3, 4]) == 4
    clip.unknown, clip.timed = [(0.0, 0.8)], []
    assert clip.path()[:5] == [UNKNOWN] * 5 and clip.path()[-1] == BLANK


def test_pieces_that_would_be_heard_after_the_clip_have_no_place_in_its_path():
    clip = Clip()
    clip.add_silence(0.4)
    clip.timed = [(piece, 0.05) for piece in (3, 3, 4, 5, 6, 6)]
    assert clip.path() == [BLANK, BLANK, BLANK, 3, BLANK]
    clip.timed = [(piece, 0.0) for piece in (3, 4, 5, 6, 7)]
    assert clip.path() == [BLANK, BLANK, 3, 4, 5]


def test_word_errors_against_the_plain_table():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = ("".join(rng.choice(list("xyz "), 12)) for _ in range(2))
        one, two = a.split(), b.split()
        table = np.zeros((len(one) + 1, len(two) + 1), int)
        table[:, 0], table[0] = np.arange(len(one) + 1), np.arange(len(two) + 1)
        for i in range(len(one)):
            for j in range(len(two)):
                change = table[i, j] + (one[i] != two[j])
                table[i + 1, j + 1] = min(table[i, j + 1] + 1, table[i + 1, j] + 1, change)
        assert word_errors(a, b) == table[-1, -1]
