"""How many conversations at once: simulated users in real time, more at every step of a ramp, each asking the scenes' questions.

A session is held when its audio comes on the beat: lateness is how much later a tick arrives than the beat of the session's own
first second has it, so no common clock is needed, and anything that grows counts. While its p99 is below one tick, a player that
buffers one tick does not stop.
"""

import asyncio
import gc
import time
from collections.abc import Callable

import numpy as np

from duplex.audio import AUDIBLE, SAMPLE_RATE, TICK_S, TICK_SAMPLES, TICKS_PER_SECOND
from duplex.bench.latency import spread
from duplex.client.remote import RemoteSession
from duplex.errors import ClientError
from duplex.serving.engine import Engine

RAMP = (1, 2, 3, 4, 6, 8, 12, 16)
LEVEL_S = 24.0  # of every step of the ramp
FIRST_TICKS = round(TICKS_PER_SECOND)  # a session's first second gives its beat
PAUSE_S = 5.0  # of a user, for the answer


def lateness(arrivals: list[float]) -> np.ndarray:
    """Seconds each tick after the first FIRST_TICKS came after its place on the beat, which the earliest of those sets.

    They are not judged themselves: those that were made before the user listened all come at once.
    """
    off_beat = np.array(arrivals) - np.arange(len(arrivals)) * TICK_S
    return off_beat[FIRST_TICKS:] - off_beat[:FIRST_TICKS].min(initial=np.inf)


def user_line(questions: list[np.ndarray], user: int) -> tuple[np.ndarray, list[float]]:
    """LEVEL_S of one user's channel, float32 [N], and when each question in it ends. Each user begins at another time, with
    another question."""
    line, ends = np.zeros(round(LEVEL_S * SAMPLE_RATE), np.float32), []
    at = round((1.0 + 0.7 * user % PAUSE_S) * SAMPLE_RATE)
    number = user
    while at + len(questions[number % len(questions)]) + PAUSE_S * SAMPLE_RATE / 2 < len(line):
        question = questions[number % len(questions)]
        line[at : at + len(question)] = question
        ends.append((at + len(question)) / SAMPLE_RATE)
        at += len(question) + round(PAUSE_S * SAMPLE_RATE)
        number += 1
    return line, ends


async def talk(
    session, line: np.ndarray, now: Callable[[], float] = time.monotonic
) -> tuple[list[float], list[np.ndarray], float]:
    """Sends the line in real time -> when each tick of the agent came, the ticks, and when the line began."""
    arrivals, ticks = [], []

    async def listen() -> None:
        while (message := await session.get()) is not None:
            if len(message[0]):
                arrivals.append(now())
                ticks.append(message[0])

    listening = asyncio.create_task(listen(), name="listen")
    begun = now()
    for number in range(len(line) // TICK_SAMPLES):
        await asyncio.sleep(max(0.0, begun + (number + 1) * TICK_S - now()))
        await session.push(line[number * TICK_SAMPLES : (number + 1) * TICK_SAMPLES])
    await session.close()
    await listening
    return arrivals, ticks, begun


def first_audio(
    arrivals: list[float], ticks: list[np.ndarray], begun: float, ends: list[float]
) -> list[float]:
    """Seconds from the end of each question to the arrival of the first audible tick after it; unanswered ones are left out."""
    audible = [
        t - begun
        for t, tick in zip(arrivals, ticks, strict=True)
        if np.abs(tick).max(initial=0.0) > AUDIBLE
    ]
    found = [next((t - end for t in audible if end <= t < end + PAUSE_S), None) for end in ends]
    return [seconds for seconds in found if seconds is not None]


def judge(
    results: list[tuple[list[float], list[np.ndarray], float]], ends: list[list[float]]
) -> dict:
    """One step of the ramp: how many sessions were held, and the figures over all of them."""
    late = [lateness(arrivals) for arrivals, _, _ in results]
    answers = [
        s for (a, t, b), e in zip(results, ends, strict=True) for s in first_audio(a, t, b, e)
    ]
    return {
        "users": len(results),
        "held": sum(len(one) > 0 and float(np.percentile(one, 99)) < TICK_S for one in late),
        "lateness": spread(np.concatenate(late).tolist()) if late else None,
        "first_sample": spread(answers),
        "asked": sum(len(e) for e in ends),
    }


async def level(sessions: list, questions: list[np.ndarray]) -> dict:
    lines = [user_line(questions, user) for user in range(len(sessions))]
    results = await asyncio.gather(
        *(talk(s, line) for s, (line, _) in zip(sessions, lines, strict=True))
    )
    return judge(results, [ends for _, ends in lines])


async def ramp(
    load: Callable[[int], object], questions: list[np.ndarray], most: int = RAMP[-1]
) -> dict:
    """`load(slots)` makes the agent. Goes on until a step is not held by all; memory is that of this process."""
    levels = []
    for users in [n for n in RAMP if n <= most]:
        agent = await asyncio.to_thread(load, users)
        engine = Engine(agent, users)
        await asyncio.to_thread(engine.start)
        sessions = [EngineUser(await engine.open(seed)) for seed in range(users)]
        levels.append({**await level(sessions, questions), "resident_mb": resident_mb()})
        await asyncio.to_thread(engine.stop)
        del agent, engine, sessions
        gc.collect()
        if levels[-1]["held"] < users:
            break
    return _result(levels)


async def ramp_remote(
    url: str, questions: list[np.ndarray], most: int = RAMP[-1], api_key: str | None = None
) -> dict:
    """Goes on until a step is not held by all, or the server is full."""
    levels, full = [], None
    for users in [n for n in RAMP if n <= most]:
        sessions = []
        try:
            for seed in range(users):
                sessions.append(await RemoteSession.open(url, seed=seed, api_key=api_key))
        except ClientError as error:
            if not levels:
                raise
            full = str(error)
            for session in sessions:
                await session.close()
            break
        levels.append(await level(sessions, questions))
        if levels[-1]["held"] < users:
            break
    return {**_result(levels), "full": full}


class EngineUser:
    """One of several sessions of an engine, as `talk` wants it: its end is not the engine's."""

    def __init__(self, session):
        self._session = session
        self.get = session.get

    async def push(self, samples: np.ndarray) -> None:
        self._session.push(samples)

    async def close(self) -> None:
        self._session.close()


def _result(levels: list[dict]) -> dict:
    first, last = levels[0], levels[-1]
    per_session = None
    if "resident_mb" in last and len(levels) > 1:
        per_session = round(
            (last["resident_mb"] - first["resident_mb"]) / (last["users"] - first["users"]), 1
        )
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
