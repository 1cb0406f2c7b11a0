"""Recorded kernels do what the modules they were recorded from do, for other shapes and states than the recorded ones."""

import numpy as np
import torch

from duplex.audio import TICK_SAMPLES
from tests.tiny_speech_agent import tiny_agent


def converse(agent, ticks: int = 30):
    """Slot 0 from the start, slot 2 from the fifth tick, each with its own noise -> voice and texts of all ticks."""
    rng = np.random.default_rng(0)
    agent.open(0, seed=1)
    waves, events, active = [], [], [0]
    for tick in range(ticks):
        if tick == 5:
            agent.open(2, seed=2, instructions="Another prompt, and a longer one.")
            active = [0, 2]
        heard = rng.normal(0, 0.2, (agent.slots, TICK_SAMPLES)).astype(np.float32)
        wave, news = agent.step(heard, active)
        waves.append(wave)
        events.append([[(event.kind, event.text) for event in slot] for slot in news])
    return np.stack(waves), events


def test_recorded_agent_is_the_agent():
    plain, recorded = tiny_agent(3), tiny_agent(3)
    recorded.record()
    assert type(recorded.lm.forward) is not type(plain.lm.forward)
    (wave, events), (same_wave, same_events) = converse(plain), converse(recorded)
    assert events == same_events and any(any(slot) for tick in events for slot in tick)
    np.testing.assert_allclose(wave, same_wave, atol=1e-5)
    assert np.abs(wave).max() > 1e-3


def test_recording_leaves_the_state_alone():
    agent = tiny_agent(2)
    agent.record()
    assert agent.encoder_state.filled.tolist() == [0, 0] and not agent.encoder_state.keys.any()
    assert not torch.count_nonzero(agent.lm_state.keys) and not agent.talker_state.visible.any()
