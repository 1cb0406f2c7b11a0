"""The token grammar: which stream is open after a symbol, and what may follow."""

import pytest
import torch

from duplex.model import tokens
from duplex.model.tokens import AGENT, ASIDE, BACK, END, NEXT, STOP, USER, USER_END, Grammar

TEXT = 20  # Any text token.


@pytest.mark.parametrize(
    ("symbols", "stream", "user_open", "agent_open"),
    [
        ([USER, TEXT], USER, True, False),
        ([USER, TEXT, USER_END], None, False, False),
        ([USER, TEXT, ASIDE], None, False, False),
        ([USER, USER_END, AGENT, TEXT], AGENT, False, True),
        ([AGENT, TEXT, USER, TEXT], USER, True, True),
        ([AGENT, TEXT, USER, TEXT, AGENT], AGENT, True, True),
        ([AGENT, TEXT, USER, TEXT, USER_END], AGENT, False, True),
        ([AGENT, TEXT, USER, TEXT, STOP], USER, True, False),
        ([AGENT, TEXT, END], None, False, False),
    ],
)
def test_grammar_follows_the_streams(symbols, stream, user_open, agent_open):
    grammar = Grammar()
    for symbol in symbols:
        grammar = tokens.advance(grammar, symbol)
    assert grammar == Grammar(stream, user_open, agent_open)


@pytest.mark.parametrize(
    ("grammar", "can_speak", "is_audible", "expected", "has_text"),
    [
        (Grammar(), True, False, {NEXT, USER, AGENT}, False),
        (Grammar(), False, True, {NEXT, USER, STOP}, False),
        (Grammar(USER, True), True, False, {NEXT, USER_END, ASIDE, BACK}, True),
        (Grammar(USER, True, True), True, True, {NEXT, USER_END, ASIDE, AGENT, STOP}, True),
        (Grammar(AGENT, False, True), True, True, {NEXT, USER, END, STOP}, True),
        (Grammar(AGENT, False, True), False, True, {NEXT, USER, STOP}, False),
    ],
)
def test_allowed_symbols_are_those_of_the_grammar(
    grammar, can_speak, is_audible, expected, has_text
):
    controls, text = tokens.allowed(grammar, can_speak, is_audible)
    assert {symbol for symbol in range(tokens.FIRST_TEXT_ID) if controls >> symbol & 1} == expected
    assert text == has_text
    mask = tokens.allowed_mask(grammar, 30, can_speak, is_audible)
    assert torch.equal(mask[: tokens.FIRST_TEXT_ID], tokens.controls_mask(controls))
    assert mask[tokens.FIRST_TEXT_ID :].all() == mask[tokens.FIRST_TEXT_ID :].any() == has_text


@pytest.mark.parametrize(
    ("symbol", "stream", "kind"),
    [(AGENT, None, "<agent>"), (TEXT, USER, "hearing"), (TEXT, AGENT, "speaking")],
)
def test_kind_names_what_a_symbol_is(symbol, stream, kind):
    assert tokens.kind(symbol, Grammar(stream)) == kind
