"""A conversation with recorded questions instead of a microphone.

The loudspeaker is simulated on the same beat as the microphone, through the same Playback as a real
one, so the recording has what a listener in the room would have heard, gaps and delays included.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from duplex.audio import AUDIBLE, TICK_S, TICK_SAMPLES
from duplex.client.recording import Recording
from duplex.client.sound.jitter_buffer import BLOCK_SAMPLES, Playback
from duplex.client.sound.sound_file import Question
from duplex.client.terminal.display import Display


class UserScript(Protocol):
    """Who speaks for the user, tick by tick. Times are seconds of the conversation."""

    def notice(self, event: dict, now_s: float) -> None:
        """An event of the session."""

    def notice_sound(self, samples: np.ndarray, now_s: float) -> None:
        """What the loudspeaker played, [1920], in the tick that began then."""

    def next_tick(self, now_s: float) -> tuple[np.ndarray, Question | None] | None:
        """Samples [1920] of the tick that begins now, and the question that begins with it.

        Returns None when the user has finished.
        """


@dataclass(frozen=True)
class Pauses:
    """How long a script waits."""

    # Seconds of silence before the first question.
    lead_in_s: float = 1.0
    # Seconds between the end of an answer and the next question.
    after_answer_s: float = 1.0
    # Seconds without an answer after which the next question is asked anyway.
    no_answer_s: float = 6.0
    # Seconds after which it is asked although the agent still speaks.
    longest_answer_s: float = 30.0


class Script:
    """Asks questions one after the other: each follows the answer to the one before, or silence.

    gap_s: if given, each follows so long after the one before, whether the agent talks or not.
    """

    def __init__(
        self, questions: list[Question], gap_s: float | None = None, pauses: Pauses | None = None
    ):
        self.questions = questions
        self.gap_s = gap_s
        self.pauses = pauses or Pauses()
        # The question being asked or answered, how far it is played, and when it began.
        self._number = -1
        self._position = 0
        self._asked_at = 0.0
        # Whether the agent's turn is open, and when its last one ended.
        self._answering = False
        self._answer_ended_at: float | None = None
        # When the agent was last audible, and how long since the question was over.
        self._sound_at = 0.0
        self._heard_s = 0.0

    def notice(self, event: dict, now_s: float) -> None:
        """See UserScript."""
        if event["type"] == "agent_started":
            self._answering = True
            self._answer_ended_at = None
        elif event["type"] in ("agent_ended", "agent_stopped"):
            self._answering = False
            self._answer_ended_at = now_s

    def notice_sound(self, samples: np.ndarray, now_s: float) -> None:
        """See UserScript."""
        if np.abs(samples).max(initial=0.0) > AUDIBLE:
            self._sound_at = now_s
            if self._number >= 0 and self._position >= len(self.questions[self._number].samples):
                self._heard_s += TICK_S

    def next_tick(self, now_s: float) -> tuple[np.ndarray, Question | None] | None:
        """See UserScript."""
        begins = None
        if self._may_go_on(now_s):
            if self._number + 1 == len(self.questions):
                return None
            self._number += 1
            self._position = 0
            self._asked_at = now_s
            self._heard_s = 0.0
            self._answering = False
            self._answer_ended_at = None
            begins = self.questions[self._number]
        tick = np.zeros(TICK_SAMPLES, np.float32)
        if self._number >= 0:
            samples = self.questions[self._number].samples
            said = samples[self._position : self._position + TICK_SAMPLES]
            tick[: len(said)] = said
            self._position += TICK_SAMPLES
        return tick, begins

    def _may_go_on(self, now_s: float) -> bool:
        """Whether the next question may begin, or the conversation end."""
        if self._number < 0:
            return now_s >= self.pauses.lead_in_s
        question = self.questions[self._number]
        if self._position < len(question.samples):
            return False
        is_last = self._number + 1 == len(self.questions)
        question_end = self._asked_at + question.sound_s
        if self.gap_s is not None and not is_last:
            return now_s >= question_end + self.gap_s
        into_s = None if is_last else self.questions[self._number + 1].into_answer_s
        if into_s is not None and self._heard_s >= into_s:
            return True
        if now_s >= question_end + self.pauses.longest_answer_s:
            return True
        if self._answer_ended_at is not None and self._answer_ended_at >= question_end:
            silent_since = max(self._answer_ended_at, self._sound_at)
            return now_s >= silent_since + self.pauses.after_answer_s
        silent_since = max(question_end, self._sound_at)
        return not self._answering and now_s >= silent_since + self.pauses.no_answer_s


class RealTime:
    """Paces a conversation by the clock on the wall."""

    def __init__(self):
        self._started_at = time.monotonic()

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started_at

    def received(self) -> None:
        """A tick of the agent's has come."""

    async def wait(self, ticks: float) -> None:
        """Until so many ticks are over: a microphone, too, delivers a tick when it is complete."""
        await asyncio.sleep(max(0.0, ticks * TICK_S - self.now()))


