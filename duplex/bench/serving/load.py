"""How many conversations at once: simulated users in real time, more at every step of a ramp.

Each user asks the scenes' questions. A session is held when its audio comes on the beat: lateness
is how much later a tick arrives than the beat of the session's own first second has it, so no
common clock is needed, and anything that grows counts. While its 99th percentile is below one tick,
a player that buffers one tick does not stop.
"""

import asyncio
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from duplex.audio import AUDIBLE, SAMPLE_RATE, TICK_S, TICKS_PER_SECOND
from duplex.bench.play import EngineUser, push_line
from duplex.bench.serving.latency import spread
from duplex.client.remote import RemoteSession
from duplex.errors import ClientError
from duplex.serving.commands import Start
from duplex.serving.engine import Engine

# A session's first second gives its beat.
FIRST_TICKS = round(TICKS_PER_SECOND)


@dataclass(frozen=True)
class Ramp:
    """How the load is raised, and what a session is held by."""

    users: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16)  # of each step
    level_s: float = 24.0  # that a step lasts
    pause_s: float = 5.0  # for which a user waits for an answer
    max_late_s: float = TICK_S  # that 99 % of the ticks of a session that is held are late


@dataclass
class Talk:
    """What came of one user's talk; times are those of one clock."""

    arrivals: list[float]  # of each tick of the agent
    ticks: list[np.ndarray]  # float32 [1920] each
    begun: float  # when the user's channel began


def lateness(arrivals: list[float]) -> np.ndarray:
    """Seconds each tick after the first FIRST_TICKS came after its place on the beat.

    The earliest of the first ticks set the beat. They are not judged themselves: those that were
    made before the user listened all come at once.
    """
    off_beat = np.array(arrivals) - np.arange(len(arrivals)) * TICK_S
    return off_beat[FIRST_TICKS:] - off_beat[:FIRST_TICKS].min(initial=np.inf)


def user_line(questions: list[np.ndarray], user: int, ramp: Ramp) -> tuple[np.ndarray, list[float]]:
    """One user's channel during a step, float32 [N], and when each question in it ends.

    Each user begins at another time, with another question.
    """
    line = np.zeros(round(ramp.level_s * SAMPLE_RATE), np.float32)
    ends_s = []
    at = round((1.0 + 0.7 * user % ramp.pause_s) * SAMPLE_RATE)
    number = user
    while at + len(questions[number % len(questions)]) + ramp.pause_s * SAMPLE_RATE / 2 < len(line):
        question = questions[number % len(questions)]
        line[at : at + len(question)] = question
        ends_s.append((at + len(question)) / SAMPLE_RATE)
        at += len(question) + round(ramp.pause_s * SAMPLE_RATE)
        number += 1
    return line, ends_s


async def talk(session, line: np.ndarray, now: Callable[[], float] = time.monotonic) -> Talk:
    """Push a line, float32 [N], in real time, and listen meanwhile."""
    found = Talk([], [], 0.0)

    async def listen() -> None:
        while (message := await session.get()) is not None:
            if len(message[0]):
                found.arrivals.append(now())
                found.ticks.append(message[0])

    listening = asyncio.create_task(listen(), name="listen")
    found.begun = now()
    async for _ in push_line(session, line, found.begun, now):
        pass
    await session.close()
    await listening
    return found


def first_audio(talk: Talk, ends_s: list[float], pause_s: float = Ramp.pause_s) -> list[float]:
    """Seconds from each question's end to the arrival of the first audible tick after it.

    Questions that are not answered within pause_s are left out.
    """
    audible = [
        time_s - talk.begun
        for time_s, tick in zip(talk.arrivals, talk.ticks, strict=True)
        if np.abs(tick).max(initial=0.0) > AUDIBLE
    ]
    delays = []
    for end_s in ends_s:
        delays += [time_s - end_s for time_s in audible if end_s <= time_s < end_s + pause_s][:1]
    return delays


def judge(talks: list[Talk], ends_s: list[list[float]], ramp: Ramp) -> dict:
    """One step of the ramp: how many sessions were held, and the figures over all of them."""
    late = [lateness(talk.arrivals) for talk in talks]
    delays = [
        delay
        for talk, ends in zip(talks, ends_s, strict=True)
        for delay in first_audio(talk, ends, ramp.pause_s)
    ]
    held = [len(one) > 0 and float(np.percentile(one, 99)) < ramp.max_late_s for one in late]
    return {
        "users": len(talks),
        "held": sum(held),
        "lateness": spread(np.concatenate(late).tolist()) if late else None,
        "first_sample": spread(delays),
        "asked": sum(len(ends) for ends in ends_s),
    }


async def level(sessions: list, questions: list[np.ndarray], ramp: Ramp) -> dict:
    """One step of the ramp, with a user for each session."""
    lines = [user_line(questions, user, ramp) for user in range(len(sessions))]
    talks = await asyncio.gather(
        *(talk(session, line) for session, (line, _) in zip(sessions, lines, strict=True))
    )
    return judge(talks, [ends_s for _, ends_s in lines], ramp)


async def measure(load: Callable[[int], object], questions: list[np.ndarray], ramp: Ramp) -> dict:
    """The part `load` of the report, of agents in this process: load(slots) makes one.

    Goes on until a step is not held by all. Memory is that of this process.
    """
    levels = []
    for users in ramp.users:
        agent = await asyncio.to_thread(load, users)
        engine = Engine(agent, users)
        await asyncio.to_thread(engine.start)
        sessions = [EngineUser(await engine.open(Start(seed=seed))) for seed in range(users)]
        figures = await level(sessions, questions, ramp)
        levels.append({**figures, "resident_mb": resident_mb()})
        await asyncio.to_thread(engine.stop)
        del agent, engine, sessions
        gc.collect()
        if levels[-1]["held"] < users:
            break
    return _result(levels)


async def measure_remote(
    url: str, questions: list[np.ndarray], ramp: Ramp, api_key: str | None = None
) -> dict:
    """The same of a server, until a step is not held by all or the server is full."""
    levels = []
    full = None
    for users in ramp.users:
        sessions = []
        try:
            for seed in range(users):
                sessions.append(await RemoteSession.open(url, Start(seed=seed), api_key))
        except ClientError as error:
            if not levels:
                raise
            full = str(error)
            for session in sessions:
                await session.close()
            break
        levels.append(await level(sessions, questions, ramp))
        if levels[-1]["held"] < users:
            break
    return {**_result(levels), "full": full}


def _result(levels: list[dict]) -> dict:
    first = levels[0]
    last = levels[-1]
    per_session = None
    if "resident_mb" in last and len(levels) > 1:
        grown = last["resident_mb"] - first["resident_mb"]
        per_session = round(grown / (last["users"] - first["users"]), 1)
    held = max((one["users"] for one in levels if one["held"] == one["users"]), default=0)
    return {"held": held, "memory_per_session_mb": per_session, "levels": levels}


def resident_mb() -> float | None:
    """Resident memory of this process; None where the system does not tell."""
    try:
        pages = int(open("/proc/self/statm").read().split()[1])
    except OSError:
        return None
    import resource

    return round(pages * resource.getpagesize() / 2**20, 1)
