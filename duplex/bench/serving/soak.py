"""A soak: for many minutes simulated users come and go at a server, and nothing may grow.

    duplex bench load --soak 30                             a server in this process
    duplex bench load --soak 30 --url ws://localhost:8765   one that runs already

Users come at random times, ask questions in real time, and leave: with a goodbye, without one, or
after having talked into every answer; others lose their connection and come back. The figures are
the server's own, from GET /metrics, read while nobody is there: before the first user, after a part
of the time, in which caches and pools fill, and at the end.
"""

import argparse
import asyncio
import json
import random
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from duplex.audio import SAMPLE_RATE, TICK_MS, TICK_SAMPLES
from duplex.bench.play import push_line
from duplex.client.remote import RemoteSession
from duplex.errors import ClientError
from duplex.serving.commands import Start
from duplex.serving.engine import Engine
from duplex.serving.limits import ServerLimits
from duplex.serving.native import messages as native


@dataclass(frozen=True)
class SoakConfig:
    """Who comes, and what is a fault."""

    places: int = 4  # of the server in this process
    crowd: float = 1.1  # users per place, on average: now and then one is refused
    # How often each kind of user comes, beside the others.
    kinds: dict[str, int] = field(
        default_factory=lambda: {"ends": 4, "interrupts": 3, "drops": 2, "returns": 1}
    )
    stay_s: float = 30.0  # of a user, on average
    max_stay_s: float = 120.0
    pause_s: float = 4.0  # of a user after each question
    interrupting_s: float = 0.8  # the same of one that interrupts: shorter than an answer
    warm_up: float = 0.25  # of the time, in which memory may grow
    max_growth_mb: float = 30.0  # of resident memory from then to the end
    # Until the last session is gone.
    max_leaving_s: float = 60.0
    # Of the server in this process, which keeps a lost session for half of max_leaving_s.
    limits: ServerLimits = ServerLimits(grace_s=0)


@dataclass(frozen=True)
class Visit:
    """One user's visit."""

    at_s: float
    stay_s: float
    kind: str
    seed: int


@dataclass(frozen=True)
class Server:
    """Where the users go."""

    url: str
    api_key: str | None = None

    async def open(self, seed: int) -> RemoteSession:
        """A session. Raises ClientError."""
        return await RemoteSession.open(self.url, Start(seed=seed), self.api_key)

    def figures(self) -> dict[str, float]:
        """Its metrics now, by their names here. Raises ClientError: it does not give them."""
        names = {
            "process_resident_memory_bytes": "resident_bytes",
            "process_open_fds": "open_files",
            "duplex_threads": "threads",
            "duplex_tasks": "tasks",
            "duplex_sessions": "sessions",
            "duplex_slots": "places",
            "duplex_ticks_total": "ticks",
            "duplex_late_ticks_total": "late_ticks",
            "duplex_skipped_ticks_total": "skipped_ticks",
            "duplex_model_errors_total": "model_errors",
        }
        address = self.url.replace("ws", "http", 1).removesuffix(native.PATH) + "/metrics"
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        request = urllib.request.Request(address, headers=headers)
        try:
            text = urllib.request.urlopen(request, timeout=20).read().decode()
        except (OSError, urllib.error.URLError) as error:
            raise ClientError(f"no figures come from {address} ({error})") from error
        return {
            names[sample.name]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name in names
        }

    async def figures_when_empty(self, max_leaving_s: float) -> dict[str, float]:
        """Its metrics when nobody is there any more, or after max_leaving_s."""
        until = time.monotonic() + max_leaving_s
        figures = await asyncio.to_thread(self.figures)
        while figures["sessions"] and time.monotonic() < until:
            await asyncio.sleep(1)
            figures = await asyncio.to_thread(self.figures)
        await asyncio.sleep(1)  # the last connections close
        return await asyncio.to_thread(self.figures)


def plan(seed: int, seconds: float, places: int, config: SoakConfig) -> list[Visit]:
    """Who comes when, in `seconds`; the last ones leave at its end."""
    rng = random.Random(seed)
    visits = []
    at_s = 0.0
    while True:
        at_s += rng.expovariate(places * config.crowd / config.stay_s)
        if at_s >= seconds:
            return visits
        stay_s = min(rng.expovariate(1 / config.stay_s), config.max_stay_s, seconds - at_s)
        [kind] = rng.choices(list(config.kinds), list(config.kinds.values()))
        visits.append(Visit(at_s, stay_s, kind, rng.randrange(2**31)))


def user_line(questions: list[np.ndarray], visit: Visit, config: SoakConfig) -> np.ndarray:
    """What a user says, float32 [N]: questions in random order with pauses."""
    rng = random.Random(visit.seed)
    pause_s = config.interrupting_s if visit.kind == "interrupts" else config.pause_s
    silence = np.zeros(round(pause_s * SAMPLE_RATE), np.float32)
    samples = round(visit.stay_s * SAMPLE_RATE)
    pieces: list[np.ndarray] = [np.zeros(0, np.float32)]
    while sum(map(len, pieces)) < samples:
        pieces += [rng.choice(questions), silence]
    return np.concatenate(pieces)[:samples]


