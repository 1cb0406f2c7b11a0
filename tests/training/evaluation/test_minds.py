"""Minds side by side: what is right, and what was called."""

import argparse
import json

import pytest

from duplex.events import Event, ToolCall
from duplex.mind.thinker import Call
from duplex.training.evaluation.minds import by_voice as minds_spoken
from duplex.training.evaluation.minds import questions as minds
from duplex.training.evaluation.minds import table as minds_table
from duplex.training.evaluation.play import Tick
from duplex.training.evaluation.spoken import SpokenTexts
from tests.helpers import tone
from tests.tiny_agent import TinyAgent


class Source:
    """Answers every question alike; keeps what it was asked."""

    def __init__(self, *pieces):
        self.pieces = pieces
        self.asked = []

    def stream(self, messages, tools, is_cancelled):
        self.asked.append([(message["role"], message["content"]) for message in messages])
        yield from self.pieces


class Voices:
    """Says everything alike."""

    voices = ("one",)

    def say(self, text, voice):
        return tone(3)


def test_sets_are_whole_and_every_row_can_be_judged():
    sizes = {"noises": 50, "told": 50, "told_chosen_on": 80, "noises_chosen_on": 24}
    for name in minds.SETS + minds.CHOSEN_ON:
        rows = minds.read_set(name)
        assert len(rows) == sizes.get(name, 100)
        kinds = {"tool", "words", "mode"}
        assert all(kinds & row.keys() or row["answers"] for row in rows)
        judged = [row for row in rows if not {"tool", "answers"} & row.keys()]
        assert all(row["mode"] in ("untold", "free") for row in judged)
        assert all(minds.said_in(row) for row in rows)
    assert sum(row["tool"] is None for row in minds.read_set("calls")) == 30
    names = [function["name"] for function in minds.FUNCTIONS]
    assert {row["tool"] for row in minds.read_set("calls")} == {None, *names}


def test_second_turn_is_asked_after_the_answer_to_the_first():
    source = Source("Six", " legs.")
    row = {"first": "How many legs, please?", "then": "And 2 more?", "answers": ["6"], "id": "x"}
    [found] = minds.measure(source, "followups", [row])
    assert found["right"] and found["said"] == "Six legs."
    assert [text for _, text in source.asked[-1][1:]] == [
        "How many legs please",
        "Six legs.",
        "And 2 more",
    ]


def test_a_sound_is_read_as_a_label_before_what_is_asked():
    source = Source("Rex.")
    row = {"sound": "dog", "note": "The dog is Rex.", "question": "Who was it?", "answers": ["rex"]}
    [found] = minds.measure(source, "noises", [row])
    assert found["right"]
    assert source.asked[0][1:] == [
        ("system", "The dog is Rex."),
        ("user", "[sound: dog] Who was it"),
    ]


def test_what_was_told_is_asked_in_the_same_talk():
    source = Source("I don't know.")
    rows = minds.read_set("context")
    found = list(minds.measure(source, "context", [rows[0], rows[-1]]))
    assert [row["right"] for row in found] == [False, True]
    assert source.asked[0][1] == ("system", rows[0]["note"]) and not rows[-1]["note"]
    of_all = minds_table.summary(found)
    assert of_all["of"] == 2 and of_all["unknown"]["right"] == of_all["unknown"]["of"] == 1


@pytest.mark.parametrize(
    ("row", "said", "right"),
    [
        ({"answers": ["24"]}, "Twenty-four hours.", True),
        ({"answers": ["no"]}, "I know nothing.", False),
        ({"answers": [], "words": 1}, "Paris.", True),
        ({"answers": [], "words": 1}, "It is Paris.", False),
        ({"mode": "untold"}, "You haven't told me your name.", True),
        ({"mode": "untold"}, "Your name is Ann.", False),
        ({"mode": "free"}, "Try salt.", True),
        ({"mode": "free"}, "I don't know that, you didn't tell me.", False),
    ],
)
def test_judge_of_words(row, said, right):
    assert minds.judge_words(row, said) is right


TIMER = {"tool": "set_timer", "arguments": {"minutes": 10}}


@pytest.mark.parametrize(
    ("row", "calls", "right"),
    [
        (TIMER, [("set_timer", '{"minutes": 10}')], True),
        (TIMER, [("set_timer", '{"minutes": "10"}')], True),
        (TIMER, [("set_timer", '{"minutes": 600}')], False),
        (TIMER, [("set_timer", "{}")], False),
        (TIMER, [], False),
        (TIMER, [("set_timer", '{"minutes": 10}')] * 2, False),
        (
            {"tool": "get_weather", "arguments": {"city": "oslo"}},
            [("get_weather", '{"city": "Oslo, Norway"}')],
            True,
        ),
        ({"tool": None, "arguments": {}}, [], True),
        ({"tool": None, "arguments": {}}, [("get_time", "{}")], False),
    ],
)
def test_judge_of_calls(row, calls, right):
    assert minds.judge_calls(row, [Call("c", *call) for call in calls]) is right


def test_table_and_answers_are_kept(tmp_path, capsys):
    args = argparse.Namespace(out=tmp_path, mind=["a"], sets=["everyday", "calls"], count=2)
    args.questions_audio = None
    args.noise = None
    source = Source("Wednesday.", Call("c", "get_time", "{}"))
    found = minds_table.evaluate_minds(args, lambda name: source)
    assert found["a"]["everyday"]["right"] == 1 and found["a"]["everyday"]["of"] == 2
    assert found["a"]["calls"]["due"]["right"] == 2
    rows = [json.loads(line) for line in (tmp_path / "minds.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and rows[0]["mind"] == "a"
    assert "WRONG everyday001" in capsys.readouterr().out


def test_a_spoken_question_is_over_with_a_call():
    def talk():
        for _ in range(3):
            yield "sound"
        return {"heard": "hi", "said": "Hello."}

    def play(*ticks) -> dict:
        asked = minds_spoken._until_called(talk())
        assert next(asked) == "sound"
        try:
            for events in ticks:
                asked.send(Tick(None, events, 0.0))
        except StopIteration as ended:
            return ended.value
        raise AssertionError("it is not over")

    call = ToolCall(2, "c", "get_time", "{}")
    heard = Event("corrected", 1, " What time is it?")
    assert play([heard], [call]) == {"heard": "What time is it?", "said": "", "calls": [call]}
    assert play([], [], [])["said"] == "Hello."


def test_answers_by_voice_come_one_by_one(tmp_path):
    agent = TinyAgent(1)
    spoken = SpokenTexts(tmp_path, Voices)
    told = {"id": "context000", "note": "Rex.", "turns": ["a", "b"], "answers": ["echo0"]}
    asked = {"id": "everyday000", "question": "a", "answers": ["Rex"]}
    minds_spoken.speak([told, asked], spoken)
    found = minds_spoken.measure_spoken(agent, "context", [told, asked], spoken)
    first = next(found)
    assert first["right"] and first["set"] == "context by voice" and first["heard"]
    written = [("write", 0, "system", "Rex.")]
    assert agent.calls == written
    assert [row["right"] for row in found] == [False] and agent.calls == written


def test_what_the_user_says_has_names():
    row = {"first": "a", "then": "b", "id": "followup003"}
    assert minds_spoken.turns_of(row, 3) == [("followup003-0", "a"), ("followup003-1", "b")]
    assert minds_spoken.turns_of({"text": "a"}, 7) == [("calls007-0", "a")]
