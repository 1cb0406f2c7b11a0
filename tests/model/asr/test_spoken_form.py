"""Figures, signs and capitals become words of lower-case letters."""

import pytest

from duplex.model.asr.spoken_form import spoken_form


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("It's 9:05, isn't it?", "it's nine oh five isn't it"),
        ("In 1984 he paid $3.50.", "in nineteen eighty four he paid three dollars and fifty cents"),
        ("The 21st of 1,250", "the twenty first of one thousand two hundred and fifty"),
        ("At 7 PM the U.S. team", "at seven pm the u s team"),
        ("In the 1980s, 90% & 007", "in the nineteen eighties ninety percent and zero zero seven"),
        ("What's 3 + 4, or 3x4?", "what's three plus four or three times four"),
        ("10 - 4, a 3-day trip", "ten minus four a three day trip"),
        ("Café “quoted” – words!", "cafe quoted words"),
    ],
)
def test_a_text_as_it_is_said(written, spoken):
    assert spoken_form(written) == spoken
