"""What was told before: the same facts in every mode, and answers counted for the questions."""

from duplex.training.evaluation.minds.context import NOT_TOLD, conversations, score, script
from duplex.training.evaluation.play import play
from duplex.training.text.context import MODES
from tests.helpers import tone
from tests.tiny_agent import TinyAgent


def test_same_facts_are_asked_in_every_mode():
    talks = conversations(16, 0)
    assert [talk["mode"] for talk in talks] == [mode for mode in MODES for _ in range(4)]
    by_mode = {mode: [talk for talk in talks if talk["mode"] == mode] for mode in MODES}
    assert all(
        talk["note"] and len(talk["user"]) == len(talk["wanted"]) for talk in by_mode["text"]
    )
    assert all(
        not talk["note"] and len(talk["user"]) == 2 * len(talk["wanted"])
        for talk in by_mode["voice"]
    )
    assert all(talk["note"] and len(talk["user"]) == 3 for talk in by_mode["both"])
    for text, voice, both in zip(by_mode["text"], by_mode["voice"], by_mode["both"], strict=True):
        values = [{value for [value] in talk["wanted"]} for talk in (text, voice, both)]
        assert values[0] == values[1] <= values[2] and len(values[2]) == 2


def test_what_is_right_is_counted_for_the_questions_alone():
    turns = [
        {"said": "Good to know, Rex."},
        {"said": "Your dog is called Rex."},
        {"said": "You live in Rome."},
    ]
    record = {"mode": "voice", "turns": turns, "wanted": [["Rex"], ["Paris"]]}
    told = {
        "mode": "unknown",
        "turns": [{"said": "I'm sorry, you haven't told me that."}],
        "wanted": [NOT_TOLD],
    }
    assert score([record, told]) == {
        "voice": {"asked": 2, "right": 1},
        "unknown": {"asked": 1, "right": 1},
    }


def test_note_is_written_before_what_is_said():
    agent = TinyAgent(1)
    [turns] = play(agent, [script(agent, "Your dog is Rex.", [tone(3), tone(7)])])
    assert agent.calls == [("write", 0, "system", "Your dog is Rex.")]
    assert turns == [
        {"heard": "word0", "said": "echo0"},
        {"heard": "word0 word1", "said": "echo0 echo1"},
    ]
