"""For whom something is: whose line an answer is counted to, and what is drawn."""

import json

import numpy as np

from duplex.audio import TICK_SAMPLES
from duplex.events import Event
from duplex.training.evaluation.company import Line, converse, read_user_texts
from duplex.training.evaluation.play import Tick


def line(ticks: int, is_for_agent: bool, gap_ticks: int = 0) -> Line:
    return Line(np.ones((ticks, TICK_SAMPLES), np.float32), is_for_agent, False, gap_ticks)


def run(lines: list[Line], told: dict[int, str]) -> int:
    """Play the lines to an agent that does something at certain ticks; returns ticks played."""
    talk = converse(lines)
    next(talk)
    count = 0
    while True:
        events = [Event(told[count], count)] if count in told else []
        count += 1
        try:
            talk.send(Tick(np.zeros(TICK_SAMPLES, np.float32), events, 0.0))
        except StopIteration:
            return count


def test_an_answer_is_that_of_the_last_line_said():
    lines = [line(5, True), line(5, False, gap_ticks=3)]
    ticks = run(lines, {7: "agent_started", 10: "agent_ended"})
    assert [one.is_answered for one in lines] == [True, False]
    assert ticks == 11 + 5 + 3  # the next line begins when the agent has ended


def test_side_talk_goes_on_while_the_agent_answers_it():
    lines = [line(5, False, gap_ticks=3), line(5, True)]
    ticks = run(lines, {6: "agent_started"})
    assert [one.is_answered for one in lines] == [True, False]
    assert ticks == 5 + 3 + 5 + 44


def test_what_users_said_in_training_is_known(tmp_path):
    def dialogue(split, text):
        turns = [{"role": "user", "text": text}, {"role": "agent", "text": "Yes."}]
        return json.dumps({"turns": turns, "split": split}) + "\n"

    corpus = tmp_path / "dialogues.jsonl"
    corpus.write_text(dialogue("train", "Is it?") + dialogue("valid", "Was it?"))
    assert read_user_texts(corpus) == {"Is it?"}
