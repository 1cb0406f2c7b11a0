"""Sessions within one process, with the same push, get and close as one over a websocket."""

import asyncio

import numpy as np

from duplex.agent_interface import AgentInterface
from duplex.audio import TICK_SAMPLES
from duplex.errors import ClientError
from duplex.serving.commands import AgentCommand, SetPlaybackPosition, Start, apply
from duplex.serving.engine import Engine
from duplex.serving.native import commands as native_commands
from duplex.serving.native import messages as native
from duplex.serving.session import ClientSession


class LocalSession:
    """A session of an engine in this process: in real time, on the engine's clock."""

    def __init__(self, engine: Engine, session: ClientSession):
        self._engine = engine
        self._session = session

    @classmethod
    async def open(cls, agent: AgentInterface, start: Start | None = None) -> "LocalSession":
        """Start an engine of its own for the agent. Raises ClientError."""
        engine = Engine(agent, slots=agent.slots)
        await asyncio.to_thread(engine.start)
        try:
            return cls(engine, await engine.open(start))
        except ValueError as error:
            await asyncio.to_thread(engine.stop)
            raise ClientError(f"the agent cannot begin: {error}") from error

    def stats(self) -> dict:
        """The engine's figures."""
        return self._engine.stats()

    async def push(self, samples: np.ndarray) -> None:
        """User audio, float32 [N]."""
        self._session.push(samples)

    async def played(self, played_ms: int) -> None:
        """Tell how much of the agent's voice the user has heard."""
        await self.send(SetPlaybackPosition(played_ms))

    async def send(self, command: AgentCommand) -> None:
        """What the user does beside speaking, within the bounds of the wire."""
        native_commands.encode_command(command)
        self._session.enqueue_command(command)

    async def get(self) -> tuple[np.ndarray, list[dict]] | None:
        """The next tick: audio [1920] and events; None when the session is over."""
        tick = await self._session.get()
        if tick is None:
            await asyncio.to_thread(self._engine.stop)
            return None
        audio, events = tick
        return audio, [native.event_fields(event) for event in events]

    async def close(self) -> None:
        """Ask for the end; `get` goes on until all has been said."""
        self._session.close()

    def drop(self) -> None:
        """Wait for nothing more."""
        self._engine.stop()


class LockstepSession:
    """The agent without a clock: a tick pushed gives a tick to get, as fast as the machine can."""

    def __init__(self, agent: AgentInterface, start: Start | None = None):
        self._agent = agent
        # User audio in whole ticks; None is the end.
        self._ticks: asyncio.Queue[np.ndarray | None] = asyncio.Queue()
        start = start or Start()
        agent.open(0, seed=start.seed or 0, instructions=start.instructions)
        for command in start.commands():
            try:
                apply(command, agent, 0)
            except ValueError as error:
                raise ClientError(f"the agent cannot begin: {error}") from error

    async def push(self, samples: np.ndarray) -> None:
        """User audio of one whole tick, float32 [1920]."""
        assert len(samples) == TICK_SAMPLES, (
            f"lockstep takes whole ticks, not {len(samples)} samples"
        )
        self._ticks.put_nowait(samples)

    async def send(self, command: AgentCommand) -> None:
        """What the user does beside speaking, before the next tick. Raises ClientError."""
        native_commands.encode_command(command)
        try:
            apply(command, self._agent, 0)
        except ValueError as error:
            raise ClientError(str(error)) from error

    async def played(self, played_ms: int) -> None:
        """Without a clock all that was given has been heard."""

    async def get(self) -> tuple[np.ndarray, list[dict]] | None:
        """The answer to the next tick that was pushed; None after the end."""
        heard = await self._ticks.get()
        if heard is None:
            self._agent.close(0)
            return None
        batch = heard[None].astype(np.float32)
        played, events = await asyncio.to_thread(self._agent.step, batch, [0])
        return played[0], [native.event_fields(event) for event in events[0]]

    async def close(self) -> None:
        """Ask for the end."""
        self._ticks.put_nowait(None)
