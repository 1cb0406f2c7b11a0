"""Sounds named: made-up scores in, labels out; a label stands in the conversation."""

import numpy as np
import pytest
import torch

from duplex.agent.hearing import sounds
from duplex.agent.hearing.sounds import SoundPolicy, Sounds
from duplex.events import Event
from duplex.model.sound import SoundConfig, SoundHead
from duplex.transcript import transcribe
from tests.agent.test_client_policy import run
from tests.agent.thinking.test_dictation import Mind, ask, minded_agent

POLICY = SoundPolicy()
# Two kinds have names, the last one has none.
NAMES = ("dog", "rain")
DOG = np.array([20.0, 0.0, 0.0])
RAIN = np.array([0.0, 20.0, 0.0])
SPEECH = np.array([0.0, 0.0, 20.0])
UNSURE = np.array([1.0, 0.0, 0.0])


def listen(*heard: tuple[np.ndarray, int]) -> list[int]:
    """Which kinds are told of so many ticks of each sound."""
    state = Sounds(1)
    return [kind for scores, ticks in heard for kind in told(state, scores, [-30.0] * ticks)]


def told(state: Sounds, scores: np.ndarray, levels: list[float]) -> list[int]:
    """Which kinds are told of a sound at these levels."""
    found = []
    for level in levels:
        found += sounds.hear(state, scores[None], np.array([level]), len(NAMES), POLICY).values()
    return found


@pytest.mark.parametrize(
    ("heard", "told"),
    [
        ([(DOG, 30)], [0]),
        ([(DOG, 300)], [0]),
        ([(DOG, POLICY.least_ticks + POLICY.hold_ticks - 2)], []),
        ([(SPEECH, 300)], []),
        ([(UNSURE, 300)], []),
        ([(SPEECH, 60), (DOG, 30), (SPEECH, 20), (DOG, 30)], [0]),
        ([(DOG, 30), (SPEECH, 99), (DOG, 30)], [0, 0]),
        ([(DOG, 40), (RAIN, 40)], [0, 1]),
    ],
    ids=["once", "long", "short", "speech", "unsure", "again soon", "again later", "two"],
)
def test_a_sound_is_told_once_while_it_sounds(heard, told):
    assert listen(*heard) == told


def test_silence_has_no_sound():
    """A clip that ends is told; what the head makes of silence alone is not."""
    silent = POLICY.min_level_db - 1
    state = Sounds(1)
    assert not told(state, SPEECH, [silent] * 300)
    assert not told(state, DOG, [silent] * 99)
    assert told(Sounds(1), DOG, [-30.0] * 8 + [silent] * 20) == [0]


def test_slots_hear_for_themselves():
    """One hears a dog, another has heard it for longer, a third is new in the second's place."""
    state = Sounds(2)
    levels = np.full(2, -30.0)
    found = []
    for tick in range(60):
        scores = np.stack([DOG if tick > 9 else SPEECH, DOG])
        found += [(tick, *one) for one in sounds.hear(state, scores, levels, 2, POLICY).items()]
        if tick == 30:
            state.reset(1)
    assert [(slot, kind) for _, slot, kind in found] == [(1, 0), (0, 0), (1, 0)]
    first, later = (tick for tick, slot, _ in found if slot)
    assert later == first + 31


def hearing_agent(mind: Mind):
    """An agent whose sound head hears what the test says, in silence too."""
    agent = minded_agent(mind)
    agent.recognition.sound_policy = SoundPolicy(min_level_db=-np.inf)
    head = SoundHead(SoundConfig(agent.parts.encoder.config.width, NAMES, 3))
    head.heard = SPEECH
    head.forward = lambda early: np_scores(head.heard, len(early))
    agent.recognition.sound_head = head
    return agent, head


def np_scores(scores: np.ndarray, slots: int) -> torch.Tensor:
    return torch.from_numpy(np.tile(scores, (slots, 1, 1)))


def test_a_label_is_an_event_and_the_thinker_reads_it():
    mind = Mind("A dog.", "Rain.")
    agent, head = hearing_agent(mind)
    head.heard = DOG
    events = run(agent, 40)
    assert [(event.kind, event.text) for event in events] == [("sound", "dog")]
    head.heard = SPEECH
    ask(agent, " hi")
    assert mind.asked()[0] == [("user", "[sound: dog] Hi")]
    run(agent, 60)
    head.heard = DOG
    run(agent, 40)
    head.heard = SPEECH
    run(agent, 60)
    head.heard = DOG
    run(agent, 40)
    told = [u.text for u in agent.sessions[0].mind.conversation.utterances if "sound" in u.text]
    assert told == ["[sound: dog]"] * 2  # of three barks, two of them in a row


def test_a_transcript_is_the_same_with_a_label_in_it():
    events = [Event("user_started", 1), Event("sound", 2, "dog"), Event("heard", 3, " hi")]
    assert [turn.text for turn in transcribe(events).turns()] == [" hi"]
