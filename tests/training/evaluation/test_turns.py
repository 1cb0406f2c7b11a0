"""What is told of an agent whose rules are known: sessions are not mixed up, places are right."""

import numpy as np

from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.events import Event
from duplex.training.evaluation.play import play
from duplex.training.evaluation.turns import (
    INTO_KINDS,
    Talk,
    in_noise,
    said_into,
    scene_sounds,
    with_pause,
)

SECOND = SAMPLE_RATE // TICK_SAMPLES  # ticks, and a half


class Patient:
    """Answers for two seconds `patience` ticks after a sound, and stops at one above `bar`.

    `writes`: whether words come as it speaks.
    """

    def __init__(self, slots: int, patience: int = 5, bar: float = 0.5, writes: bool = False):
        self.slots, self.patience, self.bar, self.writes = slots, patience, bar, writes
        self.sessions = {}

    def open(self, slot, seed=0):
        self.sessions[slot] = {"quiet": None, "left": 0, "tick": 0}

    def close(self, slot):
        del self.sessions[slot]

    def step(self, audio, active):
        assert set(active) == set(self.sessions)
        voice, events = (
            np.zeros((self.slots, TICK_SAMPLES), np.float32),
            [[] for _ in range(self.slots)],
        )
        for slot, own in self.sessions.items():
            loudest = np.abs(audio[slot]).max()
            if own["left"] and loudest > self.bar:
                own["left"] = 0
                events[slot].append(Event("agent_stopped", own["tick"]))
            elif loudest > 0.01:
                own["quiet"] = 0
            elif own["quiet"] is not None:
                own["quiet"] += 1
            if own["quiet"] == self.patience:
                own["quiet"], own["left"] = None, 2 * SECOND
                events[slot].append(Event("agent_started", own["tick"]))
            if own["left"]:
                voice[slot], own["left"] = 0.1, own["left"] - 1
                events[slot] += [Event("said", own["tick"], " on")] * self.writes
            own["tick"] += 1
        return voice, events


def sound(ticks: int, level: float) -> np.ndarray:
    return np.full(ticks * TICK_SAMPLES, level, np.float32)


def test_who_is_spoken_into_stops_or_goes_on():
    """Six talks in two slots; the second sound begins with a tick."""
    talks = [
        Talk(sound(3 + n, 0.1), sound(2, level), 0.4) for n, level in enumerate([0.9, 0.2, 0.9])
    ]
    talks += [
        Talk(sound(4, 0.1)),
        Talk(sound(2, 0.0)),
        Talk(sound(3, 0.1), sound(2, 0.9), after_s=3.0),
    ]
    played = play(Patient(2), [talk.script for talk in talks])
    assert all(one is talk for one, talk in zip(played, talks, strict=True))
    assert [talk.is_stopped for talk in talks] == [True, False, True, False, False, False]
    assert [talk.is_into_voice for talk in talks] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]  # the last came after the answer
    for talk in (talks[0], talks[1], talks[2], talks[3]):
        assert talk.voice_at == len(talk.sound) + 4 * TICK_SAMPLES  # the fifth quiet tick
    assert talks[4].voice_at is None
    assert talks[0].second_at == talks[0].voice_at + 5 * TICK_SAMPLES


def test_pause_is_put_between_two_words():
    wave, words = (
        np.full(SAMPLE_RATE, 0.5, np.float32),
        [("a", 0.1, 0.3), ("b", 0.5, 0.6), ("c", 0.7, 0.9)],
    )
    paused, end = with_pause(wave, words, 1, 1.0)
    lead = SAMPLE_RATE // 2
    assert len(paused) == lead + 2 * SAMPLE_RATE and end == lead + round(1.9 * SAMPLE_RATE)
    quiet = slice(lead + round(0.4 * SAMPLE_RATE), lead + round(1.4 * SAMPLE_RATE))
    assert not paused[quiet].any() and not paused[:lead].any()
    assert paused[quiet.start - SAMPLE_RATE // 50] == paused[quiet.stop + SAMPLE_RATE // 50] == 0.5


def test_agent_that_never_stops_does_not_yield():
    """One that never stops does not yield; one that hears each sound as an end speaks in noise."""
    for writes in (False, True):
        agent = Patient(3, patience=10, bar=2.0, writes=writes)
        found = said_into(agent, scene_sounds(), (0.4, 1.0), count=4, seed=0)
        assert [found[INTO_KINDS[kind]] for kind in scene_sounds()] == ["0 of 4"] * 2
        assert [*found.values()][1::3] == ([0, 0] if writes else [4, 4])
    found = in_noise(
        Patient(2),
        [np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)],
        2.0,
        seed=0,
    )
    assert (
        found["minutes"] == 2.0
        and found["words written a minute"] == 0
        and found["times it spoke"] > 0
    )
