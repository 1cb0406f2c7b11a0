"""Plays one scene to one agent, here or behind a url, and hands back what was heard and what happened."""

import io
from dataclasses import dataclass

import numpy as np

from duplex.bench.remote import open_session
from duplex.bench.scenes import Annotation, Player, Scene
from duplex.bench.score import ScoredScene
from duplex.client.display import Display
from duplex.client.local import LockstepSession
from duplex.client.recording import Recording
from duplex.client.wav import Lockstep, RealTime, converse
from duplex.errors import ClientError


@dataclass
class Played:
    annotations: list[Annotation]
    recording: Recording

    @property
    def seconds(self) -> float:
        return self.recording.seconds

    def channel(self, which: str) -> np.ndarray:
        """float32 [N] of the "user" or the "agent"."""
        return (
            self.recording.stereo()[:, ("user", "agent").index(which)].astype(np.float32) / 32768.0
        )

    def times(self, kind: str) -> list[float]:
        return [event["time_s"] for event in self.recording.events if event["type"] == kind]

    def scored(self, kind: str, heard, human=None) -> ScoredScene:
        ended, stopped = self.times("agent_ended"), self.times("agent_stopped")
        return ScoredScene(kind, self.annotations, heard, self.seconds, ended, stopped, human)


async def play(session, scene: Scene, pace: Lockstep | RealTime) -> Played:
    """Raises ClientError when the session breaks."""
    player = Player(scene)
    recording = await converse(session, player, pace, Display(io.StringIO()))
    for event in recording.events:
        if event["type"] == "error":
            raise ClientError(f"scene {scene.name} ended early: {event['text']}")
    return Played(player.annotations, recording)


async def play_fast(agent, scene: Scene, seed: int) -> Played:
    """As fast as the agent can, without a clock."""
    return await play(LockstepSession(agent, seed), scene, Lockstep())


async def play_remote(
    url: str, scene: Scene, seed: int, dialect: str = "duplex", api_key: str | None = None
) -> Played:
    """In real time."""
    return await play(await open_session(url, dialect, seed, api_key), scene, RealTime())
