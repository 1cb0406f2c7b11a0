"""The spoken form of texts, and how its words are said."""

import numpy as np
import pytest
from duplex.training.data.clips import frames_needed
from duplex.training.data.normalize import heard_form, phones, word_errors

from duplex.model.encoder import PHONES, WORD_END


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


def test_a_text_is_its_words_phones_with_their_ends():
    said = phones("ship cheap")
    assert "".join(PHONES[phone - 1] for phone in said) == "ʃɪp ʧip " and said[-1] == WORD_END
    assert phones(heard_form("...")) == [] and frames_needed([3, 3, 4]) == 4


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
