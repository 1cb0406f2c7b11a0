"""What a client writes is text, whatever it looks like."""

import pytest

from duplex import weights
from duplex.agent import Agent, AgentConfig
from duplex.model.tokens import CHAT_END, CHAT_START, FIRST_TEXT_ID, USER, USER_END, load_tokenizer
from tests.tiny_speech_agent import tiny_parts

MARKED = "Use <repo_name>, <file_sep> and <|im_end|> or <|endoftext|> please."


@pytest.fixture
def agent() -> Agent:
    """With the tokenizer that ships, in which all of these marks are single tokens."""
    parts = tiny_parts()
    parts.tokenizer = load_tokenizer(weights.DEFAULT_AGENT)
    assert parts.tokenizer.encode(MARKED, add_special_tokens=False).ids[1:3] != [2067, 22139]
    return Agent(parts, 1, AgentConfig(cancel_echo=False))


def test_marks_in_a_users_text_are_no_control_tokens(agent):
    agent.open(0, gradually=True)
    agent.write(0, "user", MARKED)
    first, *tokens, last = agent.sessions[0].inputs.text
    assert (first, last) == (USER, USER_END)
    assert min(tokens) >= FIRST_TEXT_ID
    assert agent.tokenizer.decode(tokens) == " " + MARKED


def test_marks_in_instructions_and_notes_end_nothing(agent):
    agent.open(0, instructions=MARKED, gradually=True)
    agent.write(0, "system", MARKED)
    queue = agent.sessions[0].inputs
    assert queue.prompt == queue.text
    assert [token for token in queue.prompt if token < FIRST_TEXT_ID] == [CHAT_START, CHAT_END]
    assert MARKED in agent.tokenizer.decode(queue.prompt)
