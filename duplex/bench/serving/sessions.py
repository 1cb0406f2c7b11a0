"""How soon answers begin when several people talk at once: 1, 2, 4 and 8 sessions, by turns.

    duplex bench latency --sessions 1,2,4,8

One run, in real time, rounds of every number of sessions one after the other, so that whatever else
the machine does falls on all of them. Each user joins when the others are there, asks the scenes'
questions at times of its own, and is answered after so many seconds from the last word to the first
sample. Beside the times stand counts: what waits to be heard, ticks that came late, and turns that
the second pass had no time for. Leaves sessions.json in the folder --out.
"""

import argparse
import asyncio
import json
from collections.abc import Callable

import numpy as np

from duplex.bench.play import EngineUser
from duplex.bench.serving.latency import spread
from duplex.bench.serving.load import Ramp, first_audio, lateness, talk, user_line
from duplex.errors import BenchError
from duplex.serving.commands import Start
from duplex.serving.engine import Engine


def parse(text: str) -> list[int]:
    """ "1,2,4" -> the numbers of sessions. Raises BenchError."""
    numbers = [int(one) if one.strip().isdigit() else 0 for one in text.split(",")]
    if not all(0 < number <= 64 for number in numbers):
        raise BenchError(f"--sessions {text}: numbers from 1 to 64 with commas, such as 1,2,4,8")
    return numbers


def run(
    args: argparse.Namespace,
    load: Callable[[int], object],
    questions: list[np.ndarray],
    ramp: Ramp | None = None,
) -> None:
    """The command, where load(slots) makes the agent: measures, prints and writes."""
    sizes = parse(args.sessions)
    largest = load(max(sizes))
    agents = {size: largest.with_slots(size) for size in sizes}
    found = asyncio.run(measure(agents, questions, ramp or Ramp()))
    path = args.out / "sessions.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))


async def measure(
    agents: dict[int, object], questions: list[np.ndarray], ramp: Ramp, rounds: int = 3
) -> dict[int, dict]:
    """The figures of each number of sessions over all rounds; agents by their slots."""
    seen: dict[int, list[dict]] = {size: [] for size in agents}
    for number in range(rounds):
        for size, agent in agents.items():
            users = range(number * size, (number + 1) * size)
            seen[size].append(await measure_once(agent, users, questions, ramp))
    return {size: summary(found) for size, found in seen.items()}


async def measure_once(agent, users: range, questions: list[np.ndarray], ramp: Ramp) -> dict:
    """One round of as many sessions as there are users, each of whom has another line."""
    engine = Engine(agent, len(users))
    await asyncio.to_thread(engine.start)
    before = agent.metrics().get("readings_refused", 0)
    lines = [user_line(questions, user, ramp) for user in users]
    sessions = [await engine.open(Start(seed=user)) for user in users]
    talking = [
        talk(EngineUser(session), line) for session, (line, _) in zip(sessions, lines, strict=True)
    ]
    waiting = asyncio.create_task(least_waiting(sessions, ramp.level_s / 2), name="waiting")
    talks = await asyncio.gather(*talking)
    stats = engine.stats()
    await asyncio.to_thread(engine.stop)
    pairs = list(zip(talks, (ends for _, ends in lines), strict=True))
    return {
        "delays": [first_audio(one, ends, ramp.pause_s) for one, ends in pairs],
        "asked": sum(len(ends) for _, ends in pairs),
        "late": np.concatenate([lateness(one.arrivals) for one in talks]).tolist(),
        "late_ticks": stats["late_ticks"],
        "ticks": stats["ticks"],
        "waiting_ms": await waiting,
        "refused": agent.metrics().get("readings_refused", 0) - before,
    }


async def least_waiting(sessions: list, after_s: float, looks: int = 20) -> list[int]:
    """Milliseconds of each user's audio that always wait to be heard, from `after_s` on."""
    await asyncio.sleep(after_s)
    least = [session.input.waiting_ms for session in sessions]
    for _ in range(looks):
        await asyncio.sleep(0.013)
        now = [session.input.waiting_ms for session in sessions]
        least = [min(pair) for pair in zip(least, now, strict=True)]
    return least


def summary(rounds: list[dict]) -> dict:
    """The figures of all rounds of one number of sessions."""
    by_user = [user for one in rounds for user in one["delays"]]
    delays = [delay for user in by_user for delay in user]
    slowest = max((float(np.median(user)) for user in by_user if user), default=None)
    return {
        "first_sample": spread(delays),
        "slowest_user_s": slowest,
        "asked": sum(one["asked"] for one in rounds),
        "lateness": spread([late for one in rounds for late in one["late"]]),
        "late_ticks": [sum(one[name] for one in rounds) for name in ("late_ticks", "ticks")],
        "always_waiting_ms": [one["waiting_ms"] for one in rounds],
        "readings_refused": sum(one["refused"] for one in rounds),
    }


def table(found: dict[int, dict]) -> str:
    """The figures for people."""
    lines = [
        "sessions  answered   first sample p50, p95, slowest user's  late ticks  not read twice"
    ]
    for size, one in found.items():
        first = one["first_sample"] or {"count": 0, "p50": 0.0, "p95": 0.0}
        late, ticks = one["late_ticks"]
        slowest = one["slowest_user_s"] or 0.0
        lines.append(
            f"{size:8}  {first['count']:3} of {one['asked']:3}  "
            f"{first['p50'] / 1000:5.2f} {first['p95'] / 1000:5.2f} {slowest:5.2f} s"
            f"{late:18} of {ticks:5}  {one['readings_refused']:6}"
        )
    return "\n".join(lines)
