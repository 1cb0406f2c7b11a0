"""Plays one scene to one agent, here or behind a url: what was heard, and what happened."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from duplex.audio import TICK_S, TICK_SAMPLES
from duplex.bench.fdb import Segment
from duplex.bench.recognizer import Heard
from duplex.bench.scenes import Annotation, Player, Scene
from duplex.bench.score import ScoredScene
from duplex.bench.serving.remote import open_session
from duplex.client.local import LockstepSession
from duplex.client.recorded import Lockstep, RealTime, converse
from duplex.client.recording import Recording
from duplex.client.terminal.display import Display
from duplex.errors import ClientError
from duplex.serving.commands import Start


@dataclass
class Played:
    """A scene that was played: where its pieces lie, and both channels with all events."""

    annotations: list[Annotation]
    recording: Recording

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.recording.seconds

    def channel(self, which: str) -> np.ndarray:
        """float32 [N] of the "user" or the "agent"."""
        stereo = self.recording.stereo()
        return stereo[:, ("user", "agent").index(which)].astype(np.float32) / 32768.0

    def times(self, kind: str) -> list[float]:
        """When events of a kind came, in seconds."""
        return [event["time_s"] for event in self.recording.events if event["type"] == kind]

    def scored(self, kind: str, heard: Heard, human: list[Segment] | None = None) -> ScoredScene:
        """What scoring needs of it, with the agent's channel as a recogniser heard it."""
        return ScoredScene(
            kind,
            self.annotations,
            heard,
            self.seconds,
            ended_s=self.times("agent_ended"),
            stopped_s=self.times("agent_stopped"),
            human=human,
        )


async def play(session, scene: Scene, pace: Lockstep | RealTime) -> Played:
    """Play a scene to an open session. Raises ClientError when the session breaks."""
    player = Player(scene)
    recording = await converse(session, player, pace, Display(io.StringIO()))
    for event in recording.events:
        if event["type"] == "error":
            raise ClientError(f"scene {scene.name} ended early: {event['text']}")
    return Played(player.annotations, recording)


async def play_fast(agent, scene: Scene, seed: int) -> Played:
    """As fast as the agent can, without a clock."""
    return await play(LockstepSession(agent, Start(seed=seed)), scene, Lockstep())


async def play_remote(
    url: str, scene: Scene, seed: int, dialect: str = "duplex", api_key: str | None = None
) -> Played:
    """To a server, in real time. Raises ClientError."""
    return await play(await open_session(url, dialect, seed, api_key), scene, RealTime())


class EngineUser:
    """One of several sessions of an engine in this process; its end is not the engine's."""

    def __init__(self, session):
        self._session = session
        self.get = session.get

    @property
    def dropped_ms(self) -> int:
        """Audio that the engine threw away because too much of it waited."""
        return self._session.input.dropped_ms

    async def push(self, samples: np.ndarray) -> None:
        """User audio, float32 [N]."""
        self._session.push(samples)

    async def close(self) -> None:
        """Ends the session."""
        self._session.close()


async def push_line(
    session,
    line: np.ndarray,
    begun: float,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable] = asyncio.sleep,
) -> AsyncIterator[int]:
    """Push line, float32 [N], in real time since `begun`; yields each tick's number, once pushed.

    As from a microphone, a tick is pushed when it is over. What is left of a tick is not pushed.
    """
    for number in range(len(line) // TICK_SAMPLES):
        await sleep(max(0.0, begun + (number + 1) * TICK_S - now()))
        await session.push(line[number * TICK_SAMPLES : (number + 1) * TICK_SAMPLES])
        yield number
