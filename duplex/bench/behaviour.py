"""Whether an agent converses: every scene is played to it once, and its channel is judged.

There is no clock in it, unless the agent is behind a url: the same seed gives the same report.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.bench.fdb import SHORT_S
from duplex.bench.play import Played
from duplex.bench.recognizer import Heard
from duplex.bench.report import figures
from duplex.bench.scenes import Scene
from duplex.bench.score import ScoredScene, answer_text, score


@dataclass
class Judges:
    """What tells how an agent did, from its sound and words alone."""

    recognize: Callable[[np.ndarray], Heard]
    # Log-probability of an answer (second) after a question (first).
    log_likelihood: Callable[[str, str], float]


async def measure(
    play: Callable[[Scene, int], Awaitable[Played]],
    scenes: list[Scene],
    seed: int,
    judges: Judges,
    folder: Path | None = None,
    clock: bool = False,
) -> dict:
    """The part `behaviour` of the report: `play(scene, seed)` plays each scene once.

    Recordings go to `folder`. A scene is judged while the next one is played, but not with a
    `clock`, which the judging would make late where the server is on this machine.
    """
    jobs = []
    with ThreadPoolExecutor(1, "judges") as worker:
        for number, scene in enumerate(scenes):
            played = await play(scene, seed + number)
            jobs.append(worker.submit(judge, scene, played, judges.recognize, folder))
            if clock:
                await asyncio.wrap_future(jobs[-1])
    scored, rows = zip(*(job.result() for job in jobs), strict=True)
    add_relevance(scored, rows, judges.log_likelihood)
    summary = figures.summary([(row["kind"], row["figures"]) for row in rows])
    return {
        "summary": summary,
        "discernment": figures.discernment(summary),
        "scenes": list(rows),
    }


def add_relevance(
    scored: tuple[ScoredScene, ...],
    rows: tuple[dict, ...],
    log_likelihood: Callable[[str, str], float],
) -> None:
    """Put the figure `relevance` into the rows of the scenes that have an answer."""
    answers = {number: answer_text(one) for number, one in enumerate(scored)}
    answers = {number: found for number, found in answers.items() if found}
    values = figures.relevance(list(answers.values()), log_likelihood)
    for number, value in zip(answers, values, strict=True):
        rows[number]["figures"]["relevance"] = None if value is None else round(value, 4)


def judge(
    scene: Scene, played: Played, recognize: Callable[[np.ndarray], Heard], folder: Path | None
) -> tuple[ScoredScene, dict]:
    """One scene as the recogniser hears it, and its row of the report."""
    if folder:
        save(played, folder / f"{scene.name}.flac")
    human = None
    if scene.partner is not None:
        voice = recognize(scene.partner).voice
        human = [segment for segment in voice if segment[1] - segment[0] < SHORT_S]
    scored = played.scored(scene.kind, recognize(played.channel("agent")), human)
    row = scene_row(scene, played, scored)
    print(f"  {scene.name}: {row['figures']}", file=sys.stderr, flush=True)
    return scored, row


def scene_row(scene: Scene, played: Played, scored: ScoredScene) -> dict:
    """What the report keeps of one scene."""
    marks = [
        {
            "role": one.role,
            "text": one.text,
            "start_s": round(one.start_s, 3),
            "end_s": round(one.end_s, 3),
        }
        for one in scored.annotations
    ]
    events = [
        {key: event[key] for key in ("time_s", "type", "text") if key in event}
        for event in played.recording.events
    ]
    return {
        "name": scene.name,
        "kind": scene.kind,
        "seconds": round(played.seconds, 2),
        "figures": score(scored),
        "marks": marks,
        "voice": scored.heard.voice,
        "words": [[word.text, word.start_s, word.end_s] for word in scored.heard.words],
        "events": events,
        "waves": {channel: envelope(played.channel(channel)) for channel in ("user", "agent")},
    }


def envelope(wave: np.ndarray, columns: int = 500) -> list[int]:
    """The largest sample in each of `columns` equal parts of wave, float32 [N], in percent."""
    width = -(-len(wave) // columns)
    padded = np.pad(np.abs(wave), (0, width * columns - len(wave)))
    return np.rint(100 * padded.reshape(columns, width).max(axis=1)).astype(int).tolist()


def save(played: Played, path: Path) -> None:
    """The recording as a sound file, the user left and the agent right."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, played.recording.stereo(), SAMPLE_RATE)
