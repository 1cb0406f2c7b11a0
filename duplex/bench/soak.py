"""A soak: for many minutes simulated users come and go at a server, and nothing may grow or be left over.

    duplex bench load --soak 30                             a server in this process
    duplex bench load --soak 30 --url ws://localhost:8765   one that runs already

Users come at random times, ask questions in real time, and leave: with a goodbye, without one, or after having talked into
every answer; others lose their connection and come back. The figures are the server's own, from GET /metrics, read while nobody
is there: before the first user, after a part of the time, in which caches and pools fill, and at the end.
"""

import asyncio
import json
import random
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from duplex.audio import SAMPLE_RATE, TICK_MS, TICK_S, TICK_SAMPLES
from duplex.client.remote import RemoteSession
from duplex.errors import ClientError
from duplex.serving import native as protocol
from duplex.serving.engine import Engine

PLACES = 4  # of the server in this process
GROWTH_MB = (
    30.0  # of resident memory, from after the warm-up to the end: beyond, the soak has failed
)
WARM_UP = 0.25  # of the time
STAY_S = 30.0  # of a user, on average
LONGEST_S = 120.0
CROWD = 1.1  # users per place, on average: now and then one is refused
QUIET_S = 60.0  # until the last session is gone: those without goodbye are kept for half of it
KINDS = {"ends": 4, "interrupts": 3, "drops": 2, "returns": 1}  # how often each kind of user comes
PAUSE_S, INTERRUPTING_S = 4.0, 0.8  # after a question; the second is shorter than an answer
READ = {  # metric -> what it is called here
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


@dataclass(frozen=True)
class Visit:
    at_s: float
    stays_s: float
    kind: str
    seed: int


def plan(seed: int, seconds: float, places: int) -> list[Visit]:
    """Who comes when, in `seconds`; the last ones leave at its end."""
    rng, visits, at = random.Random(seed), [], 0.0
    while True:
        at += rng.expovariate(places * CROWD / STAY_S)
        if at >= seconds:
            return visits
        stays = min(rng.expovariate(1 / STAY_S), LONGEST_S, seconds - at)
        [kind] = rng.choices(list(KINDS), list(KINDS.values()))
        visits.append(Visit(at, stays, kind, rng.randrange(2**31)))


def user_line(questions: list[np.ndarray], visit: Visit) -> np.ndarray:
    """What a user says, float32 [N]: questions in random order with pauses."""
    rng = random.Random(visit.seed)
    silence = np.zeros(
        round((INTERRUPTING_S if visit.kind == "interrupts" else PAUSE_S) * SAMPLE_RATE), np.float32
    )
    samples, pieces = round(visit.stays_s * SAMPLE_RATE), []
    while sum(map(len, pieces)) < samples:
        pieces += [rng.choice(questions), silence]
    return np.concatenate([*pieces, np.zeros(0, np.float32)])[:samples]


async def be(
    url: str, visit: Visit, questions: list[np.ndarray], seen: Counter, api_key: str | None = None
) -> None:
    """One user, from coming to leaving; what happened is counted in `seen`."""
    await asyncio.sleep(visit.at_s)
    try:
        session = await RemoteSession.open(url, seed=visit.seed, api_key=api_key)
    except ClientError as error:
        seen["refused" if "try again later" in str(error) else f"error: {error}"] += 1
        return
    seen[visit.kind] += 1
    listening = asyncio.create_task(_listen(session, seen), name="listen")
    line, begun = user_line(questions, visit), time.monotonic()
    ticks = len(line) // TICK_SAMPLES
    for number in range(ticks):
        await asyncio.sleep(max(0.0, begun + (number + 1) * TICK_S - time.monotonic()))
        await session.push(line[number * TICK_SAMPLES : (number + 1) * TICK_SAMPLES])
        await session.played(number * TICK_MS)
        if visit.kind == "returns" and number == ticks // 2:
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


def read(url: str, api_key: str | None = None) -> dict[str, float]:
    """The server's figures now. ClientError: it does not give them."""
    address = url.replace("ws", "http", 1).removesuffix(protocol.PATH) + "/metrics"
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        text = (
            urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=20)
            .read()
            .decode()
        )
    except (OSError, urllib.error.URLError) as error:
        raise ClientError(f"no figures come from {address} ({error})") from error
    samples = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    return {READ[sample.name]: sample.value for sample in samples if sample.name in READ}


