"""Where turns and texts stand in the LM's context, and that they can be forgotten."""

import numpy as np
import pytest

from duplex.agent import memory
from duplex.agent.memory import Memory
from duplex.model.tokens import AGENT, END, NEXT, USER, USER_END
from tests.agent.test_client_policy import kinds, run
from tests.tiny_speech_agent import scripted_agent, text


def positions(agent) -> list[int]:
    """Of all that the LM remembers, in order."""
    found = agent.context.cache.position[0]
    return sorted(found[found >= 0].tolist())


def test_oldest_entries_are_not_known_any_more():
    kept = Memory(max_entries=2)
    for number in range(3):
        memory.add(kept, ("text", str(number)), [number])
    assert memory.take(kept, ("text", "0")) == [] and memory.take(kept, ("text", "2")) == [2]


def test_what_is_forgotten_of_texts_is_that_text():
    agent, _ = scripted_agent([])
    agent.open(0)
    run(agent, 2)
    agent.write(0, "system", "one two three", name="a")
    agent.write(0, "user", "four", is_answered=False, name="b")
    # In the middle of reading: what is not fed yet is never fed.
    run(agent, 2)
    agent.forget(0, "text", "a")
    run(agent, 12)
    assert not agent.sessions[0].inputs.text
    entries = agent.sessions[0].memory.entries
    assert set(entries) == {("text", "b")}
    assert len(entries["text", "b"]) == len(text(" four")) + 2
    found = entries["text", "b"]
    agent.forget(0, "text", "b")
    assert not np.isin(found, positions(agent)).any()


def test_positions_of_a_text_are_those_of_its_tokens():
    """The vectors at the positions that are remembered are those of the text's tokens."""
    agent, _ = scripted_agent([])
    agent.open(0)
    fed = {}
    step = agent.context.forward

    def forward(inputs, *options, **more):
        first = int(agent.context.cache.next_position[0])
        for place, vector in enumerate(inputs[0].vectors):
            fed[first + place] = vector.detach().clone()
        return step(inputs, *options, **more)

    agent.context.forward = forward
    run(agent, 3)
    agent.write(0, "user", "four words of text", is_answered=False, name="b")
    run(agent, 20)
    found = agent.sessions[0].memory.entries["text", "b"]
    tokens = [USER, *text(" four words of text"), USER_END]
    assert len(found) == len(tokens)
    wanted = agent.context.embed(tokens).vectors.detach()
    for position, vector in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(fed[position], vector)


def test_turns_are_forgotten_by_their_numbers():
    symbols = [USER, *text(" hi"), *[NEXT] * 4, USER_END, AGENT, *text("Yes."), END]
    agent, _ = scripted_agent(symbols, symbols_per_tick=2, early_end_penalty=0.0)
    agent.open(0)
    told = kinds(run(agent, 30, " hi"))
    assert "user_ended" in told and "agent_started" in told
    agent.context.flush(0, agent.sessions[0].inputs)
    for kind in ("user", "agent"):
        found = agent.sessions[0].memory.entries[kind, 0]
        assert found and np.isin(found, positions(agent)).all()
        agent.forget(0, kind, 0)
        assert not np.isin(found, positions(agent)).any()
        # Nothing comes of it twice.
        agent.forget(0, kind, 0)


def test_words_of_an_older_answer_that_nobody_heard_are_forgotten():
    symbols = [AGENT, *text("One two."), END]
    agent, script = scripted_agent(symbols, symbols_per_tick=2)
    agent.open(0)
    agent.answer(0)
    events = run(agent, 60)
    first = next(event for event in events if event.kind == "spoken")
    script.symbols = [AGENT, *text("Three."), END]
    agent.answer(0)
    assert "agent_started" in kinds(run(agent, 60))
    entries = agent.sessions[0].memory.entries
    agent.context.flush(0, agent.sessions[0].inputs)
    agent.truncate(0, first.end_ms, turn=0)
    heard = len(text("One"))
    left = np.isin(entries["agent", 0], positions(agent))
    assert left[:heard].all() and not left[heard:].any()
    assert np.isin(entries["agent", 1], positions(agent)).all()
    # A turn that is not known any more is nothing to forget.
    agent.truncate(0, 0, turn=99)


def test_what_an_interruption_leaves_unsaid_begins_with_its_space():
    """The LM knows the words that were said, and no space behind them."""
    words = "One two three four five six seven eight nine ten."
    agent, _ = scripted_agent([AGENT, *text(words), END], symbols_per_tick=4)
    agent.open(0)
    agent.answer(0)
    events = []
    while "spoken" not in kinds(events):
        events += run(agent, 1)
    agent.stop(0)
    events += run(agent, 3)
    said = "".join(event.text for event in events if event.kind == "said")
    [stopped] = [event for event in events if event.kind == "agent_stopped"]
    assert stopped.text.startswith(" ") and said.endswith(stopped.text)
    agent.context.flush(0, agent.sessions[0].inputs)
    entries = agent.sessions[0].memory.entries["agent", 0]
    left = np.isin(entries, positions(agent))
    assert left.sum() == len(text(said.removesuffix(stopped.text)))


def test_what_is_not_complete_is_not_forgotten():
    agent, _ = scripted_agent([USER, *text(" hi")], symbols_per_tick=2)
    agent.open(0)
    run(agent, 6, " hi")
    with pytest.raises(ValueError, match="to its end"):
        agent.forget(0, "user", 0)
