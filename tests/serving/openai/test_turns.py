"""The user's turns in the OpenAI Realtime dialect: speech events, push to talk, transcripts."""

import base64

import numpy as np
import pytest

from duplex.events import Event, Marked
from duplex.serving.commands import (
    AbandonTurn,
    AfterInput,
    Answer,
    Audio,
    Clear,
    Commit,
    EndTurn,
    Mark,
    TakeTurns,
)
from duplex.serving.openai.turns import MAX_WORDS_LATE_TICKS
from tests.helpers import tone
from tests.serving.openai.client import Client, base64_of, only, types

STARTED = "input_audio_buffer.speech_started"
STOPPED = "input_audio_buffer.speech_stopped"
COMMITTED = "input_audio_buffer.committed"
ADDED = ["conversation.item.added", "conversation.item.done"]
DELTA = "conversation.item.input_audio_transcription.delta"
COMPLETED = "conversation.item.input_audio_transcription.completed"
SEGMENT = "conversation.item.input_audio_transcription.segment"
PUSH_TO_TALK = {"audio": {"input": {"turn_detection": None}}}


def test_speech_over_an_answer_is_told_when_the_agent_yields():
    client = Client()
    client.append(tone(6))
    client.answer("One two")
    client.tick()
    assert types(client.tick(Event("user_started", 2))) == ["response.output_audio.delta"]
    assert types(client.tick(Event("heard", 3, " wait"))) == [DELTA, "response.output_audio.delta"]
    events = client.tick(Event("agent_stopped", 5, " two"), Event("user_ended", 5))
    assert types(events)[:3] == [STARTED, STOPPED, COMMITTED]
    assert events[0]["audio_start_ms"] == 160
    done = events[-1]["response"]
    assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}


def test_backchannel_over_an_answer_has_a_transcript_and_no_speech_events():
    client = Client()
    client.answer("The sun is")
    events = client.tick(Event("user_started", 1), Event("heard", 1, " yeah"))
    events += client.tick(Event("user_ended", 4, to="other"))
    events += client.tick(Event("agent_ended", 6))
    assert not {STARTED, STOPPED, COMMITTED} & set(types(events))
    assert only(events, COMPLETED)["transcript"] == "yeah"
    assert only(events, ADDED[0])["item"]["role"] == "user"
    assert events[-1]["response"]["status"] == "completed"


def test_of_several_people_a_segment_says_who():
    client = Client()
    client.append(tone(6))
    events = client.tick(Event("user_started", 1), Event("heard", 3, " hello", speaker=2))
    events += client.tick(Event("user_ended", 5, to="agent", speaker=2))
    segment = only(events, SEGMENT)
    assert types(events).index(SEGMENT) < types(events).index(COMPLETED)
    assert (segment["speaker"], segment["text"]) == ("2", "hello")
    assert (segment["start"], segment["end"]) == (0.08, 0.4)
    assert segment["item_id"] == only(events, COMPLETED)["item_id"]
    events = client.tick(Event("user_started", 6), Event("heard", 7, " hi"))
    assert SEGMENT not in types(events + client.tick(Event("user_ended", 9, to="agent")))


def end_answer_over_which_somebody_speaks() -> Client:
    """A client to which an answer was told whole; clients still play its end."""
    client = Client()
    client.answer("Hi.")
    client.tick(Event("user_started", 1))
    assert types(client.tick(Event("agent_ended", 2)))[-1] == "response.done"
    return client


def test_who_still_speaks_when_the_answer_is_over_is_told_a_little_later():
    client = end_answer_over_which_somebody_speaks()
    told = [types(client.tick()) for _ in range(8)]
    assert told.count([STARTED]) == 1 and told.index([STARTED]) == 6
    assert types(client.tick(Event("user_ended", 14)))[:2] == [STOPPED, COMMITTED]