async def quiet(url: str, api_key: str | None = None) -> dict[str, float]:
    """The figures when nobody is there any more, or after QUIET_S."""
    figures, until = await asyncio.to_thread(read, url, api_key), time.monotonic() + QUIET_S
    while figures["sessions"] and time.monotonic() < until:
        await asyncio.sleep(1)
        figures = await asyncio.to_thread(read, url, api_key)
    await asyncio.sleep(1)  # the last connections close
    return await asyncio.to_thread(read, url, api_key)


async def soak(
    url: str, minutes: float, questions: list[np.ndarray], seed: int = 0, api_key: str | None = None
) -> dict:
    """The figures of the three quiet moments, what users saw, and `faults`: sentences; none when all is well."""
    figures, seen = [await quiet(url, api_key)], Counter()
    for part, seconds in enumerate((60 * minutes * WARM_UP, 60 * minutes * (1 - WARM_UP))):
        print(
            f"{'warm-up' if part == 0 else 'soak'} of {seconds:.0f} s …",
            file=sys.stderr,
            flush=True,
        )
        visits = plan(seed + part, seconds, round(figures[0]["places"]))
        await asyncio.gather(*(be(url, visit, questions, seen, api_key) for visit in visits))
        figures.append(await quiet(url, api_key))
    moments = dict(zip(("start", "warm", "end"), figures, strict=True))
    return {
        "minutes": minutes,
        "seed": seed,
        **moments,
        "seen": dict(seen),
        "faults": faults(figures[1], figures[2], seen),
    }


def faults(warm: dict[str, float], end: dict[str, float], seen: Counter) -> list[str]:
    found = [f"{number} times {what}" for what, number in seen.items() if what.startswith("error")]
    if end["sessions"]:
        found.append(f"{end['sessions']:.0f} sessions are left over")
    if end["model_errors"]:
        found.append(f"the model failed {end['model_errors']:.0f} times")
    found += [
        f"{end[name]:.0f} {name.replace('_', ' ')} at the end, {warm[name]:.0f} after the warm-up"
        for name in ("threads", "tasks", "open_files")
        if end.get(name, 0) > warm.get(name, 0)
    ]
    grown = (end.get("resident_bytes", 0) - warm.get("resident_bytes", 0)) / 2**20
    if grown > GROWTH_MB:
        found.append(f"memory grew by {grown:.1f} MB after the warm-up; {GROWTH_MB:g} MB may be")
    return found


async def soak_here(
    agent, slots: int, minutes: float, questions: list[np.ndarray], seed: int = 0
) -> dict:
    """The same with a server in this process; users and server share its memory, threads and tasks."""
    from duplex.serving.server import address, bind, serving

    engine = Engine(agent, slots)
    await asyncio.to_thread(engine.start)
    try:
        async with serving(engine, bind("127.0.0.1", 0)) as server:
            return await soak(address(server), minutes, questions, seed)
    finally:
        await asyncio.to_thread(engine.stop)


def table(found: dict) -> str:
    rows = [("", "start", "warm", "end")]
    for name in sorted(found["end"]):
        values = [found[moment][name] for moment in rows[0][1:]]
        if name == "resident_bytes":
            rows.append(("resident_mb", *(f"{value / 2**20:.1f}" for value in values)))
        else:
            rows.append((name, *(f"{value:.0f}" for value in values)))
    lines = [f"{row[0]:<14}{row[1]:>10}{row[2]:>10}{row[3]:>10}" for row in rows]
    lines += [f"{number} {what}" for what, number in sorted(found["seen"].items())]
    return "\n".join(lines + [f"FAULT: {fault}" for fault in found["faults"]])


def run(args, load: Callable[[int], object], questions: list[np.ndarray]) -> bool:
    """The command -> whether all is well; leaves soak.json in the folder --out."""
    if args.url:
        url = args.url + (protocol.PATH if args.url.count("/") == 2 else "")
        found = asyncio.run(soak(url, args.soak, questions, args.seed, args.api_key))
    else:
        found = asyncio.run(soak_here(load(PLACES), PLACES, args.soak, questions, args.seed))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "soak.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))
    return not found["faults"]
