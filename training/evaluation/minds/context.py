"""Answers that hang on what was told before: by voice, as text, half by each, or not at all.

    python -m duplex.training.evaluate context --questions-audio context --count 80 \\
        --out runs/evaluation

The same facts (texts/context.txt) are given in each way, in conversations of their own, spoken by
Kokoro's voices, which no training has heard; a text is read by the agent in the middle of the
session, as a client would send it. An answer is right if the value is in it; where nothing was
told, if it says so.
"""

import argparse
import hashlib
import itertools
import json
import random
from collections.abc import Generator

import numpy as np

from duplex.agent import load_agent
from duplex.training.evaluation.minds.facts import is_right
from duplex.training.evaluation.play import Script, Tick, ask, play
from duplex.training.evaluation.spoken import SpokenTexts
from duplex.training.text.context import MODES, context_exchange, read_matters

# What is in a right answer about something that nobody has told.
NOT_TOLD = [
    "haven't told",
    "have not told",
    "didn't tell",
    "did not tell",
    "never told",
    "not told",
    "haven't said",
    "have not said",
    "didn't say",
    "haven't mentioned",
    "have not mentioned",
    "didn't mention",
    "haven't shared",
    "don't know",
    "do not know",
    "not sure",
    "no idea",
    "don't have that",
    "don't have your",
    "don't have any information",
    "don't have information",
    "don't have access",
]


def conversations(count: int, seed: int) -> list[dict]:
    """`count` in all, as many of each mode, about the same facts: mode, note, user, wanted.

    The note is the text that is told, `user` what is said, and `wanted` the accepted answers to the
    last of that. Random numbers, and so the facts, are the same for every mode.
    """
    matters = read_matters()
    found = []
    for mode in MODES:
        for number in range(count // len(MODES)):
            rng = random.Random(f"{seed} {number}")
            _, asked, note, turns = context_exchange(matters, rng, mode)
            wanted = [accepted(one.value) for one in asked] if mode != "unknown" else [NOT_TOLD]
            user = [user for user, _ in turns]
            found.append({"mode": mode, "note": note, "user": user, "wanted": wanted})
    return found


def accepted(value: str) -> list[str]:
    """How a value may be said: "half past nine" is "9:30" as well."""
    hour = value.removeprefix("half past ")
    return [value] if hour == value else [value, f"{hour} thirty"]


def question_rows(count: int, seed: int = 0) -> list[dict]:
    """`count` conversations as rows of a set: what is asked last in each is what is judged."""
    return [
        {"id": f"context{number:03}", "mode": talk["mode"], "note": talk["note"]}
        | {"turns": talk["user"], "answers": talk["wanted"][-1]}
        for number, talk in enumerate(conversations(count, seed))
    ]


def read_spoken(text: str, spoken: SpokenTexts) -> np.ndarray:
    """A text in the voice that its letters choose, float32 [N]; made when it is not there."""
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    spoken.speak(name, text, int(name, 16))
    return spoken.read(name)


def script(agent, note: str, waves: list[np.ndarray]) -> Script:
    """A conversation: a note that is written, then each wave asked -> {"heard", "said"} of each."""

    def run(slot: int) -> Generator[np.ndarray, Tick, list[dict]]:
        if note:
            agent.write(slot, "system", note)
        turns = []
        for wave in waves:
            answer = yield from ask(wave)
            turns.append({"heard": answer.heard, "said": answer.said})
        return turns

    return run


def score(records: list[dict]) -> dict:
    """{mode: {"asked", "right"}}; the last turns of a conversation are its questions."""
    result = {}
    for record in records:
        row = result.setdefault(record["mode"], {"asked": 0, "right": 0})
        answers = record["turns"][len(record["turns"]) - len(record["wanted"]) :]
        for answer, wanted in zip(answers, record["wanted"], strict=True):
            row["asked"] += 1
            row["right"] += is_right(wanted, answer["said"])
    return result


def evaluate_context(args: argparse.Namespace) -> dict:
    """`evaluate context`."""
    if not args.questions_audio:
        raise SystemExit(
            "Name the folder of the spoken sentences with --questions-audio; "
            "what is missing there is made."
        )
    agent = load_agent(args.agent)
    spoken = SpokenTexts(args.questions_audio)
    talks = conversations(args.count, args.seed)
    scripts = [
        script(agent, talk["note"], [read_spoken(text, spoken) for text in talk["user"]])
        for talk in talks
    ]
    turns = play(agent, scripts, itertools.repeat(args.seed))
    records = [{**talk, "turns": found} for talk, found in zip(talks, turns, strict=True)]
    args.out.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) + "\n" for record in records]
    (args.out / "context.jsonl").write_text("".join(lines))
    return score(records)