class Lockstep:
    """Paces a conversation by the agent: a tick is heard as soon as the one before is answered."""

    def __init__(self):
        self._answered = 0
        self._news = asyncio.Event()

    def now(self) -> float:
        """Seconds since the beginning, as the agent counts them."""
        return self._answered * TICK_S

    def received(self) -> None:
        """A tick of the agent's has come."""
        self._answered += 1
        self._news.set()

    async def wait(self, ticks: float) -> None:
        """Until the ticks before have been answered."""
        while self._answered < math.ceil(ticks) - 1:
            self._news.clear()
            await self._news.wait()


async def converse(
    session,
    script: UserScript,
    pace: RealTime | Lockstep,
    display: Display,
    stop: asyncio.Event | None = None,
    on_played: Callable[[np.ndarray], None] | None = None,
) -> Recording:
    """Play the script to the session until it is done and the session has ended.

    stop: ends it early when it is set. on_played: gets each tick [1920] of the loudspeaker's.
    """
    conversation = Conversation(session, script, pace, display)
    conversation.on_played = on_played
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(conversation.listen(), name="listen")
        await conversation.speak(stop or asyncio.Event())
        await session.close()
    recording = conversation.recording
    recording.settle(conversation.playback.played_at_ms)
    recording.gaps = conversation.playback.gaps
    recording.dropped_ms = conversation.playback.dropped_ms
    return recording


class Conversation:
    """One conversation as it goes on: the user's side and the agent's, each in a task."""

    def __init__(self, session, script: UserScript, pace: RealTime | Lockstep, display: Display):
        self.session = session
        self.script = script
        self.pace = pace
        self.display = display
        self.recording = Recording()
        self.playback = Playback()
        self.on_played: Callable[[np.ndarray], None] | None = None
        self._over = asyncio.Event()

    async def speak(self, stop: asyncio.Event) -> None:
        """The user's side, until the script is done, `stop` is set or the session has ended."""
        tick = 0
        while not self._over.is_set() and not stop.is_set():
            now_s = tick * TICK_S
            step = self.script.next_tick(now_s)
            if step is None:
                return
            samples, begins = step
            if begins is not None:
                question = {"type": "question", "name": begins.name, "sound_s": begins.sound_s}
                self.recording.note(now_s, question)
            played = await self._exchange(tick, samples)
            self.script.notice_sound(played, now_s)
            self.recording.add_tick(samples, played)
            if self.on_played is not None:
                self.on_played(played)
            tick += 1

    async def _exchange(self, tick: int, samples: np.ndarray) -> np.ndarray:
        """Send a tick when it is over; return what the loudspeaker played meanwhile, [1920]."""
        played = []
        for at in range(BLOCK_SAMPLES, TICK_SAMPLES + 1, BLOCK_SAMPLES):
            await first_of(self.pace.wait(tick + at / TICK_SAMPLES), self._over.wait())
            if at == TICK_SAMPLES:
                await self.session.push(samples)
                # What is pulled now will be heard in the tick that begins.
                await self.session.played(self.playback.passed_ms)
            played.append(self.playback.pull(BLOCK_SAMPLES))
        return np.concatenate(played)

    async def listen(self) -> None:
        """What comes from the agent: to the loudspeaker, the script, the recording, the screen."""
        while (message := await self.session.get()) is not None:
            audio, events = message
            if len(audio):
                self.playback.push(audio)
                self.pace.received()
            lost_ms = getattr(self.session, "lost_ms", 0)
            for event in events:
                self.script.notice(event, self.pace.now())
                self.recording.note(self.pace.now(), event, lost_ms)
                self.display.show(event)
        self._over.set()


async def first_of(*waits) -> None:
    """Until one of these is done; the others are given up."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
