"""Recognised words become pending, unless they are the agent's own, back from a loudspeaker."""

import pytest
import torch

from duplex.agent import TurnPolicy
from duplex.agent.session import QueuedWord
from tests.tiny_speech_agent import text, tick_of, tiny_agent

ECHO_TICKS = TurnPolicy().echo_word_ticks


@pytest.mark.parametrize(
    ("word", "queued", "recent", "waits"),
    [
        ("one", {0: QueuedWord("One", 0)}, [], False),
        ("zoo", {0: QueuedWord("One", 0)}, [], True),
        ("one", {}, [("one", -1)], False),
        ("one", {}, [("one", -ECHO_TICKS)], True),
    ],
)
def test_an_echo_of_its_own_words_is_not_the_user(word, queued, recent, waits):
    """A word is recognised while the agent says it, or has said it."""
    agent = tiny_agent()
    agent.open(0)
    session = agent.sessions[0]
    session.reply.queued_words = queued
    session.reply.recent_words = recent
    agent.recognition.decode = lambda beam, log_probs: [(word, 0.9)]
    with torch.inference_mode():
        _, recognised, _ = agent.recognition.step(tick_of(), agent.sessions, [[]])
    pending = [piece.token for piece in session.user.pending.tokens]
    assert pending == (text(f" {word}") if waits else [])
    assert [token for token, _ in recognised[0]] == pending
    assert session.user.is_user_only == waits
