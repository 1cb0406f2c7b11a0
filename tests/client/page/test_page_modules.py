"""The page's pure modules under node: turns out of events, and what a closed connection means."""

import json

import pytest

from tests.client.page import node

pytestmark = node.needs_node


def read(*events: tuple) -> dict:
    """The conversation after these: (kind, text, more)."""
    told = [
        [number / 2, {"type": kind, "text": text, **(more[0] if more else {})}]
        for number, (kind, text, *more) in enumerate(events)
    ]
    return node.run("talk", told)


def test_words_are_shown_as_well_as_they_are_known():
    """What is heard better takes the place of what was shown, and nothing comes twice."""
    found = read(
        ("user_started", ""),
        ("heard", " what is"),
        ("heard", " the cap"),
        ("heard", "ital of"),
        ("partial", " What's the"),
        ("heard", " france"),
        ("corrected", " What is the capital of France?"),
        ("user_ended", "", {"to": "agent"}),
    )
    assert found["seen"] == [
        "",
        "what is",
        "what is the cap",
        "what is the capital of",
        "What's the",
        "What's the",
        "What is the capital of France?",
        "What is the capital of France?",
    ]
    [turn] = found["turns"]
    assert [word["at"] for word in turn["words"]] == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert found["text"] == "[0:00] you: What is the capital of France?\n"


def test_an_interruption_and_speech_for_others():
    found = read(
        ("agent_started", ""),
        ("said", " It is"),
        ("said", " late now."),
        ("user_started", ""),
        ("heard", " stop"),
        ("agent_stopped", " late now."),
        ("user_ended", "", {"to": "other"}),
    )
    agent, you = found["turns"]
    assert (agent["now"], agent["unsaid"], agent["open"]) == (" It is", " late now.", False)
    assert you["note"] == "not for the agent" and not you["open"]
    assert found["text"] == "[0:00] agent: It is …\n[0:01] you: Stop (not for the agent)\n"
    assert found["soFar"] == "The conversation so far:\nAssistant: It is\nUser: stop\n"


def test_people_are_told_apart():
    found = read(
        ("user_started", ""),
        ("heard", " hi", {"speaker": 1}),
        ("user_ended", ""),
        ("user_started", ""),
        ("heard", " I'm"),
        ("heard", " Ben", {"speaker": 2}),
        ("speaker_named", "Ben", {"speaker": 2}),
        ("corrected", " I'm Ben."),
        ("user_ended", ""),
        ("user_started", ""),
        ("heard", " and I", {"speaker": 3}),
    )
    assert found["names"] == ["You", "Ben", "Person 3"]
    assert [turn["now"] for turn in found["turns"]] == [" hi", " I'm Ben.", " and I"]


def test_a_label_may_come_late_and_a_name_stays():
    """A turn turns out to be somebody else's, and whom it belongs to is named from then on."""
    found = read(
        ("user_started", ""),
        ("heard", " I'm Ann", {"speaker": 1}),
        ("user_ended", "", {"speaker": 1}),
        ("speaker_named", "Ann", {"speaker": 1}),
        ("user_started", ""),
        ("heard", " and I", {"speaker": 2}),
        ("user_ended", "", {"speaker": 2}),
        ("user_started", ""),
        ("heard", " so", {"speaker": 2}),
        ("user_ended", "", {"speaker": 1}),
        ("speaker_corrected", "", {"turn": 1, "speaker": 1}),
        ("speaker_corrected", "", {"turn": 7, "speaker": 1}),
    )
    assert found["names"] == ["Ann", "Ann", "Ann"]


def test_sounds_and_backchannels_belong_to_no_turn():
    found = read(
        ("user_started", ""),
        ("heard", " there was a"),
        ("backchannel", "mhm"),
        ("heard", " storm"),
        ("sound", "dog"),
        ("user_ended", "", {"to": "agent"}),
    )
    assert found["names"] == ["You", "Agent", "Sound"]
    assert found["turns"][0]["now"] == " there was a storm"
    assert found["text"].splitlines()[1:] == [
        "[0:01] agent: Mhm (while you speak)",
        "[0:02] sound: Dog",
    ]
    assert found["soFar"] == "The conversation so far:\nUser: there was a storm\n"


def test_what_was_typed_is_not_corrected_by_what_was_heard():
    found = read(
        ("user_started", ""),
        ("heard", " what time"),
        ("typed", "never mind"),
        ("corrected", " What time is it?"),
        ("user_ended", ""),
        ("heard", " late"),
    )
    assert [turn["now"] for turn in found["turns"]] == [" What time is it? late", "never mind"]


def test_files_to_save():
    """Text, subtitles and JSON lines tell the same turns; marks of a file are no words."""
    found = read(
        ("user_started", ""),
        ("corrected", " Is 1 < 2?"),
        ("user_ended", ""),
        ("agent_started", ""),
        ("said", " Yes,\n\nof course"),
        ("agent_stopped", " course"),
    )
    assert [line.split(": ")[1] for line in found["text"].splitlines()] == [
        "Is 1 < 2?",
        "Yes, of …",
    ]
    assert found["subtitles"] == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n<v You>Is 1 &lt; 2?\n\n"
        "00:00:01.500 --> 00:00:02.500\n<v Agent>Yes, of …\n\n"
    )
    you, agent = [json.loads(line) for line in found["lines"].splitlines()]
    assert you == {
        "who": "you",
        "start_s": 0,
        "end_s": 1,
        "text": "Is 1 < 2?",
        "words": [[0, "Is"], [0, "1"], [0, "<"], [0, "2?"]],
    }
    assert agent["unsaid"] == "course" and agent["text"] == "Yes, of …"


def test_corrected_words_lie_in_the_sound_of_their_turn():
    words = [{"text": text, "at": 9.0} for text in ("is", "it", "late?")]
    assert node.run("spread", {"start": 1, "end": 4, "words": words}) == [1.75, 2.5, 4.0]
    assert node.run("spread", {"start": 1, "end": 4, "words": []}) == []


HELD = {"token": "t", "begun": True, "sinceMs": 0}


@pytest.mark.parametrize(
    ("closed", "then"),
    [
        ({"code": 1006, **HELD}, "resume"),
        ({"code": 1012, **HELD}, "resume"),
        ({"code": 1006, **HELD, "sinceMs": 40_000}, "restart"),
        ({"code": 1006, **HELD, "sinceMs": 130_000}, "explain"),
        ({"code": 1001, **HELD, "over": True}, "restart"),
        ({"code": 1000, **HELD, "error": "gone"}, "restart"),
        ({"code": 1000, **HELD, "over": True}, "explain"),
        ({"code": 1011, **HELD, "error": "model", "over": True}, "explain"),
        ({"code": 1013, "error": "full", "sinceMs": 0}, "full"),
        ({"code": 1006, "begun": False, "sinceMs": 0}, "explain"),
        ({"code": 1006, **HELD, "ending": True}, "end"),
    ],
)
def test_what_a_closed_connection_means(closed, then):
    assert node.run("afterClose", [closed]) == [then]
