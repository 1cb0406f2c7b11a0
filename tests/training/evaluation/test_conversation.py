"""A conversation is played question after question; an agent that falls silent is found out."""

import numpy as np

from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.bench.controls import Silent
from duplex.training.evaluate import parse_arguments
from duplex.training.evaluation.conversation import conversation, long_talk
from duplex.training.evaluation.play import LEAD_IN_SAMPLES, Answer, play
from tests.helpers import tone
from tests.tiny_agent import TinyAgent


def test_questions_are_asked_one_after_the_other():
    """The tiny agent writes a word for every four loud ticks and says as many back."""
    seen = []
    agent = TinyAgent(2)
    script = conversation([tone(7), tone(3)], lambda number, answer: seen.append(number))
    [answers] = play(agent, [script])
    assert [answer.heard for answer in answers] == ["word0 word1", "word0"]
    assert [answer.said for answer in answers] == ["echo0 echo1", "echo0"]
    assert seen == [0, 1] and len(agent.opened) == len(agent.closed) == 1
    for answer, ticks in zip(answers, (7, 3), strict=True):
        loud = np.flatnonzero(np.abs(answer.voice) > 0.01)
        end = LEAD_IN_SAMPLES + ticks * TICK_SAMPLES
        assert 0.1 < answer.delay_s < 0.5 and loud[0] >= end
        assert len(answer.tick_s) == len(answer.voice) // TICK_SAMPLES


def test_long_talk_counts_answers_of_its_beginning_and_of_its_end():
    asked = []

    def ask(wave):
        asked.append(wave)
        yield np.zeros(TICK_SAMPLES, np.float32)
        delay_s = 0.5 if len(asked) <= 7 else None
        return Answer("", "", np.zeros(6 * SAMPLE_RATE), delay_s)

    [told] = play(Silent(1), [lambda slot: long_talk([1, 2, 3], 1.0, ask)])
    assert asked == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1] and told["minutes"] == 1.0
    assert told["answered, of the first and of the last questions"] == ["3 of 3", "0 of 3"]
    assert told["answered, of all"] == "7 of 10"


def test_every_evaluation_has_its_options():
    for name in ("agent", "hearing", "ears", "voice", "align", "facts", "context", "turns"):
        args = parse_arguments([name, "--seed", "3", "--threads", "2"])
        assert (args.what, args.seed, args.threads) == (name, 3, 2)
