"""The command `duplex bench`: does an agent converse, how fast, and how many talks at once?

    duplex bench behaviour                                  the scenes, as fast as the agents can
    duplex bench latency --agents default,cascade           in real time
    duplex bench latency --sessions 1,2,4,8                 with several people at once, by turns
    duplex bench draft                                      speculative decoding, on and off
    duplex bench device --slots 1,8 --backbone 0.5B         a tick on one device, by part
    duplex bench host                                       the work beside the networks
    duplex bench load --url ws://localhost:8765             simulated users, more and more
    duplex bench load --soak 30                             users come and go for half an hour
    duplex bench behaviour --url wss://HOST --dialect realtime   a server of OpenAI Realtime, Moshi
    duplex bench all --out runs/bench                       everything, for all agents

Leaves `report.json`, `report.html` (self-contained) and the recordings, user left and agent right,
in the folder --out. The part `behaviour` has no clock in it: the same seed gives the same report.
Needs the extra `bench`.
"""

import argparse
import asyncio
import gc
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from duplex import __version__
from duplex.errors import BenchError

# The agents of this process that can be measured; the last two are controls.
AGENTS = ("default", "cascade", "silent", "talking")
# What is measured.
PARTS = ("behaviour", "latency", "load", "draft", "host", "device")
# What the agent behind --url is called in the report.
REMOTE = "remote"


def add_arguments(parser: argparse.ArgumentParser, key_variable: str) -> None:
    """The options of `duplex bench`, without those that choose the agent.

    key_variable: name of the environment variable with a server's key.
    """
    add = parser.add_argument
    add("what", choices=[*PARTS, "all"], help="what to measure")
    add_device_options(parser)
    add(
        "--url",
        metavar="URL",
        help="ws://HOST:PORT of a server to measure, instead of agents in this process",
    )
    add(
        "--dialect",
        choices=("duplex", "realtime", "moshi"),
        default="duplex",
        help="what that server speaks (default %(default)s)",
    )
    add(
        "--api-key",
        default=os.environ.get(key_variable),
        help=f"of that server (default: ${key_variable})",
    )
    add(
        "--agents",
        default=",".join(AGENTS),
        help="which agents of this process (default %(default)s)",
    )
    add("--seed", type=int, default=0, help="seed of the agents' sampling (default %(default)s)")
    add(
        "--soak",
        type=float,
        metavar="MIN",
        help="with load: users come and go for so long; nothing may grow",
    )
    add(
        "--sessions",
        metavar="N,N",
        help="with latency: of so many sessions at once, by turns in one run",
    )
    add(
        "--out",
        type=Path,
        default=Path("runs/bench"),
        help="folder of the report (default %(default)s)",
    )
    add(
        "--scenes", type=Path, metavar="DIR", help="scenes of your own: scenes.json and sound files"
    )


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """The options of `duplex bench device`."""
    parser.add_argument(
        "--slots",
        default="1,8",
        metavar="N,N",
        help="with device: sessions, one number after the other (default %(default)s); the LM may "
        "be a random --backbone 135M, 0.5B or 1.5B",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=20,
        metavar="S",
        help="with device: of talk; 0 only counts (default %(default)s)",
    )


def is_installed(module: str) -> bool:
    """Whether a module could be imported."""
    from importlib.util import find_spec

    return find_spec(module) is not None


def make_recognizer(offline: bool, threads: int):
    """The judge of what is heard. Raises WeightsError."""
    from duplex import weights
    from duplex.bench.recognizer import Recognizer, Whisper

    return Recognizer(Whisper(weights.whisper_base(offline), threads))


def make_language_model(offline: bool):
    """The judge of relevance, and the cascade's LM. Raises WeightsError."""
    from duplex.bench.smollm2 import SmolLM2

    return SmolLM2(offline)


@dataclass
class Loader:
    """Makes agents by name; the models that several of them and the judges need are made once.

    load: makes the duplex agent with so many slots. The other functions make the models.
    """

    load: Callable[[int], object]
    offline: bool = False
    threads: int = 1
    make_recognizer: Callable = make_recognizer
    make_language_model: Callable = make_language_model

    @cached_property
    def recognizer(self):
        """The judge of what is heard."""
        return self.make_recognizer(self.offline, self.threads)

    @cached_property
    def language_model(self):
        """The judge of relevance, and the cascade's LM."""
        return self.make_language_model(self.offline)

    def agent(self, name: str, slots: int = 1, clock: bool = True):
        """One of AGENTS. `clock`: whether it will be played in real time."""
        from duplex.bench import controls

        if name == "silent":
            return controls.Silent(slots)
        if name == "talking":
            return controls.Talking(slots, controls.talk())
        if name == "cascade":
            from duplex.bench.cascade import Cascade, Costs, real_parts

            parts = real_parts(self.language_model, self.offline, self.threads)
            return Cascade(slots, parts, None if clock else Costs())
        return self.load(slots)


