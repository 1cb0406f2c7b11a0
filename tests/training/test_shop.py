"""The invented shop: facts told often enough, new questions, sides apart."""

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.training.evaluation.minds import shop


def test_every_fact_is_told_and_no_question_is_the_datas():
    found = shop.read_shop()
    answers = [answer for dialogue in found["dialogues"] for _, answer in dialogue]
    asked = {question for dialogue in found["dialogues"] for question, _ in dialogue}
    assert len(found["dialogues"]) == 10 and len(found["facts"]) == len(found["questions"]) == 15
    for row in found["questions"]:
        assert sum(shop.is_right(row["answers"], answer) for answer in answers) >= 3, row
        assert any(shop.is_right(row["answers"], fact) for fact in found["facts"]), row
        assert row["question"] not in asked
    assert all(found["manner"] in answer for answer in answers)


def test_each_side_has_its_channel_and_its_times(monkeypatch):
    def speak(text, rng):
        return np.full(SAMPLE_RATE // 2, 0.5, np.float32), {}

    monkeypatch.setattr(shop, "say", lambda caller, text: speak(text, None)[0])
    rng = np.random.default_rng(0)
    sound, turns = shop.lay_out([("hello", "Hi."), ("bye", "Goodbye.")], [], speak, rng)
    assert [(text, mine) for text, _, mine in turns] == [
        ("hello", False),
        ("Hi.", True),
        ("bye", False),
        ("Goodbye.", True),
    ]
    for _, (start, end), mine in turns:
        part = np.abs(sound[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]).mean(0)
        assert part[0 if mine else 1] > 0.4 and part[1 if mine else 0] < 0.01
    assert shop.labels(turns, has_both=True)[0] == ["hello", None, "USER"]
    assert [label for _, _, label in shop.labels(turns, has_both=False)] == ["SPEAKER_MAIN"] * 2


def test_an_answer_is_judged_by_its_words(capsys):
    told = {"manner": "my friend"}
    row = {"question": "How much?", "answers": ["seven"]}
    right = shop.verdict(told, row, {"said": "It is $7, my friend."})
    wrong = shop.verdict(told, row, {"said": "It is seventeen dollars."})
    found = shop.summed([right, wrong])
    assert (found["right"], found["manner"], found["of"]) == (1, 1, 2)
    assert "right 1 of 2, in the manner 1" in capsys.readouterr().out