async def act(server: Server, visit: Visit, line: np.ndarray, seen: Counter) -> None:
    """One user, from coming to leaving; what happens is counted in `seen`."""
    await asyncio.sleep(visit.at_s)
    try:
        session = await server.open(visit.seed)
    except ClientError as error:
        seen["refused" if "try again later" in str(error) else f"error: {error}"] += 1
        return
    seen[visit.kind] += 1
    listening = asyncio.create_task(_listen(session, seen), name="listen")
    half = len(line) // TICK_SAMPLES // 2
    async for number in push_line(session, line, time.monotonic()):
        await session.played(number * TICK_MS)
        if visit.kind == "returns" and number == half:
            session.drop()
    if visit.kind == "drops":
        listening.cancel()  # or it would come back
        session.drop()
    else:
        await session.close()
    await asyncio.wait([listening])


async def _listen(session: RemoteSession, seen: Counter) -> None:
    while (message := await session.get()) is not None:
        for event in message[1]:
            if event["type"] in ("agent_started", "agent_stopped"):
                seen[event["type"]] += 1
            elif event["type"] == "error":
                seen[f"error: {event['text']}"] += 1


async def soak(
    server: Server,
    minutes: float,
    questions: list[np.ndarray],
    seed: int,
    config: SoakConfig,
) -> dict:
    """The figures of the three empty moments, what users saw, and `faults`.

    Faults are sentences; there are none when all is well.
    """
    figures = [await server.figures_when_empty(config.max_leaving_s)]
    places = round(figures[0]["places"])
    seen: Counter = Counter()
    shares = {"warm-up": config.warm_up, "soak": 1 - config.warm_up}
    for number, (name, share) in enumerate(shares.items()):
        seconds = 60 * minutes * share
        print(f"{name} of {seconds:.0f} s …", file=sys.stderr, flush=True)
        visits = plan(seed + number, seconds, places, config)
        users = [act(server, v, user_line(questions, v, config), seen) for v in visits]
        await asyncio.gather(*users)
        figures.append(await server.figures_when_empty(config.max_leaving_s))
    start, warm, end = figures
    return {
        "minutes": minutes,
        "seed": seed,
        "start": start,
        "warm": warm,
        "end": end,
        "seen": dict(seen),
        "faults": faults(warm, end, seen, config.max_growth_mb),
    }


def faults(
    warm: dict[str, float], end: dict[str, float], seen: Counter, max_growth_mb: float
) -> list[str]:
    """What is wrong, a sentence each, from the figures after the warm-up and at the end."""
    found = [f"{number} times {what}" for what, number in seen.items() if what.startswith("error")]
    if end["sessions"]:
        found.append(f"{end['sessions']:.0f} sessions are left over")
    if end["model_errors"]:
        found.append(f"the model failed {end['model_errors']:.0f} times")
    for name in ("threads", "tasks", "open_files"):
        if end.get(name, 0) > warm.get(name, 0):
            found.append(
                f"{end[name]:.0f} {name.replace('_', ' ')} at the end, "
                f"{warm[name]:.0f} after the warm-up"
            )
    growth_mb = (end.get("resident_bytes", 0) - warm.get("resident_bytes", 0)) / 2**20
    if growth_mb > max_growth_mb:
        found.append(
            f"memory grew by {growth_mb:.1f} MB after the warm-up; {max_growth_mb:g} MB may be"
        )
    return found


async def soak_here(
    agent, minutes: float, questions: list[np.ndarray], seed: int, config: SoakConfig
) -> dict:
    """The same with a server in this process, whose memory, threads and tasks the users share."""
    from duplex.serving.http.listener import bind
    from duplex.serving.server import Serving, address

    engine = Engine(agent, config.places)
    await asyncio.to_thread(engine.start)
    try:
        async with Serving(engine, bind("127.0.0.1", 0), limits=config.limits) as server:
            return await soak(Server(address(server)), minutes, questions, seed, config)
    finally:
        await asyncio.to_thread(engine.stop)


def table(found: dict) -> str:
    """The figures as text."""
    moments = ("start", "warm", "end")
    rows = [("", *moments)]
    for name in sorted(found["end"]):
        values = [found[moment][name] for moment in moments]
        if name == "resident_bytes":
            rows.append(("resident_mb", *(f"{value / 2**20:.1f}" for value in values)))
        else:
            rows.append((name, *(f"{value:.0f}" for value in values)))
    lines = [f"{row[0]:<14}{row[1]:>10}{row[2]:>10}{row[3]:>10}" for row in rows]
    lines += [f"{number} {what}" for what, number in sorted(found["seen"].items())]
    return "\n".join(lines + [f"FAULT: {fault}" for fault in found["faults"]])


def run(
    args: argparse.Namespace,
    load: Callable[[int], object],
    questions: list[np.ndarray],
    config: SoakConfig | None = None,
) -> bool:
    """The command -> whether all is well; leaves soak.json in the folder --out."""
    config = config or SoakConfig()
    if args.url:
        url = args.url + (native.PATH if args.url.count("/") == 2 else "")
        work = soak(Server(url, args.api_key), args.soak, questions, args.seed, config)
    else:
        work = soak_here(load(config.places), args.soak, questions, args.seed, config)
    found = asyncio.run(work)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "soak.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))
    return not found["faults"]
