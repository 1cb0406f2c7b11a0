"""The driver: each script has a session of its own, and results come in the order of scripts."""

import itertools

import numpy as np

from duplex.audio import TICK_SAMPLES
from duplex.training.evaluation.play import end_of_sound, in_ticks, play, tick_at
from tests.helpers import tone
from tests.tiny_agent import TinyAgent


def test_more_scripts_than_slots_come_back_in_their_order():
    """The agent says back what it hears, half as loud; scripts of many lengths share two slots."""
    levels = [0.1, 0.5, 0.2, 0.4, 0.3]
    agent = TinyAgent(2)

    def script(level: float, ticks: int):
        def run(slot: int):
            loudest = 0.0
            for number in range(ticks + 12):
                sound = tone(1, level=level) if number < ticks else np.zeros(TICK_SAMPLES)
                tick = yield sound
                assert tick.seconds > 0
                loudest = max(loudest, float(np.abs(tick.voice).max()))
            return slot, loudest

        return run

    scripts = [script(level, 2 + 3 * number) for number, level in enumerate(levels)]
    found = play(agent, scripts, itertools.count(7))
    assert [round(2 * loudest, 2) for _, loudest in found] == levels
    assert {slot for slot, _ in found} == {0, 1}
    assert [seed for _, seed, _ in agent.opened] == [7, 8, 9, 10, 11]
    assert len(agent.closed) == 5


def test_sound_is_whole_ticks_and_then_silence():
    wave = np.full(2 * TICK_SAMPLES + 5, 0.5, np.float32)
    sound = in_ticks(wave)
    assert sound.shape == (3, TICK_SAMPLES) and not sound[2, 5:].any()
    assert np.array_equal(tick_at(sound, 1), wave[:TICK_SAMPLES])
    assert not tick_at(sound, 3).any()
    assert end_of_sound(np.pad(wave, (7, 9))) == 7 + len(wave)
