"""Sessions within one process, with the same push, get and close as one over a websocket (client/remote.py)."""

import asyncio

import numpy as np

from duplex import voices
from duplex.audio import TICK_SAMPLES
from duplex.serving.engine import Engine
from duplex.serving.native import event_fields
from duplex.serving.session import Session


class LocalSession:
    """A session of an engine in this process: in real time, on the engine's clock."""

    def __init__(self, engine: Engine, session: Session):
        self._engine = engine
        self._session = session

    @classmethod
    async def open(
        cls, agent, seed=None, instructions=None, voice=None, speed=None
    ) -> "LocalSession":
        engine = Engine(agent, slots=1)
        await asyncio.to_thread(engine.start)
        session = await engine.open(seed, instructions)
        if voice or speed:
            session.wish("set_voice", voice or voices.DEFAULT, speed or 1.0)
        return cls(engine, session)

    def stats(self) -> dict:
        return self._engine.stats()

    async def push(self, samples: np.ndarray) -> None:
        self._session.push(samples)

    async def played(self, played_ms: int) -> None:
        self._session.wish("set_playback_position", played_ms)

    async def get(self) -> tuple[np.ndarray, list[dict]] | None:
        tick = await self._session.get()
        if tick is None:
            await asyncio.to_thread(self._engine.stop)
            return None
        return tick[0], [event_fields(event) for event in tick[1]]

    async def close(self) -> None:
        self._session.close()


class LockstepSession:
    """The agent without any clock: each tick of audio pushed gives one tick to get, as fast as the machine can."""

    def __init__(self, agent, seed=None, instructions: str | None = None, voice=None, speed=None):
        self._agent = agent
        self._ticks: asyncio.Queue[np.ndarray | None] = asyncio.Queue()
        agent.open(0, seed=0 if seed is None else seed, instructions=instructions)
        if voice or speed:
            agent.set_voice(0, voice or voices.DEFAULT, speed or 1.0)

    async def push(self, samples: np.ndarray) -> None:
        assert len(samples) == TICK_SAMPLES, (
            f"lockstep takes whole ticks, not {len(samples)} samples"
        )
        self._ticks.put_nowait(samples)

    async def played(self, played_ms: int) -> None:
        """Without a clock all that was given has been heard."""

    async def get(self) -> tuple[np.ndarray, list[dict]] | None:
        heard = await self._ticks.get()
        if heard is None:
            self._agent.close(0)
            return None
        played, events = await asyncio.to_thread(
            self._agent.step, heard[None].astype(np.float32), [0]
        )
        return played[0], [event_fields(event) for event in events[0]]

    async def close(self) -> None:
        self._ticks.put_nowait(None)
