"""Instructions that change in mid-conversation are the same as if they had always been there."""

import numpy as np
import pytest
import torch

from duplex.agent import AgentConfig
from duplex.model.tokens import AGENT, END
from tests.agent.test_client_policy import kinds, run
from tests.tiny_speech_agent import scripted_agent, text, tiny_agent


def prompt(agent) -> dict[int, torch.Tensor]:
    """The keys of the instructions that the LM sees, by position."""
    cache = agent.context.cache
    seen = cache.pinned[0] & (cache.position[0] >= 0) & (cache.tick[0] > 0)
    return {int(cache.position[0, c]): cache.keys[:, 0, :, c] for c in np.flatnonzero(seen)}


def opened(instructions: str):
    agent, _ = scripted_agent([])
    agent.open(0, instructions=instructions)
    return agent


def is_same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.allclose(one[p], other[p]) for p in one)


@pytest.mark.parametrize("words", ["You are Max.", "Be brief. " * 12])
def test_new_instructions_stand_where_the_old_ones_stood(words):
    agent = opened("You are Rosie, and you like to talk a lot.")
    run(agent, 30)
    agent.write(0, "user", "hello there", is_answered=False)
    run(agent, 8)
    positions = agent.context.cache.next_position.copy()
    agent.instruct(0, words)
    ticks = -(-len(agent.texts.prompt(words)) // AgentConfig().prefill_tokens_alone)
    before = prompt(agent)
    run(agent, ticks - 1)
    assert is_same(prompt(agent), before)
    run(agent, 1)
    assert is_same(prompt(agent), prompt(opened(words)))
    assert not agent.sessions[0].instructions.is_reading
    assert agent.context.cache.next_position[0] >= positions[0]


def test_instructions_of_one_turn_make_way_for_the_old_ones():
    # The LM wants to answer all the while.
    agent, script = scripted_agent([AGENT], symbols_per_tick=2)
    agent.open(0, instructions="You are Rosie.")
    own = prompt(agent)
    agent.instruct(0, "Say hello to everybody who is here.", is_for_turn=True)
    agent.answer(0, hears_out=True)
    # The answer waits until they are read.
    assert run(agent, 2) == []
    told = []
    while not told:
        assert is_same(prompt(agent), own)
        told = kinds(run(agent, 1))
    assert told[0] == "agent_started"
    assert is_same(prompt(agent), prompt(opened("Say hello to everybody who is here.")))
    script.symbols = [*text("Hello."), END]
    run(agent, 6)
    assert is_same(prompt(agent), own)


def test_what_is_read_changes_nothing_before_it_is_in_force():
    """Two sessions of one sound: in one of them instructions are read that never come in force."""
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, (12, 1, 1920)).astype(np.float32)
    told = []
    for is_reading in (False, True):
        agent = tiny_agent()
        agent.open(0, instructions="hi")
        if is_reading:
            agent.instruct(0, "word " * 45)
        told.append([event for tick in sound for event in agent.step(tick, [0])[1][0]])
    assert told[0] == told[1]


def test_instructions_that_follow_each_other_need_no_more_room():
    agent = opened("You are Rosie.")
    longest = "x" * (agent.max_instruction_tokens)
    for number in range(6):
        agent.instruct(0, longest, is_for_turn=number % 2 == 1)
        run(agent, 5 + 12 * (number % 2))
    agent.instruct(0, "You are Max.")
    run(agent, 6)
    assert is_same(prompt(agent), prompt(opened("You are Max.")))
    with pytest.raises(ValueError, match="word pieces"):
        agent.instruct(0, longest + "xx")
