"""An agent on a device says what the reference says, symbol by symbol, whoever else is there."""

import numpy as np
import pytest
import torch

from duplex import device
from duplex.agent import Agent, AgentConfig, TurnPolicy, loader
from duplex.audio import TICK_SAMPLES
from duplex.errors import UsageError
from tests.tiny_speech_agent import UNDEMANDING, tick_of, tiny_agent, tiny_parts

CONFIG = device.agent_config(AgentConfig(temperature=1.0, cancel_echo=False))
POLICY = TurnPolicy(symbols_per_tick=2, wait_penalty=2.0, onset_symbols=3, **UNDEMANDING)
TICKS = 40


def device_agent(slots: int, config: AgentConfig = CONFIG, **options) -> Agent:
    """Of the same tiny parts as the reference."""
    placed = device.place(tiny_parts(), device.DeviceConfig(**options), config)
    return Agent(placed, slots, config, POLICY)


def talk(agent: Agent, sessions: int, ticks: int = TICKS, check=None) -> tuple[dict, dict]:
    """Sessions that join one after the other, are interrupted, leave and come back: their events
    and sound. check: called after each tick."""
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.2, (agent.slots, ticks, TICK_SAMPLES)).astype(np.float32)
    sound *= (np.arange(ticks) % 20 < 12)[:, None]
    events: dict[int, list] = {slot: [] for slot in range(sessions)}
    voice: dict[int, list] = {slot: [] for slot in range(sessions)}
    for tick in range(ticks):
        for slot in range(sessions):
            age = tick - slot % 7
            if age in (0, 26):
                agent.open(slot, seed=slot + tick, gradually=slot % 3 == 1)
            if age == 24:
                agent.close(slot)
            if age == 6 + slot % 3 and slot in agent.sessions:
                agent.answer(slot)
            if age == 15 + slot % 4 and slot % 2 and slot in agent.sessions:
                agent.stop(slot)
            if age == 9 and slot % 2 == 0 and slot in agent.sessions:
                speak(agent, slot)
            if age == 12 and slot in agent.sessions:
                ask(agent, slot)
        batch = tick_of(slots=agent.slots)
        active = sorted(agent.sessions)
        for slot in active:
            batch[slot] = np.roll(sound[slot], slot % 5, 0)[tick]
        said, found = agent.step(batch, active)
        for slot in active:
            voice[slot].append(said[slot])
            events[slot] += found[slot]
        if check is not None:
            check(tick)
    return events, voice


def ask(agent: Agent, slot: int) -> None:
    """What a client may ask for."""
    if slot % 4 == 1:
        agent.write(slot, "user", "a client wrote this", name="note")
    elif slot % 4 == 2:
        agent.instruct(slot, "Say little.", is_for_turn=slot > 4)
    elif slot % 4 == 3:
        agent.abandon_turn(slot)
        agent.truncate(slot, 0)


def speak(agent: Agent, slot: int) -> None:
    """Words for the voice, whatever the LM says: it makes none with random weights."""
    response = agent.response
    words, _ = response.g2p.push("Good day, my friend. ", response.g2p.initial_state())
    response.queue_new_words(slot, agent.sessions[slot], words)
    response.synthesizer.finish(response.synthesis_state, slot)


@pytest.mark.slow
def test_it_warms_up_and_is_made_for_other_numbers_of_slots():
    agent = device_agent(2)
    loader.warm_up(agent)
    expected = talk(device_agent(1), 1)[0]
    assert talk(agent.with_slots(1), 1)[0] == expected
    assert agent.metrics()["lm_calls"] == 0 and agent.parts.lm.slots == 2
    events, _ = talk(agent, 1)
    assert events == expected


@pytest.mark.slow
def test_in_bfloat16_it_talks_too():
    events, voice = talk(device_agent(2, dtype=torch.bfloat16), 2)
    kinds = {event.kind for found in events.values() for event in found}
    assert {"heard", "said", "spoken"} <= kinds and "error" not in kinds
    assert all(np.isfinite(np.stack(ticks)).all() for ticks in voice.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_told():
    with pytest.raises(UsageError, match="there is no cuda here"):
        device_agent(1, device="cuda")


@pytest.mark.slow
@pytest.mark.parametrize(("sessions", "slots"), [(1, 1), (1, 8), (8, 8), (64, 64)])
def test_symbols_and_sound_are_those_of_the_reference(sessions, slots):
    expected, sound = talk(tiny_agent(slots, POLICY, CONFIG), sessions)
    events, voice = talk(device_agent(slots), sessions)
    kinds = {event.kind for found in expected.values() for event in found}
    assert {"heard", "said", "agent_started", "spoken"} <= kinds
    assert events == expected
    for slot, ticks in sound.items():
        np.testing.assert_allclose(np.stack(voice[slot]), np.stack(ticks), atol=1e-4)
