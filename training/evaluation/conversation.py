"""Measure the agent as a user meets it: recorded questions in, what it heard and said out.

    python -m duplex.training.evaluate agent --questions client/questions --out runs/evaluation

Each question is played into one running conversation; the next starts a second after the answer.
WER of the user's transcript is against the questions' texts, WER of the voice is an outside
recogniser (Whisper base) against the agent's own text.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from duplex import weights
from duplex.agent import load_agent
from duplex.audio import SAMPLE_RATE, TICK_MS
from duplex.bench.recognizer import Whisper
from duplex.training.data.pool import Pool
from duplex.training.evaluation.hearing.error_rate import error_rate
from duplex.training.evaluation.hearing.stream import resident_megabytes
from duplex.training.evaluation.play import Answer, Tick, ask, play


def read_questions(folder: Path) -> tuple[dict[str, str], list[np.ndarray]]:
    """The texts of questions.json by their wavs' names, and the sounds, float32 [N] each."""
    texts = json.loads((folder / "questions.json").read_text())
    waves = []
    for name in texts:
        wave, rate_hz = soundfile.read(folder / name, dtype="float32")
        waves.append(soxr.resample(wave, rate_hz, SAMPLE_RATE).astype(np.float32))
    return texts, waves


def valid_clips(folder: Path, count: int, max_s: float = 12) -> tuple[list[str], list[np.ndarray]]:
    """Texts and waves of at most `count` clips of a pool's `valid` split, evenly over the pool.

    They have three words or more and are shorter than max_s.
    """
    pool = Pool(folder, split="valid")
    fit = [
        i
        for i, entry in enumerate(pool.entries)
        if len(entry["text"].split()) >= 3 and entry["samples"] < max_s * SAMPLE_RATE
    ]
    fit = fit[:: max(1, len(fit) // count)][:count]
    return [pool.entries[i]["text"] for i in fit], [pool.wave(i) for i in fit]


def conversation(
    waves: list[np.ndarray], seen: Callable[[int, Answer], None] = lambda number, answer: None
) -> Callable[[int], Generator[np.ndarray, Tick, list[Answer]]]:
    """A script that asks each wave after the answer to the one before; seen(number, answer)."""

    def script(slot: int) -> Generator[np.ndarray, Tick, list[Answer]]:
        answers = []
        for number, wave in enumerate(waves):
            answer = yield from ask(wave)
            answers.append(answer)
            seen(number, answer)
        return answers

    return script


def long_talk(
    waves: list[np.ndarray],
    minutes: float,
    ask: Callable[[np.ndarray], Generator[np.ndarray, Tick, Answer]] = ask,
) -> Generator[np.ndarray, Tick, dict]:
    """The questions over and over: how many of the first and of the last are answered, memory."""
    answered: list[bool] = []
    megabytes: list[int] = []
    played = 0
    while played < minutes * 60 * SAMPLE_RATE:
        answer = yield from ask(waves[len(answered) % len(waves)])
        answered.append(answer.delay_s is not None)
        megabytes.append(resident_megabytes())
        played += len(answer.voice)
    part = min(len(answered), len(waves))
    return {
        "minutes": round(played / SAMPLE_RATE / 60, 1),
        "answered, of the first and of the last questions": [
            f"{sum(some)} of {part}" for some in (answered[:part], answered[-part:])
        ],
        "answered, of all": f"{sum(answered)} of {len(answered)}",
        "MB of the process, after the first questions and at the end": [
            megabytes[part - 1],
            megabytes[-1],
        ],
    }


def transcripts(agent, args: argparse.Namespace) -> dict:
    """WER of the user's transcript on clips of each pool, one conversation for each."""
    found = {}
    for folder in args.pool:
        texts, waves = valid_clips(folder, args.clips)
        [answers] = play(agent, [conversation(waves)], itertools.repeat(args.seed))
        heard = [answer.heard for answer in answers]
        name = f"transcript WER, {folder.name} ({len(texts)} clips)"
        found[name] = round(error_rate(texts, heard), 3)
        lines = [f"{a} | {b}\n" for a, b in zip(texts, heard, strict=True)]
        (args.out / f"transcripts-{folder.name}.txt").write_text("".join(lines))
    return found


def evaluate_agent(args: argparse.Namespace) -> dict:
    """`evaluate agent`."""
    whisper = Whisper(weights.whisper_base(), args.threads)
    agent = load_agent(args.agent)
    texts, waves = read_questions(args.questions)
    names = list(texts)
    rows: list[dict] = []

    def seen(number: int, answer: Answer) -> None:
        name = names[number]
        soundfile.write(args.out / f"answer-{name}", answer.voice, SAMPLE_RATE)
        rows.append(
            {
                "question": texts[name],
                "heard": answer.heard,
                "said": answer.said,
                "delay_s": answer.delay_s,
                "recogniser": whisper.text(answer.voice),
            }
        )
        print(json.dumps(rows[-1]), flush=True)

    [answers] = play(agent, [conversation(waves, seen)], itertools.repeat(args.seed))
    result = {"user transcript WER": _error_rate(rows, "question", "heard")}
    result |= transcripts(agent, args)
    if args.talk:
        scripts = [lambda slot: long_talk(waves, args.talk)]
        [result["long conversation"]] = play(agent, scripts, itertools.repeat(args.seed))
    delays = [row["delay_s"] for row in rows if row["delay_s"] is not None]
    tick_ms = 1000 * np.array([seconds for answer in answers for seconds in answer.tick_s])
    slowest = [round(float(function(delays)), 2) for function in (np.median, np.max) if delays]
    return result | {
        "voice WER": _error_rate(rows, "said", "recogniser"),
        "answered": f"{len(delays)} of {len(rows)}",
        "delay median, largest s": slowest or None,
        "tick ms p50, p99": [round(float(np.quantile(tick_ms, q)), 1) for q in (0.5, 0.99)],
        "ticks over the budget": float(np.mean(tick_ms > TICK_MS)),
    }


def _error_rate(rows: list[dict], wanted: str, heard: str) -> float:
    return round(error_rate([row[wanted] for row in rows], [row[heard] for row in rows]), 3)