def test_assent_at_the_end_of_an_answer_has_no_speech_events():
    client = end_answer_over_which_somebody_speaks()
    told = types(client.tick(Event("heard", 3, " yeah"), Event("user_ended", 4, to="other")))
    assert COMPLETED in told and STARTED not in told and STOPPED not in told
    # What was for the agent is told whole.
    client = end_answer_over_which_somebody_speaks()
    assert types(client.tick(Event("user_ended", 4)))[:3] == [STARTED, STOPPED, COMMITTED]
    # And the next answer is not cut either.
    client = end_answer_over_which_somebody_speaks()
    client.tick(Event("agent_started", 4))
    assert not [event for _ in range(9) for event in client.tick() if event["type"] == STARTED]


def test_push_to_talk_answers_what_was_committed_once_it_is_heard():
    client = Client(**PUSH_TO_TALK)
    client.append(tone(2))
    assert client.tick(Event("user_started", 0), Event("heard", 1, " what is")) != []
    commands, committed = client.send("input_audio_buffer.commit")
    assert commands == [Commit(), AfterInput(EndTurn()), AfterInput(Mark(1))]
    assert types(committed) == [COMMITTED, *ADDED]
    commands, [created] = client.send("response.create")
    assert created["type"] == "response.created"
    assert commands[-1] == AfterInput(Answer(hears_out=True))
    client.tick(Event("heard", 2, " this"))
    client.tick(Marked(1))
    events = client.tick(Event("user_ended", 5), Event("agent_started", 5))
    assert types(events)[:2] == [COMPLETED, "response.output_item.added"]
    assert events[0]["transcript"] == "what is this"
    assert events[0]["item_id"] == committed[0]["item_id"]
    assert events[1]["response_id"] == created["response"]["id"]


def test_push_to_talk_tells_no_speech():
    client = Client(**PUSH_TO_TALK)
    client.append(tone(2))
    events = client.tick(Event("user_started", 0), Event("heard", 1, " hi"))
    assert types(events) == [DELTA]


def test_recording_that_is_committed_at_once_is_held_until_it_is_heard():
    client = Client()
    client.append(tone(30))
    commands, _ = client.send("input_audio_buffer.commit")
    held, commit, release, mark = commands
    assert isinstance(held, TakeTurns) and not held.wanted.answers and commit == Commit()
    assert release.command.wanted.answers and mark == AfterInput(Mark(1))
    assert client.tick(Event("user_started", 0), Event("user_ended", 9)) == []
    client.tick(Event("user_started", 12), Event("heard", 12, " and you"))
    client.tick(Marked(1))
    assert types(client.tick(Event("user_ended", 20))) == [COMPLETED]


def test_commit_without_words_has_an_empty_transcript():
    client = Client(**PUSH_TO_TALK)
    client.append(tone(2))
    client.send("input_audio_buffer.commit")
    client.tick(Marked(1))
    events = [event for _ in range(MAX_WORDS_LATE_TICKS + 1) for event in client.tick()]
    assert only(events, COMPLETED)["transcript"] == ""


def test_commit_is_of_something():
    client = Client()
    empty = ("input_audio_buffer_commit_empty", None)
    assert client.refused("input_audio_buffer.commit") == empty
    client.append(tone(6))
    commands, [cleared] = client.send("input_audio_buffer.clear")
    assert commands == [Clear(), AbandonTurn()]
    assert cleared["type"] == "input_audio_buffer.cleared"
    assert client.refused("input_audio_buffer.commit") == empty


