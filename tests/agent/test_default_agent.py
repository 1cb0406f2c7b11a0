"""The agent that ships, end to end: recorded questions in, its transcript and its voice out.

Needs the base weights, which come from the package registry once (duplex.weights).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duplex import client, weights
from duplex.agent import Agent, loader
from duplex.audio import CODEC_FRAMES_PER_TICK, SAMPLE_RATE, TICK_SAMPLES
from duplex.bench.recognizer import Whisper
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.evaluation.conversation import conversation as questions_in_turn
from duplex.training.evaluation.conversation import read_questions
from duplex.training.evaluation.hearing.error_rate import error_rate
from duplex.training.evaluation.play import play

QUESTIONS = Path(client.__file__).parent / "questions"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shipped():
    """Loaded once; who changes something of the agent takes another one of its parts."""
    from duplex.agent import load_agent

    return load_agent(slots=1)


@pytest.fixture(scope="module")
def conversation(shipped) -> list[dict]:
    """A greeting, a capital, a sum: one running conversation."""
    texts, waves = read_questions(QUESTIONS)
    [answers] = play(shipped, [questions_in_turn(waves[:3])])
    rows = zip(texts.values(), answers, strict=False)
    return [{"question": text, **vars(answer)} for text, answer in rows]


def test_it_writes_down_what_it_hears(conversation):
    questions = [row["question"] for row in conversation]
    assert error_rate(questions, [row["heard"] for row in conversation]) <= 0.25


def test_people_see_capitals_and_signs_of_the_second_pass(conversation):
    greeting, capital, total = (row["heard"] for row in conversation)
    assert greeting[0].isupper() and capital == "What is the capital of France?"
    assert total.endswith("?") and len(total.split()) == 5


def test_it_converses_without_a_second_pass(shipped):
    """As the first pass hears: capitals are those of names."""
    agent = Agent(replace(shipped.parts, whisper=None), 1)
    _, waves = read_questions(QUESTIONS)
    [[answer]] = play(agent, [questions_in_turn(waves[1:2])])
    assert answer.heard == "what is the capital of France" and "Paris" in answer.said


def test_it_answers_what_was_asked(conversation):
    greeting, capital, total = (spoken_form(row["said"]) for row in conversation)
    assert "thank" in greeting  # "thank you" or "thanks"
    assert "paris" in capital
    assert "twelve" in total


def test_its_voice_can_be_understood(conversation):
    """Whisper hears the agent's own text, and there is silence where it says nothing."""
    whisper = Whisper(weights.whisper_base(), threads=1)
    said = [row["said"] for row in conversation]
    heard = [whisper.text(row["voice"]) for row in conversation]
    for row in conversation:
        assert np.abs(row["voice"][: SAMPLE_RATE // 4]).max() < 0.05
    assert error_rate(said, heard) <= 0.35  # three short answers: a single word weighs a lot


def test_its_own_voice_is_not_the_users(shipped):
    """What it says comes back from a loudspeaker two ticks later at -14 dB.

    Once a first answer has shown the room, nothing stops or answers the others, the recogniser is
    given a tenth of them at most, and one word of them is transcribed at most (on some processors).
    """
    agent, answers, powers = shipped.with_slots(1), [], []
    loader.warm_up(agent)
    step = agent.recognition.step

    def listen(audio, *given):
        powers.append(float(np.square(audio).mean()))
        return step(audio, *given)

    agent.recognition.step = listen
    agent.open(0, seed=0)
    air = [np.zeros((1, TICK_SAMPLES), np.float32)] * 2
    rng = np.random.default_rng(0)
    for question in (
        "How are you today?",
        "Can you tell me a joke?",
        "What is the capital of Italy?",
    ):
        agent.write(0, "user", question)
        agent.answer(0)
        kinds, came = [], []
        powers.clear()
        while "agent_ended" not in kinds[:-25] and len(kinds) < 300:  # and two more seconds
            heard = 0.2 * air.pop(0) + rng.normal(0, 3e-4, (1, TICK_SAMPLES)).astype(np.float32)
            came.append(float(np.square(heard).mean()))
            voice, [events] = agent.step(heard, [0])
            air.append(voice)
            kinds += [event.kind for event in events] or ["nothing"]
        answers.append((kinds, sum(powers) / sum(came)))
    for kinds, left in answers[1:]:
        assert left < 0.1
        assert kinds.count("agent_started") == 1 and "agent_stopped" not in kinds
    assert sum(kinds.count("heard") for kinds, _ in answers[1:]) <= 1


def test_its_silence_is_silent():
    """So that its codec may rest while it says nothing."""
    from duplex.agent import AgentConfig
    from duplex.model.tts.codec import load_codec
    from duplex.weights import DEFAULT_AGENT

    codec = load_codec(DEFAULT_AGENT / "codec")
    idle_ticks = AgentConfig().codec_idle_ticks
    wave = codec.decode(
        codec.silence_codes()[None, :, None].expand(1, -1, CODEC_FRAMES_PER_TICK * 2 * idle_ticks)
    )
    assert wave[:, idle_ticks * TICK_SAMPLES :].abs().max() < 2**-16
