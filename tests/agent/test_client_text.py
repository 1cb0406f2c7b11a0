"""What a client writes is text, whatever it looks like."""

import pytest

from duplex import weights
from duplex.agent import Agent, AgentConfig
from duplex.model.tokens import CHAT_END, CHAT_START, FIRST_TEXT_ID, USER, USER_END
from duplex.model.vocabulary import load_tokenizer
from tests.agent.test_client_policy import kinds, run
from tests.tiny_speech_agent import scripted_agent, text, tiny_parts

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


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_a_long_text_is_read_by_the_lm_as_far_as_it_can_be_kept(role):
    agent, _ = scripted_agent([])
    agent.open(0)
    agent.write(0, role, "begin " + "x" * 16_000 + " end", is_answered=False)
    read = agent.tokenizer.decode(agent.sessions[0].inputs.text)
    most = agent.config.max_text_tokens
    marks = len(agent.sessions[0].inputs.text) - most
    assert "begin" in read and " end" in read
    assert 0 < marks <= 20 * (1 + most // agent.config.note_tokens)


def test_user_is_heard_while_a_long_text_waits():
    agent, script = scripted_agent([USER, *text(" hi")], end_timeout_ticks=99)
    agent.open(0)
    agent.write(0, "system", "word " * 3_000)
    before = len(agent.sessions[0].inputs.text)
    events = run(agent, 8, " hi")
    assert kinds(events)[:2] == ["user_started", "heard"]
    waiting = len(agent.sessions[0].inputs.text)
    assert before - agent.config.note_tokens * 3 < waiting
    agent.sessions[0].user.pending.tokens = []
    script.symbols = [USER_END]
    assert kinds(run(agent, 40)) == ["user_ended"]
    assert not agent.sessions[0].inputs.text