def run(args: argparse.Namespace, load: Callable[[int], object]) -> bool:
    """The command, where load(slots) makes the duplex agent -> whether nothing was found at fault.

    Raises BenchError, SceneError, WeightsError and ClientError.
    """
    from duplex.bench import scenes as scene_files

    check(args)
    scenes = scene_files.load(args.scenes)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.soak is not None:
        from duplex.bench.serving import soak

        return soak.run(args, load, scene_files.questions(scenes))
    if args.sessions is not None:
        from duplex.bench.serving import sessions

        sessions.run(args, load, scene_files.questions(scenes))
        return True
    if args.what == "device":
        from duplex.bench.device import run as device

        return device.run(args, scene_files.questions(scenes))
    if args.what == "host":
        from duplex.bench.serving import host

        host.run(load, scene_files.questions(scenes), args.out / "host.json")
        return True
    if args.what == "draft":
        from duplex.bench import speculation

        speculation.run(load, scene_files.questions(scenes), args.out / "draft.json")
        return True
    write_report(measure(args, scenes, Loader(load, args.offline, args.threads or 1)), args.out)
    return True


def check(args: argparse.Namespace, is_installed: Callable[[str], bool] = is_installed) -> None:
    """Raise BenchError where the options do not go together or a package is missing."""
    if args.soak is not None and (args.what != "load" or args.soak <= 0):
        raise BenchError("--soak is a number of minutes for duplex bench load")
    if args.sessions is not None and (args.what != "latency" or args.url):
        raise BenchError("--sessions is for duplex bench latency of the agent of this process")
    for name in agent_names(args):
        if name not in (REMOTE, *AGENTS):
            raise BenchError(
                f"there is no agent {name!r} to measure; --agents takes some of {','.join(AGENTS)}"
            )
    needed = ("faster_whisper", "silero_vad") if args.what in ("behaviour", "all") else ()
    missing = [module for module in needed if not is_installed(module)]
    if missing:
        raise BenchError(
            f"{' and '.join(missing)} not installed; "
            "pip install 'duplex[bench]' brings what the bench needs"
        )
    if args.url and args.dialect != "duplex" and args.what in ("load", "all"):
        raise BenchError(
            "load is measured in our own dialect only; "
            f"ask for behaviour or latency of a {args.dialect} server"
        )


def agent_names(args: argparse.Namespace) -> list[str]:
    """The agents that are to be measured, by their names in the report."""
    return [REMOTE] if args.url else args.agents.split(",")


def measure(args: argparse.Namespace, scenes: list, loader: Loader) -> dict:
    """The report: each part that was asked for, of each agent."""
    report = {
        "version": __version__,
        "seed": args.seed,
        "url": args.url,
        "machine": machine(),
        "scenes": len(scenes),
    }
    for part in ("behaviour", "latency", "load") if args.what == "all" else (args.what,):
        report[part] = {}
        for name in agent_names(args):
            if part != "behaviour" and name in ("silent", "talking"):
                continue  # controls have no latency and hold any load
            print(f"{part} of {name} …", file=sys.stderr, flush=True)
            work = {"behaviour": _behaviour, "latency": _latency, "load": _load}[part]
            report[part][name] = asyncio.run(work(name, args, scenes, loader))
            gc.collect()
    return report


async def _behaviour(name: str, args: argparse.Namespace, scenes: list, loader: Loader) -> dict:
    from duplex.bench import behaviour
    from duplex.bench import play as players

    judges = behaviour.Judges(loader.recognizer, loader.language_model.log_likelihood)
    if args.url:
        play = partial(players.play_remote, args.url, dialect=args.dialect, api_key=args.api_key)
    else:
        play = partial(players.play_fast, loader.agent(name, clock=False))
    folder = args.out / "recordings" / name
    return await behaviour.measure(
        play, scenes, args.seed, judges, folder, clock=args.url is not None
    )


async def _latency(name: str, args: argparse.Namespace, scenes: list, loader: Loader) -> dict:
    from duplex.bench.serving import latency

    if args.url:
        return await latency.measure_remote(args.url, scenes, args.seed, args.dialect, args.api_key)
    return await latency.measure(loader.agent(name), scenes, args.seed)


async def _load(name: str, args: argparse.Namespace, scenes: list, loader: Loader) -> dict:
    from duplex.bench.scenes import questions
    from duplex.bench.serving import load

    if args.url:
        return await load.measure_remote(args.url, questions(scenes), load.Ramp(), args.api_key)
    return await load.measure(partial(loader.agent, name), questions(scenes), load.Ramp())


def write_report(report: dict, folder: Path) -> None:
    """report.json and report.html in the folder, and the table on stdout."""
    from duplex.bench.report.page import html
    from duplex.bench.report.report import table

    json_path = folder / "report.json"
    html_path = folder / "report.html"
    json_path.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    html_path.write_text(html(report), encoding="utf-8")
    print(table(report))
    print(f"wrote {json_path}, {html_path}", file=sys.stderr)


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
