"""The spoken form of texts, and how its words are said."""

import pytest

from duplex.model.encoder import PHONES, WORD_END
from duplex.training.data.forced_alignment import frames_needed
from duplex.training.data.normalize import heard_form, phones, word_errors


@pytest.mark.parametrize(
    ("written", "heard"),
    [
        ("It's 9:05, isn't it?", "it's nine oh five isn't it"),
        ("In 1984 he paid $3.50.", "in nineteen eighty four he paid three dollars and fifty cents"),
        ("The 21st of 1,250", "the twenty first of one thousand two hundred and fifty"),
        ("At 7 PM the U.S. team", "at seven pm the u s team"),
        ("In the 1980s, 90% & 007", "in the nineteen eighties ninety percent and zero zero seven"),
        ("Café “quoted” – words!", "cafe quoted words"),
    ],
)
def test_heard_form(written, heard):
    assert heard_form(written) == heard


def test_a_text_is_its_words_phones_with_their_ends():
    said = phones("ship cheap")
    assert "".join(PHONES[phone - 1] for phone in said) == "ʃɪp ʧip " and said[-1] == WORD_END
    assert phones(heard_form("...")) == []


def test_equal_phones_need_a_blank_between_them():
    assert frames_needed([3, 3, 4]) == 4


@pytest.mark.parametrize(
    ("reference", "heard", "errors"),
    [
        ("so it is", "so it is", 0),
        ("so it is", "so is", 1),
        ("so it is", "so it really is", 1),
        ("so it is", "no it is not", 2),
        ("", "a b", 2),
        ("a b", "", 2),
        ("a b c d", "b c d e", 2),
    ],
)
def test_word_errors(reference, heard, errors):
    assert word_errors(reference, heard) == errors
