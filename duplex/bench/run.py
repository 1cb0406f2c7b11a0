"""Does an agent converse? Plays scenes to agents, scores their channel, measures latency and how many talks they hold at once.

    duplex bench behaviour                                  the scenes, as fast as the agents can
    duplex bench latency --agents default,cascade           in real time
    duplex bench draft                                      the default agent with guesses and without, and after a stall
    duplex bench load --url ws://localhost:8765             simulated users, more and more
    duplex bench behaviour --url wss://HOST --dialect realtime   any server that speaks OpenAI Realtime, or Moshi
    duplex bench all --out runs/bench                       everything, for all agents

Leaves `report.json`, `report.html` (self-contained) and the recordings, user left and agent right, in the folder --out.
The behaviour part has no clock in it: the same seed gives the same report. Needs the extra `bench`.
"""

import asyncio
import gc
import json
import os
import platform
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from duplex import __version__
from duplex.audio import SAMPLE_RATE
from duplex.bench import controls as bench_agents
from duplex.bench import latency as bench_latency
from duplex.bench import load as bench_load
from duplex.bench import play as bench_play
from duplex.bench import report as bench_report
from duplex.bench import scenes as bench_scenes
from duplex.bench import score as bench_score
from duplex.bench import speculation as bench_draft
from duplex.bench.play import Played
from duplex.bench.scenes import Scene

AGENTS = ("default", "cascade", "silent", "talking")
REMOTE = "remote"  # what the agent behind --url is called in the report
QUESTIONS = 6  # of the draft's conversation
COLUMNS = 500  # of a drawn waveform
NEEDED = ("faster_whisper", "silero_vad")  # modules of the extra


class BenchError(Exception):
    """One sentence about what the bench was asked for."""


class Loader:
    """Makes agents by name; what several of them need is loaded once. `default(slots)` loads the duplex agent."""

    def __init__(self, default: Callable[[int], object], offline: bool, threads: int):
        self.default, self.offline, self.threads = default, offline, threads
        self._language_model = self._ears = None

    def ears(self):
        if self._ears is None:
            from duplex import weights
            from duplex.bench.recognizer import Recognizer, Whisper

            whisper = Whisper(weights.whisper_base(self.offline), self.threads)
            self._ears = Recognizer(whisper)
        return self._ears

    def language_model(self):
        if self._language_model is None:
            from duplex.bench.smollm2 import SmolLM2

            self._language_model = SmolLM2(self.offline)
        return self._language_model

    def agent(self, name: str, slots: int = 1, clock: bool = True):
        """`clock`: whether it will be played in real time."""
        if name == "silent":
            return bench_agents.Silent(slots)
        if name == "talking":
            return bench_agents.Talking(slots, bench_agents.talk())
        if name == "cascade":
            from duplex.bench.cascade import Cascade, Costs, real_parts

            parts = real_parts(self.language_model(), self.offline, self.threads)
            return Cascade(slots, parts, None if clock else Costs())
        return self.default(slots)


