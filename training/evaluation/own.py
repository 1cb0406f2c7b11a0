"""How an agent does in somebody's own conversations, and in six questions that it knew before.

Turns of the user that are set aside are played to it, each in a session of its own: how many words
it hears wrongly, whether it answers, how soon, and whether it spoke before they were over.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np

import duplex.client
from duplex.agent.agent import Agent
from duplex.audio import SAMPLE_RATE, SPEECH_LEVEL
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.data.pool import Pool
from duplex.training.evaluation.conversation import conversation, read_questions
from duplex.training.evaluation.hearing.error_rate import error_rate
from duplex.training.evaluation.play import LEAD_IN_SAMPLES, Answer, end_of_sound, play
from duplex.training.scenes.recordings import parse_conversation


@dataclass(frozen=True)
class Question:
    """A turn of the user, what it says, and what was answered then, if anybody knows."""

    wave: np.ndarray  # float32 [N]
    text: str
    answer: str | None


def set_aside_questions(prepared: Path, most: int = 12) -> list[Question]:
    """Turns of the `valid` split that were answered, evenly over it."""
    pool = Pool(prepared, "valid")
    found = []
    for i, entry in enumerate(pool.entries):
        talk = parse_conversation(entry)
        answers = {id(turn.answers): turn.text for turn in talk.agent if turn.answers}
        for turn in talk.user:
            if entry["agent"] is not None and id(turn) not in answers:
                continue
            begin = max(0.0, turn.words[0].start - 0.2)
            samples = int((turn.words[-1].end + 0.3 - begin) * SAMPLE_RATE)
            wave = pool.wave(i, int(begin * SAMPLE_RATE), samples)
            text = " ".join(word.text for word in turn.words)
            found.append(Question(wave, text, answers.get(id(turn))))
    return found[:: max(1, len(found) // most)][:most]


def measure(agent: Agent, questions: list[Question]) -> dict:
    """What the agent makes of the questions, and of the six recorded ones.

    Returns "hearing WER", "answered", "too soon", "s to the voice, median"; "rows" and "kept" hold
    what was heard and said.
    """
    scripts = [lambda slot, one=one: conversation([one.wave])(slot) for one in questions]
    answers = [found for (found,) in play(agent, scripts, repeat(0))]
    texts, waves = read_questions(Path(duplex.client.__file__).parent / "questions")
    [known] = play(agent, [conversation(waves)], repeat(0))
    delays = [found.delay_s for found in answers if found.delay_s is not None]
    asked = zip(questions, answers, strict=True)
    too_soon = sum(spoke_too_soon(one, found) for one, found in asked)
    wanted = [one.text for one in questions]
    heard = [spoken_form(found.heard) for found in answers]
    return {
        "questions": len(questions),
        "hearing WER": round(error_rate(wanted, heard), 3) if questions else None,
        "answered": sum(bool(found.said) for found in answers),
        "too soon": too_soon,
        "s to the voice, median": round(float(np.median(delays)), 2) if delays else None,
        "rows": list(rows_of(questions, answers)),
        "kept": [
            {"asked": text, "heard": found.heard, "said": found.said}
            for text, found in zip(texts.values(), known, strict=True)
        ],
    }


def rows_of(questions: list[Question], answers: list[Answer]) -> Iterator[dict]:
    """What was asked, heard, said, and answered in the recording."""
    for one, found in zip(questions, answers, strict=True):
        told = {"asked": one.text, "heard": found.heard, "said": found.said}
        yield {**told, "recorded": one.answer}


def spoke_too_soon(one: Question, found: Answer) -> bool:
    """Whether the agent's voice began before the question had ended."""
    end = end_of_sound(np.pad(one.wave, (LEAD_IN_SAMPLES, 0)))
    return bool((np.abs(found.voice[:end]) > SPEECH_LEVEL).any())
