"""Words that are likely are favoured token by token, from where they begin."""

import torch

from duplex.model.asr.biasing import advance, bonuses, favour
from tests.tiny_whisper import tiny_whisper


def letters(word: str) -> list[int]:
    return [*word.encode()]


def test_a_word_that_has_begun_gains_more():
    favoured = favour(["ab", "ac", "b"], letters, 1.0, 2.0)
    a, b, c = letters("abc")
    capital_a, capital_b = letters("AB")
    firsts = {a: 1.0, b: 1.0, capital_a: 1.0, capital_b: 1.0}
    assert bonuses(favoured, []) == firsts
    begun = advance(favoured, [], a)
    assert bonuses(favoured, begun) == firsts | {b: 2.0, c: 2.0}
    assert advance(favoured, begun, c) == []
    assert advance(favoured, [], c) == []


def test_groups_of_words_go_on_over_spaces():
    favoured = favour(["a b"], letters, 1.0, 2.0)
    begun = []
    for token in letters("a "):
        begun = advance(favoured, begun, token)
    assert bonuses(favoured, begun)[letters("b")[0]] == 2.0


def test_whisper_reads_a_favoured_word():
    """With a bonus that is large enough, and as before with none."""
    whisper = tiny_whisper()
    h = whisper.encode(torch.randn(60, 80, generator=torch.Generator().manual_seed(1)) - 3)
    before = whisper.decode(h, 6)
    plain = whisper.decode(h, 6, (), favour(["tree"], whisper.encode_text, 0.0, 0.0))
    assert plain.tokens == before.tokens
    wanted = favour(["tree"], whisper.encode_text, 99.0, 999.0)
    reading = whisper.decode(h, 6, (), wanted)
    assert "tree" in reading.text.lower() and "tree" not in before.text.lower()
    drafted = whisper.decode(h, 6, reading.tokens[:3], wanted)
    assert drafted.tokens == reading.tokens