def run(args, default: Callable[[int], object]) -> None:
    """The command. Raises BenchError, SceneError, weights.WeightsError and client.ClientError, each one sentence."""
    names = [REMOTE] if args.url else args.agents.split(",")
    for name in names:
        if name not in (REMOTE, *AGENTS):
            raise BenchError(
                f"there is no agent {name!r} to measure; --agents takes some of {','.join(AGENTS)}"
            )
    missing = [
        module for module in NEEDED if args.what in ("behaviour", "all") and not installed(module)
    ]
    if missing:
        raise BenchError(
            f"{' and '.join(missing)} not installed; pip install 'duplex[bench]' brings what the bench needs"
        )
    if args.url and args.dialect != "duplex" and args.what in ("load", "all"):
        raise BenchError(
            f"load is measured in our own dialect only; ask for behaviour or latency of a {args.dialect} server"
        )
    scenes, loader = (
        bench_scenes.load(args.scenes),
        Loader(default, args.offline, args.threads or 1),
    )
    args.out.mkdir(parents=True, exist_ok=True)
    report = {
        "version": __version__,
        "seed": args.seed,
        "url": args.url,
        "machine": machine(),
        "scenes": len(scenes),
    }
    if args.what == "draft":
        _measure_guesses(
            default, bench_load.questions_of(scenes)[:QUESTIONS], args.out / "draft.json"
        )
        return
    parts = ("behaviour", "latency", "load") if args.what == "all" else (args.what,)
    for part in parts:
        report[part] = {}
        for name in names:
            if part != "behaviour" and name in ("silent", "talking"):
                continue  # controls have no latency and hold any load
            print(f"{part} of {name} …", file=sys.stderr, flush=True)
            report[part][name] = asyncio.run(_measure(part, name, args, scenes, loader))
            gc.collect()
    (args.out / "report.json").write_text(
        json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    (args.out / "report.html").write_text(bench_report.html(report), encoding="utf-8")
    print(bench_report.table(report))
    print(f"wrote {args.out / 'report.json'}, {args.out / 'report.html'}", file=sys.stderr)


def installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def _measure_guesses(load: Callable[[int], object], questions: list, file: Path) -> None:
    """Prints each part when it is there; `file` has all of them."""
    parts = {
        f"batch {slots}": lambda slots=slots: bench_draft.measure(load, questions, slots)
        for slots in bench_draft.BATCHES
    }
    parts[f"after a stall of {bench_draft.STALL_S:g} s"] = lambda: asyncio.run(
        bench_draft.catch_up(load, questions[:2])
    )
    parts |= {
        f"voice, batch {slots}": lambda slots=slots: bench_draft.voice(load, slots)
        for slots in bench_draft.BATCHES
    }
    parts["a billion"] = bench_draft.billion
    measured = {}
    for name, measure in parts.items():
        measured[name] = measure()
        file.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        print(json.dumps({name: measured[name]}, indent=1), flush=True)


async def _measure(part: str, name: str, args, scenes: list[Scene], loader: Loader) -> dict:
    if part == "behaviour":
        ears, likelihood = loader.ears(), loader.language_model().log_likelihood
        folder = args.out / "recordings" / name
        if args.url:
            play = partial(
                bench_play.play_remote, args.url, dialect=args.dialect, api_key=args.api_key
            )
            return await behaviour(play, scenes, args.seed, ears, likelihood, folder, clock=True)
        play = partial(bench_play.play_fast, loader.agent(name, clock=False))
        return await behaviour(play, scenes, args.seed, ears, likelihood, folder)
    if part == "latency":
        if args.url:
            return await bench_latency.measure_remote(
                args.url, scenes, args.seed, args.dialect, args.api_key
            )
        return await bench_latency.measure(loader.agent(name), scenes, args.seed)
    if args.url:
        return await bench_load.ramp_remote(args.url, scenes, api_key=args.api_key)
    return await bench_load.ramp(lambda slots: loader.agent(name, slots), scenes)


async def behaviour(
    play, scenes: list[Scene], seed: int, ears, likelihood, folder: Path | None = None, clock=False
) -> dict:
    """Every scene once. `play(scene, seed)` awaits a bench_play.Played, `ears(wave)` gives bench_listen.Heard,
    `likelihood(question, answer)` a log-probability. Recordings go to `folder`. A scene is listened to while the next is
    played, but not with a `clock`: the server may be on this machine."""
    heard = []
    with ThreadPoolExecutor(1, "ears") as worker:
        for number, scene in enumerate(scenes):
            heard.append(worker.submit(hear, scene, await play(scene, seed + number), ears, folder))
            if clock:
                await asyncio.wrap_future(heard[-1])
    takes, rows = zip(*(one.result() for one in heard), strict=True)
    texts = {
        number: found
        for number, take in enumerate(takes)
        if (found := bench_score.answer_text(take))
    }
    fits = bench_score.relevance(list(texts.values()), likelihood)
    for number, value in zip(texts, fits, strict=True):
        rows[number]["figures"]["relevance"] = None if value is None else round(value, 4)
    summary = bench_score.summary([(row["kind"], row["figures"]) for row in rows])
    return {
        "summary": summary,
        "discernment": bench_score.discernment(summary),
        "scenes": list(rows),
    }


def hear(scene: Scene, played: Played, ears, folder: Path | None) -> tuple[bench_score.Take, dict]:
    """One scene as the ears hear it, and its row of the report."""
    if folder:
        save(played, folder / f"{scene.name}.flac")
    human = (
        None
        if scene.partner is None
        else [s for s in ears(scene.partner).voice if s[1] - s[0] < bench_score.SHORT_S]
    )
    take = played.take(scene.kind, ears(played.channel("agent")), human)
    row = scene_row(scene, played, take)
    print(f"  {scene.name}: {row['figures']}", file=sys.stderr, flush=True)
    return take, row


def scene_row(scene: Scene, played: Played, take: bench_score.Take) -> dict:
    """What the report keeps of one scene."""
    marks = [
        {"role": m.role, "text": m.text, "start_s": round(m.start_s, 3), "end_s": round(m.end_s, 3)}
        for m in take.marks
    ]
    return {
        "name": scene.name,
        "kind": scene.kind,
        "seconds": round(played.seconds, 2),
        "figures": bench_score.score(take),
        "marks": marks,
        "voice": take.heard.voice,
        "words": [[word.text, word.start_s, word.end_s] for word in take.heard.words],
        "events": [
            {k: e[k] for k in ("time_s", "type", "text") if k in e} for e in played.recording.events
        ],
        "waves": {channel: envelope(played.channel(channel)) for channel in ("user", "agent")},
    }


def envelope(wave: np.ndarray) -> list[int]:
    """The largest sample in each of COLUMNS stretches of a channel, float32 [N], in percent of full scale."""
    width = -(-len(wave) // COLUMNS)
    padded = np.pad(np.abs(wave), (0, width * COLUMNS - len(wave)))
    return np.rint(100 * padded.reshape(COLUMNS, width).max(axis=1)).astype(int).tolist()


def save(played: Played, path: Path) -> None:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, played.recording.stereo(), SAMPLE_RATE)


def machine() -> dict:
    """What a figure of time depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return {"processor": name, "cores": os.cpu_count(), "python": platform.python_version()}