def test_silence_behind_an_answer_is_broken_as_the_client_wants_it():
    client = Client(
        audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 1_000}}}
    )
    client.append(tone(90))
    assert not [event for _ in range(20) for event in client.tick()]
    client.answer("Yes.", tick=20)
    client.tick(Event("agent_ended", 21))
    told = [event for _ in range(12) for event in client.tick()]
    assert not told
    told = client.tick()
    assert types(told)[:2] == [
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.committed",
    ]
    assert told[0]["audio_end_ms"] - told[0]["audio_start_ms"] == pytest.approx(1_000, abs=80)
    assert told[0]["item_id"] == told[1]["item_id"] and types(told)[-1] == "response.created"
    assert AfterInput(Answer(hears_out=True)) in client.dialect.take_due()
    # Once, until another answer is over; and not where the user has spoken.
    assert not [event for _ in range(30) for event in client.tick()]
    client.tick(Event("agent_started", 70))
    client.tick(Event("agent_ended", 71))
    client.tick(Event("user_started", 72))
    told = [event for _ in range(30) for event in client.tick()]
    assert "response.created" not in types(told)


def test_what_is_cleared_in_mid_speech_is_no_item():
    client = Client(**PUSH_TO_TALK)
    client.append(tone(2))
    client.tick(Event("user_started", 0), Event("heard", 1, " oh no"))
    client.send("input_audio_buffer.clear")
    assert client.tick(Event("user_ended", 2, to="other")) == []
    client.append(tone(2))
    client.tick(Event("user_started", 5), Event("heard", 6, " hi"))
    client.send("input_audio_buffer.commit")
    client.tick(Marked(1))
    assert only(client.tick(Event("user_ended", 8)), COMPLETED)["transcript"] == "hi"


def test_clear_leaves_what_was_committed():
    client = Client(**PUSH_TO_TALK)
    client.append(tone(2))
    client.send("input_audio_buffer.commit")
    commands, _ = client.send("input_audio_buffer.clear")
    assert commands == [Clear()]


def test_times_of_speech_are_those_of_the_appended_audio():
    client = Client()
    for _ in range(50):
        client.tick()
    for _ in range(10):
        client.append(tone(1))
        client.tick()
    [started] = client.tick(Event("user_started", 55))
    assert started["audio_start_ms"] == 5 * 80
    # Then nothing comes for a while.
    stopped = client.tick(Event("user_ended", 80))[0]
    assert stopped["audio_end_ms"] == 10 * 80
    for _ in range(9):
        client.tick()
    client.append(tone(4))
    assert client.tick(Event("user_started", 92))[0]["audio_start_ms"] == 10 * 80 + 2 * 80


def test_corrected_turn_is_complete_with_the_words_it_has_now():
    client = Client()
    client.tick(Event("user_started", 2), Event("heard", 3, " hallow"))
    assert client.tick(Event("corrected", 4, " hello")) == []
    assert only(client.tick(Event("user_ended", 5)), COMPLETED)["transcript"] == "hello"


@pytest.mark.parametrize("length", [1, 3, 1323])
def test_halves_of_samples_wait_for_the_next_piece(length):
    client = Client()
    sound = tone(2)
    data = base64.b64decode(base64_of(sound))
    heard = []
    for at in range(0, len(data), length):
        piece = base64.b64encode(data[at : at + length]).decode()
        [command], [] = client.send("input_audio_buffer.append", audio=piece)
        heard.append(command.samples)
    np.testing.assert_allclose(np.concatenate(heard), sound, atol=1e-4)


def test_line_ends_in_base64_mean_nothing():
    text = base64_of(tone(1))
    lines = "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76)) + "\n"
    [command], [] = Client().send("input_audio_buffer.append", audio=lines)
    assert isinstance(command, Audio) and len(command.samples) == len(tone(1))


@pytest.mark.parametrize("audio", ["no base64!", 3, None, "AAA=" * 3 + "AA"])
def test_audio_that_is_none_is_refused(audio):
    refused = Client().refused("input_audio_buffer.append", audio=audio)
    assert refused == ("invalid_value", "audio")


def test_words_of_an_item_begin_with_no_space():
    client = Client()
    client.tick(Event("user_started", 0), Event("heard", 1, " hello"), Event("heard", 1, " you"))
    told = client.tick(Event("user_ended", 3))
    items = [event["item"] for event in told if "item" in event]
    assert [item["content"][0]["transcript"] for item in items] == ["hello you"] * 2
