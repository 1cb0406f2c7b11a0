"""A call with an agent from Python: on a server, or in this process.

    async with connect("ws://localhost:8765", instructions="Your name is Rosie.") as call:
        await call.say(wave, rate)
        async for event in call:
            ...

Events come in the order in which they happened: `Voice`, a tick of what the agent says, and the
records of duplex.events, whose kinds the table in duplex/serving/native/messages.py explains.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np

from duplex.agent_interface import AgentInterface
from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.client.assisted import AssistedSession
from duplex.client.local import LocalSession
from duplex.client.remote import RemoteSession
from duplex.client.sound.samples import Wave, to_samples
from duplex.errors import ClientError
from duplex.events import Ended, Ending, Error, Event, Lag, ToolCall
from duplex.serving.commands import (
    AgentCommand,
    Answer,
    Configure,
    SetPlaybackPosition,
    Stop,
    Write,
)
from duplex.serving.native import commands as native_commands
from duplex.serving.native import messages as native
from duplex.serving.sound.sample_queue import SampleQueue


@dataclass(frozen=True)
class Voice:
    """A tick of the agent's voice, silence included: float32 [1920], 24 kHz."""

    samples: np.ndarray
    kind: str = "voice"


CallEvent = Voice | Event | ToolCall | Lag | Error | Ending | Ended


class Options(TypedDict, total=False):
    """How a call may begin, as in the table's session.start."""

    instructions: str
    seed: int
    temperature: float
    voice: str
    speed: float
    # Words that the user may well say.
    hints: Sequence[str]
    # Whom the agent heeds, and their voice: see the table's speaker.heed.
    heeds: str
    voice_print: str
    # Functions that the agent may have called, see tools.py: a large mind does.
    tools: Sequence[Callable]


@contextlib.asynccontextmanager
async def connect(
    target: str | AgentInterface, api_key: str | None = None, **options: Unpack[Options]
) -> AsyncIterator["Call"]:
    """Begin a call; it ends with the block.

    target: a server's URL, or an agent for this process, for example `load_agent(folder, slots=1)`
    of duplex.agent. A connection that breaks is taken up again, so far as the server has it.

    Raises ClientError where there is no call; ProtocolError where an option cannot be.
    """
    fields = dict(options)
    functions = fields.pop("tools", ())
    start = native_commands.to_start(fields)
    if isinstance(target, str):
        session = await RemoteSession.open(target, start, api_key)
    else:
        session = await LocalSession.open(target, start)
    if functions:
        session = await AssistedSession.open(session, functions)
    call = Call(session)
    try:
        yield call
    finally:
        await call.hang_up()


class Call:
    """A conversation that goes on: what the user says and does, and the events that come.

    The microphone is always on: where nothing is said the agent hears silence. Whatever the agent
    does meanwhile waits to be read; beyond `max_unread` events its oldest voice is lost.
    """

    def __init__(
        self, session: RemoteSession | LocalSession | AssistedSession, max_unread: int = 10_000
    ):
        self._session = session
        self._to_say = SampleQueue()
        # None stands for the end.
        self._arrived: asyncio.Queue[CallEvent | None] = asyncio.Queue(max_unread)
        self._is_over = False
        # Why, as the other side says it.
        self._why = ""
        self._beat = asyncio.Condition()
        self._sending = asyncio.create_task(self._send_ticks())
        self._receiving = asyncio.create_task(self._receive())

    def __aiter__(self) -> AsyncIterator[CallEvent]:
        return self

    async def __anext__(self) -> CallEvent:
        """The next event. Raises ClientError where the server or the agent has failed."""
        event = await self._arrived.get()
        if event is None:
            # Whoever asks again is told again.
            self._arrived.put_nowait(None)
            await self._receiving
            raise StopAsyncIteration
        if isinstance(event, Error) and event.code in ("lost", "model"):
            raise ClientError(event.text)
        return event

    async def say(self, wave: Wave, rate: int = SAMPLE_RATE) -> None:
        """Speak for the user, in real time, after what is being said; return when it is said.

        wave: floats in [-1, 1] or int16 [N], [N, channels] or [channels, N], as an array or a
        tensor, or bytes of PCM16; at `rate` samples a second. Cancelled, the user falls silent.

        Raises ClientError where the call is over, or where this is no sound.
        """
        self._to_say.push(to_samples(wave, rate))
        try:
            async with self._beat:
                await self._beat.wait_for(lambda: self._is_over or len(self._to_say) < TICK_SAMPLES)
        except asyncio.CancelledError:
            self._to_say.truncate(0)
            raise
        self._check_open()

    async def write(self, text: str, role: str = "user") -> None:
        """Put a text into the conversation, of the user or of the system."""
        await self.do(Write(role, text))

    async def stop(self) -> None:
        """Have the agent fall silent."""
        await self.do(Stop())

    async def answer(self) -> None:
        """Have the agent speak now."""
        await self.do(Answer())

    async def instruct(self, instructions: str) -> None:
        """Give the agent other instructions from now on."""
        await self.do(Configure(instructions))

    async def played(self, played_ms: int) -> None:
        """Tell how much of the agent's voice the user has heard since the call began.

        Without it the agent takes all that has come to be heard.
        """
        await self.do(SetPlaybackPosition(played_ms))

    async def do(self, command: AgentCommand) -> None:
        """Any other command of duplex.serving.commands that the table has a message for.

        Raises ClientError where the call is over, ProtocolError where that cannot be.
        """
        self._check_open()
        await self._session.send(command)

    async def hang_up(self, patience_s: float = 3.0) -> None:
        """End the call. patience_s: seconds that the other side has to say its last."""
        self._sending.cancel()
        await self._session.close()
        self._is_over = True
        # What nobody reads any more makes room for the end.
        while not self._arrived.empty():
            self._arrived.get_nowait()
        done, _ = await asyncio.wait([self._receiving], timeout=patience_s)
        if not done:
            self._receiving.cancel()
            self._session.drop()

    def _check_open(self) -> None:
        if self._is_over:
            why = f" ({self._why})" if self._why else ""
            raise ClientError(f"the call is over{why}; connect anew")

    async def _send_ticks(self, most_behind_s: float = 1.0) -> None:
        """The microphone: a tick of what is said, or of silence, every 80 ms.

        most_behind_s: where this process stood still for longer, what it missed is missed.
        """
        now = asyncio.get_running_loop().time
        due = now()
        waited = 0
        while True:
            await asyncio.sleep(max(0.0, due - now()))
            due = max(due, now() - most_behind_s) + TICK_S
            is_whole = len(self._to_say) >= TICK_SAMPLES
            is_growing = not is_whole and len(self._to_say) > waited
            if not is_growing:
                tick = self._to_say.take(TICK_SAMPLES)
                await self._session.push(np.pad(tick, (0, TICK_SAMPLES - len(tick))))
            # The rest of a sound waits for more of it, but not for two beats.
            waited = len(self._to_say)
            async with self._beat:
                self._beat.notify_all()

    async def _receive(self) -> None:
        try:
            while (tick := await self._session.get()) is not None:
                audio, events = tick
                found = [Voice(audio)] if len(audio) else []
                for event in found + [native.decode_event(fields) for fields in events]:
                    if isinstance(event, Ended | Error):
                        self._why = event.text
                    if not self._is_over:
                        await self._arrived.put(event)
        finally:
            self._is_over = True
            async with self._beat:
                self._beat.notify_all()
            if self._arrived.full():
                self._arrived.get_nowait()
            self._arrived.put_nowait(None)
