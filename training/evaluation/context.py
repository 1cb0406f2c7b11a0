"""Answers that hang on what was told before: by voice, as text in the context, half by each, or not at all.

    python -m duplex.training.evaluate context --questions-audio context --count 80 --out runs/evaluation

The same facts (texts/context.txt) are given in each way, in conversations of their own, spoken by Kokoro's voices, which no
training has heard; a text is read by the agent in the middle of the session, as a client would send it. An answer is right if the
value is in it; where nothing was told, if it says so.
"""

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import soundfile
from duplex.training.data.synthesizers import KOKORO, Kokoro
from duplex.training.evaluation.facts import right, wave_of
from duplex.training.evaluation.play import play
from duplex.training.text.context import MODES, context_exchange, read_matters

from duplex import weights
from duplex.agent import load_agent
from duplex.audio import SAMPLE_RATE

NOT_TOLD = ["haven't told"]


def conversations(count: int, seed: int) -> list[dict]:
    """`count` in all, as many of each mode; the random numbers, and so the facts, are the same for every mode."""
    matters, found = read_matters(), []
    for mode in MODES:
        for number in range(count // len(MODES)):
            _, asked, note, turns = context_exchange(
                matters, random.Random(f"{seed} {number}"), mode
            )
            values = [[one.value] for one in asked] if mode != "unknown" else [NOT_TOLD]
            found.append(
                {"mode": mode, "note": note, "user": [user for user, _ in turns], "wanted": values}
            )
    return found


def sound_of(text: str, folder: Path, voices: list) -> np.ndarray:
    """A text in the voice that its letters choose, [samples]; made when it is not in the folder. `voices`: Kokoro, once needed."""
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = folder / f"{name}.wav"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if not voices:
            voices.append(Kokoro(weights.folder(KOKORO)))
        voice = int(name, 16) % len(voices[0].voices)
        soundfile.write(
            path.with_suffix(".part"),
            voices[0].say(text, voice),
            SAMPLE_RATE,
            "PCM_16",
            format="WAV",
        )
        path.with_suffix(".part").rename(path)
    return wave_of(path)


def hold(agent, talk: dict, waves: list[np.ndarray], seed: int) -> list[dict]:
    """{"heard", "said"} of every turn of one conversation, one after the other in one session."""
    agent.open(0, seed=seed)
    if talk["note"]:
        agent.write(0, "system", talk["note"])
    turns = [play(agent, wave) for wave in waves]
    agent.close(0)
    return [{name: turn[name] for name in ("heard", "said")} for turn in turns]


def score(records: list[dict]) -> dict:
    """{mode: {"asked", "right"}}; the last turns of a conversation are its questions."""
    result = {}
    for record in records:
        row = result.setdefault(record["mode"], {"asked": 0, "right": 0})
        answers = record["turns"][len(record["turns"]) - len(record["wanted"]) :]
        for answer, wanted in zip(answers, record["wanted"], strict=True):
            row["asked"] += 1
            row["right"] += right(wanted, answer["said"])
    return result


def evaluate_context(args) -> dict:
    if not args.questions_audio:
        raise SystemExit(
            "Name the folder of the spoken sentences with --questions-audio; what is missing there is made."
        )
    agent, voices, records = load_agent(args.agent), [], []
    for talk in conversations(args.count, args.seed):
        waves = [sound_of(text, args.questions_audio, voices) for text in talk["user"]]
        records.append({**talk, "turns": hold(agent, talk, waves, args.seed)})
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "context.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records)
    )
    return score(records)
