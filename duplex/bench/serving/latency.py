"""How long an agent takes: from the end of speech to its first sample, and to fall silent.

Also where a tick's time goes. All is on the wall's clock, so it differs from run to run. First
samples and silences are those of the recording, as a listener in the room would have them.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np

from duplex.audio import AUDIBLE, SAMPLE_RATE
from duplex.bench.play import Played, play, play_remote
from duplex.bench.recognizer import Heard
from duplex.bench.scenes import Scene
from duplex.bench.score import ScoredScene, is_over_anyway, speaking, turn_latency
from duplex.bench.serving.remote import address
from duplex.client.local import LocalSession
from duplex.client.recorded import RealTime
from duplex.serving.commands import Start


def spread(seconds: list[float], bins: int = 20) -> dict | None:
    """Count, percentiles and histogram of times, in milliseconds; None of nothing."""
    if not seconds:
        return None
    values = np.array(seconds) * 1000
    counts, edges = np.histogram(values, bins)
    percentiles = np.percentile(values, [50, 95, 99, 100]).round(1).tolist()
    return {
        "count": len(values),
        **dict(zip(("p50", "p95", "p99", "max"), percentiles, strict=True)),
        "edges": edges.round(1).tolist(),
        "counts": counts.tolist(),
    }


def sounding(wave: np.ndarray, max_gap_s: float = 0.3) -> list[tuple[float, float]]:
    """Where a channel, float32 [N], is audible, in seconds: segments more than max_gap_s apart.

    Exact to the sample; a voice activity detector would blur the edges.
    """
    loud = np.flatnonzero(np.abs(wave) > AUDIBLE) / SAMPLE_RATE
    if not len(loud):
        return []
    breaks = np.flatnonzero(np.diff(loud) > max_gap_s)
    return list(zip([loud[0], *loud[breaks + 1]], [*loud[breaks], loud[-1]], strict=True))


def reaction(scored: ScoredScene) -> tuple[str, float] | None:
    """("first_sample", s) or ("silence", s); None where it did not answer, or did not yield."""
    if scored.kind == "turn":
        question = next(one for one in scored.annotations if one.role == "question")
        latency = turn_latency(scored.heard, question.start_s, question.end_s)
        return None if latency is None else ("first_sample", latency)
    interruption = next(one for one in scored.annotations if one.role == "interruption")
    spoken = speaking(scored.heard, interruption.start_s)
    if spoken is None or is_over_anyway(scored, interruption, spoken[1]):
        return None
    return "silence", spoken[1] - interruption.start_s


def stages(agent) -> list[tuple[object, str, str]]:
    """(owner, function, stage) of the parts of a duplex.agent.Agent; none of any other agent."""
    from duplex.agent import Agent

    if not isinstance(agent, Agent):
        return []
    parts = agent.parts
    return [
        (agent.recognition, "features", "features"),
        (parts.encoder, "step", "encoder"),
        (agent.context, "forward", "LM"),
        (parts.lm, "project", "LM"),
        (parts.lm, "logits", "LM"),
        (agent.response.synthesizer, "plan_tick", "talker"),
        (agent.response.synthesizer, "sample", "talker"),
        (parts.codec, "decode_step", "codec"),
    ]


@contextlib.contextmanager
def timed(agent, parts: list[tuple[object, str, str]]) -> Iterator[list[dict[str, float]]]:
    """While open, every step of the agent adds to the list what it took, in seconds.

    The whole step is "tick", and each of the `parts` (see `stages`) is under its stage.
    """
    ticks: list[dict[str, float]] = []
    now: dict[str, float] = {}
    replaced = []

    def wrap(owner, name: str, stage: str) -> None:
        function = getattr(owner, name)

        def measured(*args, **options):
            begun = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                now[stage] = now.get(stage, 0.0) + time.perf_counter() - begun
                if stage == "tick":
                    ticks.append(dict(now))
                    now.clear()

        replaced.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, measured)

    for part in [*parts, (agent, "step", "tick")]:
        wrap(*part)
    try:
        yield ticks
    finally:
        for owner, name, before in reversed(replaced):
            delattr(owner, name) if before is None else setattr(owner, name, before)


async def measure(agent, scenes: list[Scene], seed: int) -> dict:
    """Latencies of an agent in this process, in real time on the engine's clock."""
    scored = []
    stats = None
    with timed(agent, stages(agent)) as ticks:
        for number, scene in enumerate(probes(scenes)):
            session = await LocalSession.open(agent, Start(seed=seed + number))
            scored.append(_scored(await play(session, scene, RealTime()), scene.kind))
            stats = session.stats()
    names = sorted({name for tick in ticks for name in tick}, key=lambda name: name == "tick")
    per_tick = {name: spread([tick[name] for tick in ticks if name in tick]) for name in names}
    # A cascade times the stages of each of its answers itself.
    answers = getattr(agent, "stage_seconds", [])
    per_answer = {
        name: spread([answer[name] for answer in answers if name in answer])
        for name in ("recogniser", "LM", "voice")
        if answers
    }
    return {**_reactions(scored), "per_tick": per_tick, "per_answer": per_answer, "engine": stats}


async def measure_remote(
    url: str, scenes: list[Scene], seed: int, dialect: str = "duplex", api_key: str | None = None
) -> dict:
    """The same of a server; what happens in it is what its /v1/stats tells, where it has that."""
    scored = []
    for number, scene in enumerate(probes(scenes)):
        played = await play_remote(url, scene, seed + number, dialect, api_key)
        scored.append(_scored(played, scene.kind))
    stats = await asyncio.to_thread(server_stats, url)
    per_tick = {}
    if dialect == "duplex":  # elsewhere a connection is a session, and there may be no second one
        per_tick["wire, there and back"] = spread(await pings(url, api_key))
    return {**_reactions(scored), "per_tick": per_tick, "per_answer": {}, "engine": stats}


def probes(scenes: list[Scene]) -> list[Scene]:
    """The scenes whose latencies are measured."""
    return [scene for scene in scenes if scene.kind in ("turn", "interruption")]


def _scored(played: Played, kind: str) -> ScoredScene:
    return played.scored(kind, Heard(sounding(played.channel("agent"))))


def _reactions(scored: list[ScoredScene]) -> dict:
    found = [reaction(one) for one in scored]
    return {
        "asked": sum(one.kind == "turn" for one in scored),
        "interrupted": sum(one.kind == "interruption" for one in scored),
        "first_sample": spread([one[1] for one in found if one and one[0] == "first_sample"]),
        "silence": spread([one[1] for one in found if one and one[0] == "silence"]),
    }


async def pings(url: str, api_key: str | None = None, count: int = 20) -> list[float]:
    """Seconds a websocket ping takes there and back, on a connection without a session."""
    from websockets.asyncio.client import connect

    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    async with connect(address(url, "duplex"), additional_headers=headers) as connection:
        return [await (await connection.ping()) for _ in range(count)]


def server_stats(url: str) -> dict | None:
    """What a duplex server says of itself; None from any other."""
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    try:
        with urlopen(f"{scheme}://{parts.netloc}/v1/stats", timeout=10) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None
