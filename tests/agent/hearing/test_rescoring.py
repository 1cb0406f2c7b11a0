"""A turn that may be over is read once more in one piece, in the likeliest way."""

import numpy as np
import pytest
import torch

from duplex.agent import TurnPolicy
from duplex.agent.config import RescoringConfig
from duplex.agent.hearing.pending_words import PendingToken
from duplex.model.kv_cache import TEXT
from duplex.model.tokens import CHAT_END, CHAT_START, FIRST_TEXT_ID, USER
from duplex.transcript import transcribe
from tests.tiny_speech_agent import LETTERS, scripted_agent, text, tick_of, tiny_agent

NEWLINE = FIRST_TEXT_ID + LETTERS.index("\u010a")
MAX_TOKENS = RescoringConfig().max_tokens
REFUSED_TICKS = TurnPolicy().refused_ticks


def test_likelihoods_of_texts_are_those_of_one_pass():
    """Of more than fit into a call only the first ones are told."""
    agent = tiny_agent(2)
    agent.open(1, instructions="be kind")
    agent.step(tick_of(slots=2), [1])
    lm = agent.parts.lm
    texts = [text(" so we go"), text(" so we go now"), text(" so hi")]
    prompt = [CHAT_START, *text("system"), NEWLINE, *text("be kind"), CHAT_END, NEWLINE]
    first = len(prompt) + 1
    expected = []
    for words in texts:
        tokens = torch.tensor([[*prompt, USER, *words]])
        length = tokens.shape[1]
        causal = torch.ones(1, length, length, dtype=torch.bool).tril()
        with torch.no_grad():
            hidden = lm(lm.embed(tokens), torch.arange(length)[None], causal)
            scores = lm.logits(hidden)[0, :, FIRST_TEXT_ID:].log_softmax(-1)
        at = range(first, length)
        expected.append(sum(float(scores[i - 1, tokens[0, i] - FIRST_TEXT_ID]) for i in at))
    found = agent.context.log_likelihoods(1, texts, MAX_TOKENS)
    assert found == pytest.approx(expected, rel=1e-5)
    found = agent.context.log_likelihoods(
        1, [texts[0], MAX_TOKENS * text("x"), texts[2]], MAX_TOKENS
    )
    assert found == pytest.approx(expected[:1], rel=1e-5)
    assert agent.context.log_likelihoods(1, [(MAX_TOKENS + 1) * text("x")], MAX_TOKENS) == []


def rescored(
    likelihoods,
    first="hi you",
    other="hi now",
    is_user_only=True,
    truncated=False,
    refused: int | None = None,
):
    """A user's turn is transcribed as `first`; `other` sounds as likely.

    refused: for so many ticks a certain token waits that the LM does not write. Returns the agent,
    its events, and the positions of what was written at first.
    """
    symbols = [USER, *text(" " + first)]
    agent, script = scripted_agent(
        symbols, symbols_per_tick=2, pending_bonus=0.0, end_timeout_ticks=99
    )
    hypotheses = [(first.split(), -1.0), (other.split(), -1.0)]
    agent.rescoring.hypotheses = lambda beam: hypotheses
    agent.context.log_likelihoods = lambda slot, texts, max_tokens: likelihoods
    agent.open(0)
    session = agent.sessions[0]
    user = session.user
    events = []
    positions = []
    for tick in range(9 + len(first) // 2):  # the LM writes two letters or more a tick
        user.beam.truncated = truncated
        wanted = [symbol for symbol in script.symbols[:4] if symbol != USER]
        user.pending.tokens = [PendingToken(tick, symbol, 0.3) for symbol in wanted]
        user.is_rescored = bool(script.symbols) or user.is_rescored
        user.is_user_only = is_user_only
        if tick and not script.symbols and not positions:
            positions = [position for position, _ in user.transcribed]
            user.is_rescored = False
        if positions and refused is not None:
            user.pending.tokens = [PendingToken(tick - refused, text("x")[0], 0.9)]
        events += agent.step(tick_of(), [0])[1][0]
    return agent, events, positions


def corrections(events) -> list[str]:
    return [e.text for e in events if e.kind == "corrected"]


@pytest.mark.parametrize(
    ("likelihoods", "read"),
    [([-9.0, -2.0], " hi now"), ([-2.0, -9.0], " hi you"), ([], " hi you")],
)
def test_a_turn_is_read_once_more_in_one_piece(likelihoods, read):
    """In the likelier way, or as it sounds best; the cache holds it instead of the old one."""
    agent, events, before = rescored(likelihoods)
    assert (
        corrections(events) == [read] * (read != " hi you") and transcribe(events).user_text == read
    )
    positions, symbols = zip(*agent.sessions[0].user.transcribed, strict=True)
    assert list(symbols) == text(read)
    assert list(positions) == [*range(positions[0], positions[0] + len(text(read)))]

    cache = agent.context.cache
    ticks = cache.tick[0, cache.position[0].argsort()]
    ticks = ticks[(np.sort(cache.position[0]) >= 0) & (ticks != TEXT)]
    assert (np.diff(ticks) == 1).all() and ticks[-1] == cache.now[0]  # replayed ones count once
    behind = (cache.position[0] > positions[-1]) & (cache.tick[0] != TEXT)
    assert behind.sum() > RescoringConfig().replay_ticks
    cells = set(cache.position[0].tolist())
    assert cells >= set(positions) and not cells & set(before) and positions[0] > max(before)


def test_a_long_turn_is_read_once_more_from_the_first_difference_on():
    begins = "hi" + " so" * (MAX_TOKENS // 3)
    agent, events, before = rescored([-9.0, -2.0], first=begins + " you", other=begins + " now")
    assert corrections(events) == [f" {begins} now"]
    positions, symbols = zip(*agent.sessions[0].user.transcribed, strict=True)
    kept = len(text(f" {begins} "))
    assert list(symbols) == text(f" {begins} now") and list(positions[:kept]) == before[:kept]
    cells = set(agent.context.cache.position[0].tolist())
    assert cells >= set(positions) and not cells & set(before[kept:])
    assert positions[kept] > before[-1]


@pytest.mark.parametrize(("ticks", "read"), [(REFUSED_TICKS - 1, False), (REFUSED_TICKS, True)])
def test_a_certain_word_that_the_lm_refuses_is_waited_for_a_while(ticks, read):
    _, events, _ = rescored([-9.0, -2.0], refused=ticks)
    assert bool(corrections(events)) == read


LONG = "hi" + " so" * MAX_TOKENS


@pytest.mark.parametrize(
    "options",
    [
        {"is_user_only": False},
        {"truncated": True},
        {"other": LONG},
        {"first": LONG, "likelihoods": []},
    ],
)
def test_a_turn_stays_as_it_was_transcribed(options):
    """Some was the agent's own voice, or a reading is too long, or it is right as it is."""
    agent, events, before = rescored(**{"likelihoods": [-99.0, -2.0]} | options)
    said = " " + options.get("first", "hi you")
    assert not corrections(events)
    assert "".join(e.text for e in events if e.kind == "heard") == said
    assert [position for position, _ in agent.sessions[0].user.transcribed] == before
