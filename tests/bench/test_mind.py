"""Everyday questions: what is right, late, and how soon it came."""

import numpy as np

from duplex.audio import TICK_SAMPLES
from duplex.bench.mind import QUESTIONS, measure, measure_spoken
from duplex.client.sound.sound_file import Question
from duplex.model.tokens import USER, USER_END
from tests.agent.thinking.test_dictation import Mind, minded_agent
from tests.tiny_speech_agent import text


class Clock:
    """Stands still but for who sleeps; each look at it takes a moment."""

    def __init__(self, moment: float):
        self.time = 0.0
        self.moment = moment

    def now(self) -> float:
        self.time += self.moment
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def score(moment: float, *answers: str):
    agent = minded_agent(Mind(*answers))
    agent.close(0)
    clock = Clock(moment)
    return measure(agent, QUESTIONS[: len(answers)], 60, clock.now, clock.sleep)


def test_an_answer_with_an_accepted_word_is_right():
    found = score(0.001, "A week has Seven days.", "Grey.")
    assert [is_right for _, _, is_right in found.answers] == [True, False]
    assert found.answers[1][1] == "Grey." and found.right == 1
    assert found.late == 0 and len(found.delays_s) <= 2


def test_ticks_that_take_too_long_are_late():
    assert score(0.2, "Seven.").late > 0


def test_the_delay_of_spoken_questions_counts_from_their_last_sound():
    agent = minded_agent(Mind("One two three."), end_timeout_ticks=8)
    agent.close(0)
    clock = Clock(0.001)
    wave = np.concatenate([np.full(2 * TICK_SAMPLES, 0.1, np.float32), np.zeros(999, np.float32)])
    agent.script.symbols = [USER, *text(" hi"), USER_END]
    found = measure_spoken(agent, [Question("hi", wave)], 40, clock.now, clock.sleep)
    assert [name for name, _, _ in found.answers] == ["hi"]
    assert found.ticks > 25 + 2
