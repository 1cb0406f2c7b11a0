"""Answers are judged by words, shares are as counted by hand, and questions are not mixed up."""

from types import SimpleNamespace

import numpy as np
import pytest

from duplex.audio import TICK_SAMPLES
from duplex.events import Event
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.evaluation.minds import facts
from duplex.training.evaluation.minds.facts import (
    answers_spoken,
    answers_typed,
    ask,
    by_chance,
    is_right,
    questions,
    score,
)
from duplex.training.evaluation.play import LEAD_IN_SAMPLES, PATIENCE_TICKS, Tick
from duplex.training.evaluation.spoken import SpokenTexts
from tests.tiny_agent import TinyAgent


@pytest.mark.parametrize(
    ("answers", "said", "verdict"),
    [
        (["Vienna"], "The capital of Austria is Vienna.", True),
        (["German"], "They are in Germany.", False),  # a part of a word is no word
        (["Germany"], "It's Germany's north.", True),
        (["World War II", "World War Two"], "He lost World War Two!", True),
        (["Coca-Cola"], "It was coca cola", True),
        (["Mona Lisa", "Last Supper"], "The Mona and the Lisa", False),
        (["São Paulo"], "sao paulo", True),
        (["Rome"], "", False),
    ],
)
def test_answer_is_right_word_for_word(answers, said, verdict):
    assert is_right(answers, said) is verdict


def test_score_counts_as_by_hand():
    """Eight questions: five right in text, four typed, three by voice, two of them also in text."""
    ways = {"text": "YYYYYNNN", "typed": "YYYYNNNN", "voice": "YYNNNNNY"}
    records = []
    for n in range(8):
        said = {way: {"Y": "Yes.", "N": "No."}[row[n]] for way, row in ways.items()}
        heard = "is it so" if n else "is it"  # one word in 24 is lost
        records.append(
            {
                "topic": "abc"[n // 3],
                "question": "Is it so?",
                "answers": ["yes"],
                "heard": heard,
                **said,
            }
        )
    found = score(records)
    assert (found["voice / text"], found["typed / text"], found["voice / typed"]) == (
        0.6,
        0.8,
        0.75,
    )
    assert found["of the right in text, right by voice"] == 0.4
    assert found["transcript WER"] == round(1 / 24, 3)
    low, high = found["95 % of draws"]
    assert 0 <= low < 0.6 < high
    assert found["right"]["all"] == {
        "questions": 8,
        "text": 5,
        "typed": 4,
        "voice": 3,
        "voice / text": 0.6,
    }
    assert found["right"]["c"] == {
        "questions": 2,
        "text": 0,
        "typed": 0,
        "voice": 1,
        "voice / text": None,
    }
    assert facts.table(found["right"]).splitlines()[-1].split() == [
        "c",
        "2",
        "0",
        "0",
        "1",
        "-",
    ]


def test_chance_is_of_other_questions_on_the_topic():
    """Six ordered pairs on one topic, of which "It's Rome." fits two and "Paris." one."""
    rows = [
        ("a", ["Paris"], "It's Rome."),
        ("a", ["Rome"], "Paris."),
        ("a", ["Rome", "Lima"], "Oslo."),
        ("b", ["Oslo"], "Lima."),
    ]
    records = [{"topic": topic, "answers": answers, "voice": said} for topic, answers, said in rows]
    assert by_chance(records, "voice") == 0.5
    assert by_chance(records[2:], "voice") is None


@pytest.mark.parametrize("slots", [1, 3])
def test_every_question_has_its_own_record(slots):
    """The tiny agent writes a word for every four loud ticks and says as many back."""
    words = [3, 1, 5, 2, 4, 1, 2]
    agent, loud = TinyAgent(slots), np.full(TICK_SAMPLES, 0.5, np.float32)

    found = answers_spoken(agent, [np.tile(loud, 4 * n) for n in words], seed=0)
    assert [row["heard"].split() for row in found] == [
        [f"word{i}" for i in range(n)] for n in words
    ]
    assert [row["said"].split() for row in found] == [[f"echo{i}" for i in range(n)] for n in words]
    assert len(agent.opened) == len(agent.closed) == len(words)


def test_typed_questions_are_written_as_they_would_be_heard():
    agent = TinyAgent(2)
    agent.parts = SimpleNamespace(lexicon=SimpleNamespace(words=["", "who", "Rome"]))
    assert (
        answers_typed(agent, ["Who is it?", "Is it 9?", "Where's Rome?"], seed=1) == ["echo0"] * 3
    )
    assert sorted(call[3] for call in agent.calls if call[0] == "write") == [
        "is it nine",
        "where's Rome",
        "who is it",
    ]


def asked(wave: np.ndarray, events: dict[int, list[Event]]) -> tuple[dict, int]:
    """A question to an agent whose events of each tick these are, and the ticks that it took."""
    script = ask(wave)
    next(script)
    tick = 0
    while True:
        try:
            script.send(Tick(np.zeros(TICK_SAMPLES, np.float32), events.get(tick, []), 0.0))
        except StopIteration as ended:
            return ended.value, tick + 1
        tick += 1


def test_question_without_an_answer_ends():
    events = {1: [Event("user_started", 0), Event("heard", 0, " hm")]}
    found, ticks = asked(np.zeros(3 * TICK_SAMPLES, np.float32), events)
    assert ticks == 3 + PATIENCE_TICKS - 1
    assert found == {"heard": "hm", "said": ""}


def test_answer_that_began_too_early_is_not_the_end():
    kinds = {2: "agent_started", 4: "agent_ended", 8: "user_started"}
    kinds |= {12: "user_ended", 30: "agent_started", 60: "agent_ended"}
    events = {tick: [Event(kind, tick), Event("said", tick, "It")] for tick, kind in kinds.items()}
    found, ticks = asked(np.zeros(9 * TICK_SAMPLES, np.float32), events)
    assert ticks == 60 + facts.MORE_TICKS
    assert found["said"] == "ItItItIt ItIt"  # a turn's pieces belong together, two turns don't


def test_only_missing_sound_is_made(tmp_path):
    rows = [{"id": f"q{n}", "question": f"Question {n}?"} for n in range(3)]
    (tmp_path / "q1.wav").write_bytes(b"made before")
    said = []

    class Voices:
        voices = range(2)

        def say(self, text, voice):
            said.append((text, voice))
            return np.zeros(2400, np.float32)

    spoken = SpokenTexts(tmp_path, Voices)
    facts.speak_missing(rows, spoken)
    assert said == [("Question 0?", 0), ("Question 2?", 0)]
    assert (tmp_path / "q1.wav").read_bytes() == b"made before"
    assert len(spoken.read("q2")) == LEAD_IN_SAMPLES + 2400
    facts.speak_missing(rows, spoken)
    assert len(said) == 2


def test_shipped_questions_do_not_hold_their_answers():
    rows = questions(1000)
    assert (
        len(rows) == 300
        and len({spoken_form(row["question"]) for row in rows})
        == len({row["id"] for row in rows})
        == 300
    )
    for row in rows:
        assert len(row["question"].split()) <= 9 and row["answers"], row
        assert all(spoken_form(answer) for answer in row["answers"]), row
        assert not is_right(row["answers"], row["question"]), (
            row
        )  # repeating the question is no answer
