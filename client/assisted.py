"""Any session of a client in which a program helps: functions answer calls, events are told."""

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.client.event_file import TimedText
from duplex.client.tools import NOTICE, describe, run
from duplex.serving.commands import AgentCommand, Write


class AssistedSession:
    """Has all of the session that it helps."""

    def __init__(self, session, functions: Sequence[Callable], events: Sequence[TimedText]):
        self._session = session
        self._functions = functions
        self._events = sorted(events, key=lambda event: event.time_s)
        self._heard_s = 0.0
        self._running: set[asyncio.Task] = set()

    @classmethod
    async def open(
        cls,
        session,
        functions: Sequence[Callable] = (),
        events: Sequence[TimedText] = (),
        notice: str = NOTICE,
    ) -> "AssistedSession":
        """Offer the functions in a session that has begun. Raises ClientError."""
        if functions:
            await session.send(describe(functions, notice))
        return cls(session, functions, events)

    async def get(self) -> tuple[np.ndarray, list[dict]] | None:
        """As of the session; calls among the events begin to run."""
        tick = await self._session.get()
        for event in tick[1] if tick else []:
            if event["type"] == "tool":
                task = asyncio.create_task(self._answer(event))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        return tick

    async def push(self, samples: np.ndarray) -> None:
        """As of the session; the time goes by what the agent has heard."""
        await self._session.push(samples)
        self._heard_s += len(samples) / SAMPLE_RATE
        while self._events and self._events[0].time_s <= self._heard_s:
            await self._session.send(Write("event", self._events.pop(0).text))

    async def played(self, played_ms: int) -> None:
        """As of the session."""
        await self._session.played(played_ms)

    async def send(self, command: AgentCommand) -> None:
        """As of the session."""
        await self._session.send(command)

    async def close(self) -> None:
        """As of the session; what still runs is not waited for."""
        for task in self._running:
            task.cancel()
        await self._session.close()

    @property
    def is_cut(self) -> bool:
        """As of the session."""
        return getattr(self._session, "is_cut", False)

    @property
    def lost_ms(self) -> int:
        """As of the session."""
        return getattr(self._session, "lost_ms", 0)

    def drop(self) -> None:
        """As of the session."""
        self._session.drop()

    def stats(self) -> dict:
        """As of a session in this process."""
        return self._session.stats()

    async def _answer(self, event: dict) -> None:
        await self._session.send(await run(self._functions, event))
