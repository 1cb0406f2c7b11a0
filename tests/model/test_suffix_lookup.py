"""What is looked up in a text: the longest common ending, the last of these, and no more."""

import pytest

from duplex.model.suffix_lookup import continuation


@pytest.mark.parametrize(
    ("text", "found", "matched"),
    [
        ("", "", 0),
        ("a", "", 0),
        ("abc", "", 0),
        ("abcab", "cab", 2),
        ("xbc ybd b", "d b", 1),
        ("abc, xbc, ab", "c, ", 2),
        ("abcdeabcdfabcd", "fab", 4),
        ("aaaa", "a", 3),
    ],
)
def test_continuation(text, found, matched):
    assert continuation([*map(ord, text)], 3) == ([*map(ord, found)], matched)


def test_short_endings_can_be_left_out():
    assert continuation([1, 2, 1], 3, shortest=2) == ([], 0)
    assert continuation([1, 2, 3, 1, 2], 1, shortest=2) == ([3], 2)
