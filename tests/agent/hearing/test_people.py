"""Whose turn it is, as clients are told; names; whom the agent heeds."""

import numpy as np
import pytest
import torch

from duplex import voice_print
from duplex.agent.hearing import people
from duplex.agent.hearing.pending_words import PendingToken
from duplex.agent.hearing.people import People
from duplex.agent.hearing.speakers import SpeakerPolicy
from duplex.events import Event
from duplex.model.tokens import USER, USER_END
from tests.tiny_speech_agent import Script, scripted_agent, text, tick_of

POLICY = SpeakerPolicy()
ANNA = np.eye(8)[0]
BEN = np.eye(8)[1]


def turn(known: People, voice, ticks: int = 20, tick: int = 0) -> list[Event]:
    """A turn in a voice, and the events that come of it."""
    found = []
    for i in range(ticks):
        people.hear(known, voice, True, True, POLICY)
        events = [Event("user_started", tick)] if i == ticks // 2 else []
        events += [Event("heard", tick, " word")] if i > ticks // 2 else []
        people.mark(known, events, tick, POLICY)
        found += events
    for _ in range(10):
        people.hear(known, np.zeros(8), False, False, POLICY)
    events = [Event("user_ended", tick)]
    people.mark(known, events, tick, POLICY)
    return found + events


def test_one_voice_has_no_label():
    known = People()
    events = turn(known, ANNA) + turn(known, ANNA)
    assert {event.speaker for event in events} == {None}
    assert not any(event.kind.startswith("speaker") for event in events)


def test_events_say_who_speaks_once_there_are_two():
    known = People()
    turn(known, ANNA)
    assert [event.speaker for event in turn(known, BEN)][-1] == 2
    again = turn(known, ANNA)
    assert {event.speaker for event in again} == {1}


def test_a_label_that_was_wrong_is_corrected():
    known = People()
    turn(known, ANNA)
    turn(known, BEN)
    people.hear(known, ANNA, True, True, POLICY)
    for _ in range(7):
        people.hear(known, ANNA, True, True, POLICY)
    events = [Event("user_started", 5)]
    people.mark(known, events, 5, POLICY)
    assert events[0].speaker == 1
    for _ in range(40):
        people.hear(known, BEN, True, True, POLICY)
        events = []
        people.mark(known, events, 6, POLICY)
        if events:
            break
    assert [(e.kind, e.turn, e.speaker) for e in events] == [("speaker_corrected", 2, 2)]


@pytest.mark.parametrize(
    "text, name",
    [
        ("my name is Anna", "Anna"),
        ("Hello, I'm Ben.", "Ben"),
        ("call me Ishmael", "Ishmael"),
        ("I'm German", None),
        ("I'm tired", None),
        ("is Anna there", None),
    ],
)
def test_names_are_learned_from_who_says_them(text, name):
    assert people.introduced_name(text) == name


def test_a_name_belongs_to_who_said_it():
    known = People()
    turn(known, ANNA)
    for _ in range(20):
        people.hear(known, BEN, True, True, POLICY)
    (event,) = people.learn_name(known, "I'm Ben", 9)
    assert (event.kind, event.text, event.speaker) == ("speaker_named", "Ben", 2)
    assert not people.learn_name(known, "I'm Ben", 9)


def test_a_large_mind_reads_who_said_it():
    known = People()
    turn(known, ANNA)
    assert people.attributed(known, "hello") == "hello"
    turn(known, BEN)
    for _ in range(20):
        people.hear(known, BEN, True, True, POLICY)
    assert people.attributed(known, "hello") == "Speaker 2: hello"
    people.give_name(known, 2, "Ben")
    assert people.attributed(known, "hello") == "Ben: hello"
    assert people.attributed(known, "") == ""


def test_a_client_names_only_who_was_heard():
    known = People()
    turn(known, ANNA)
    people.give_name(known, 1, "Anna")
    assert known.names == {1: "Anna"}
    with pytest.raises(ValueError, match="speaker 2"):
        people.give_name(known, 2, "Ben")


def test_anyone_is_heeded_unless_the_client_wants_otherwise():
    known = People()
    turn(known, ANNA)
    people.hear(known, BEN, True, True, POLICY)
    assert not people.is_unheeded(known)
    assert not people.awaits_speaker(known)


@pytest.mark.parametrize("whom", ["first", "enrolled"])
def test_others_are_not_heeded(whom):
    known = People()
    people.heed(known, whom, ANNA if whom == "enrolled" else None, POLICY)
    turn(known, ANNA)
    people.hear(known, BEN, True, True, POLICY)
    assert people.awaits_speaker(known)
    for _ in range(20):
        people.hear(known, BEN, True, True, POLICY)
    assert people.is_unheeded(known)
    turn(known, BEN)
    for _ in range(20):
        people.hear(known, ANNA, True, True, POLICY)
    assert not people.is_unheeded(known)


def test_nobody_can_be_heeded_who_has_not_enrolled():
    with pytest.raises(ValueError, match="nobody is enrolled"):
        people.heed(People(), "enrolled", None, POLICY)


def test_five_seconds_of_speech_give_a_voice_print():
    known = People()
    people.enroll(known)
    turn(known, ANNA, POLICY.enroll_ticks - 1)
    assert not people.finish_enrolling(known, 0, POLICY)
    turn(known, ANNA, 1)
    (event,) = people.finish_enrolling(known, 0, POLICY)
    assert event.kind == "speaker_enrolled"
    np.testing.assert_allclose(voice_print.decode(event.text), ANNA, atol=0.01)
    people.heed(known, "enrolled", None, POLICY)


@pytest.mark.parametrize("text", ["", "no print", "AAAA", "A" * 1000])
def test_what_is_no_voice_print_is_refused(text):
    with pytest.raises(ValueError, match="voice print"):
        voice_print.decode(text)


class Voices:
    """Stands for the speaker head: somebody else speaks when the test says so."""

    def __init__(self):
        self.voice = ANNA

    def __call__(self, early: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.tile(self.voice, (len(early), 1, 1)))


def converse(agent, script: Script, voices: list, heeds: str) -> list[Event]:
    """Each says "hi" for 1.6 s, and the LM always wants the turn to be for the agent."""
    head = Voices()
    agent.recognition.speaker_head = head
    agent.open(0)
    people.heed(agent.sessions[0].people, heeds, None, POLICY)
    agent.step(tick_of(), [0])  # so quiet is the room
    found = []
    for voice in voices:
        head.voice = voice
        script.symbols = [USER, *text(" hi")]
        for tick in range(40):
            if tick == 30:
                script.symbols = [USER_END] * 6
            session = agent.sessions[0]
            faint = [PendingToken(session.tick, symbol, 0.3) for symbol in script.symbols[:4]]
            session.user.pending.tokens += faint if tick < 30 else []
            level = 0.3 if tick < 20 else 0.0
            found += agent.step(tick_of(level * (-1) ** tick), [0])[1][0]
    return found


@pytest.mark.parametrize(
    ("heeds", "to"),
    [
        ("anyone", ["agent", "agent", "agent"]),
        ("first", ["agent", "other", "agent"]),
    ],
)
def test_the_agent_answers_whom_it_heeds(heeds, to):
    agent, script = scripted_agent([], symbols_per_tick=2)
    events = converse(agent, script, [ANNA, BEN, ANNA], heeds)
    ended = [event for event in events if event.kind == "user_ended"]
    assert [event.speaker for event in ended] == [None, 2, 1]
    assert [event.to for event in ended] == to
