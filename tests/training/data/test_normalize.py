"""How the words of a spoken form are said."""

import pytest

from duplex.model.asr.encoder import PHONES, WORD_END
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.data.forced_alignment import frames_needed
from duplex.training.data.normalize import phones, word_errors


def test_a_text_is_its_words_phones_with_their_ends():
    said = phones("ship cheap")
    assert "".join(PHONES[phone - 1] for phone in said) == "ʃɪp ʧip " and said[-1] == WORD_END
    assert phones(spoken_form("...")) == []


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
