"""The one reader of events: what the turns of a session are, whatever order events come in."""

import pytest

from duplex.audio import TICK_S
from duplex.events import Error, Event
from duplex.transcript import transcribe

HELLO = (Event("user_started", 1), Event("heard", 2, " hel"), Event("heard", 3, "lo"))
ANSWER = (Event("agent_started", 8), Event("said", 8, " Good"), Event("said", 9, " day."))


def words(events, who: str) -> list[str]:
    return [turn.spoken_text for turn in transcribe(events).turns(who)]


@pytest.mark.parametrize(
    ("events", "user"),
    [
        (HELLO, [" hello"]),
        ((*HELLO, Event("partial", 5, " yellow")), [" hello"]),
        ((*HELLO, Event("corrected", 5, " yellow")), [" yellow"]),
        ((*HELLO, Event("user_ended", 4), Event("corrected", 5, " yellow")), [" yellow"]),
        ((Event("heard", 2, " late"),), [" late"]),  # some servers send no user_started
        ((Event("corrected", 2, " alone"),), [" alone"]),
        ((*HELLO, Event("user_ended", 4), Event("heard", 5, " you")), [" hello you"]),
        ((*HELLO, Event("user_ended", 4), *HELLO), [" hello", " hello"]),
        ((*HELLO, Event("user_started", 6), Event("heard", 7, " you")), [" hello", " you"]),
        ((Event("user_started", 1), Event("user_ended", 2), *HELLO), [" hello"]),
    ],
)
def test_transcript_has_the_users_words_as_they_are_now(events, user):
    assert words(events, "user") == user
    assert transcribe(events).user_text == "".join(user)


@pytest.mark.parametrize(
    ("events", "partial"),
    [
        ((), ""),
        ((Event("partial", 4, " hello you"),), " hello you"),
        ((Event("partial", 4, " hello you"), Event("heard", 5, " ewe")), " hello you"),
        ((Event("partial", 4, " hello you"), Event("corrected", 5, " hello")), ""),
        ((Event("partial", 4, " hello you"), Event("user_ended", 5)), ""),
    ],
)
def test_what_is_shown_of_a_turn_while_it_goes_on(events, partial):
    [turn] = transcribe((*HELLO, *events)).turns("user")
    assert turn.partial == partial
    assert transcribe([Event("partial", 4, " nobody speaks")]).turns() == []


@pytest.mark.parametrize(
    ("ending", "spoken", "decided"),
    [
        ((), " Good day.", " Good day."),
        ((Event("agent_ended", 12),), " Good day.", " Good day."),
        ((Event("agent_stopped", 12, " day."),), " Good …", " Good day."),
        ((Event("agent_stopped", 12, ""),), " Good day.", " Good day."),
        ((Error("model", "broken"),), " Good day.", " Good day."),
    ],
)
def test_transcript_leaves_out_what_was_never_said(ending, spoken, decided):
    transcript = transcribe((*ANSWER, *ending))
    [turn] = transcript.turns()
    assert turn.who == "agent" and turn.spoken_text == spoken
    assert turn.text == transcript.agent_text == decided


def test_transcript_orders_turns_and_knows_which_is_open():
    transcript = transcribe((*HELLO, *ANSWER, Event("agent_ended", 12)))
    user, agent = transcript.turns()
    assert (user.who, agent.who) == ("user", "agent")
    assert agent.start_s == 8 * TICK_S and agent.end_s == 12 * TICK_S
    assert transcript.is_open("user") and not transcript.is_open("agent")


def test_transcript_reads_recorded_events_with_their_own_times():
    events = [
        {"type": "agent_started", "time_s": 1.0, "start_s": 1.2},
        {"type": "said", "time_s": 1.0, "text": " Hi"},
        {"type": "spoken", "time_s": 1.4, "text": "Hi", "start_s": 1.3, "end_s": 1.6},
        {"type": "agent_ended", "time_s": 1.7},
    ]
    transcript = transcribe(events)
    [turn] = transcript.turns()
    assert (turn.start_s, turn.end_s) == (1.2, 1.7)
    assert transcript.spoken == [(1.3, "Hi")] and turn.words() == [(1.0, "Hi")]
