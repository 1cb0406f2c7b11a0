"""The page's pure modules under node: turns out of events, and what a closed connection means."""

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
