"""The n-grams tell the token that most often came, after as much text as they know."""

import pytest

from duplex.model.ngram_draft import NgramConfig, key_of, load_draft, spoken_words
from duplex.model.tokens import AGENT, END
from duplex.training import draft

A, B, C, D = range(20, 24)
CONFIG = NgramConfig(order=3, vocabulary=30)
SAID = [
    *[[AGENT, A, B, C, END]] * 3,
    *[[AGENT, D, B, D, END]] * 2,
    [AGENT, A, B, A, END],
]
TURNS = [draft.Turn(tokens, []) for tokens in SAID]


@pytest.mark.parametrize(
    ("text", "token", "share"),
    [
        ([AGENT], A, 4 / 7),
        ([AGENT, A], B, 4 / 5),
        ([AGENT, A, B], C, 3 / 5),
        ([AGENT, D, B], D, 2 / 3),
        ([C, C, B], C, 3 / 7),  # only the last token is known
        ([AGENT, A, B, C], END, 3 / 4),
    ],
)
def test_the_likeliest_token_after_the_longest_known_ending(text, token, share):
    found = draft.count(TURNS, CONFIG).likeliest(text, [])
    assert found[0] == token and abs(found[1] - share) < 0.1


def test_an_unknown_text_has_no_guess():
    ngrams = draft.count(TURNS, CONFIG)
    assert ngrams.likeliest([29], []) is None
    assert ngrams.continuation([29], [], 3, lambda probability: True) == []


def test_a_continuation_ends_with_the_turn_or_before_what_is_not_worth_it():
    ngrams = draft.count(TURNS, CONFIG)

    def tokens(most: int, least: float) -> list[int]:
        found = ngrams.continuation([AGENT], [], most, lambda probability: probability >= least)
        assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)
        return [token for token, _ in found]

    assert tokens(9, 0.0) == [A, B, C, END]
    assert tokens(2, 0.0) == [A, B]
    assert tokens(9, 0.4) == [A, B] and tokens(9, 0.9) == []


def test_contexts_that_tell_nothing_new_are_left_out():
    """After D it is B as after all that was seen, and as surely."""
    ngrams = draft.count([draft.Turn([AGENT, A, B, END], [])] * 9, CONFIG)
    assert sorted(ngrams.keys) == sorted(key_of([token]) for token in (AGENT, A, B))


def test_a_draft_of_other_tokens_is_not_loaded(tmp_path):
    ngrams = draft.count(TURNS, CONFIG)
    draft.save(ngrams, tmp_path)
    found = load_draft(tmp_path, 30)
    assert found.config == ngrams.config and (found.keys == ngrams.keys).all()
    assert found.likeliest([AGENT], []) == ngrams.likeliest([AGENT], [])
    assert load_draft(tmp_path, 31) is None and load_draft(tmp_path / "none", 30) is None


def test_the_network_of_an_older_agent_is_not_loaded(tmp_path):
    """Such a folder made the agent fail to start."""
    (tmp_path / "config.json").write_text('{"width": 576, "hidden": 1536}')
    assert load_draft(tmp_path, 30) is None


def test_the_last_words_of_the_user_tell_how_an_answer_opens():
    asked = spoken_words("And how is the weather in Spain?")
    turns = [*TURNS, *[draft.Turn([AGENT, B, A, A, A, A, END], asked)] * 2]
    ngrams = draft.count(turns, CONFIG)
    assert ngrams.likeliest([AGENT], [])[0] == A
    assert ngrams.likeliest([AGENT], spoken_words("it rains in spain"))[0] == B
    assert ngrams.likeliest([AGENT], ["spain"])[0] == B
    assert ngrams.likeliest([AGENT], ["spain", "too"])[0] == A
    assert spoken_words("It's 9 o'clock, isn't it?") == "it's 9 o'clock isn't it".split()
