"""A conversation with recorded questions instead of a microphone, at the pace of real time.

The loudspeaker is simulated on the same beat as the microphone, through the same Playback as a real one, so the
recording has what a listener in the room would have heard, gaps and delays included.
"""

import asyncio
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from duplex.client.display import Display
from duplex.client.jitter_buffer import BLOCK_MS, BLOCK_SAMPLES, Playback
from duplex.client.recording import Recording

from duplex.audio import AUDIBLE, SAMPLE_RATE, TICK_MS, TICK_S, TICK_SAMPLES
from duplex.errors import ClientError

LEAD_IN_S = 1.0  # silence before the first question
PAUSE_S = 1.0  # between the end of an answer and the next question
NO_ANSWER_S = 6.0  # then the next question is asked anyway
LONGEST_ANSWER_S = 30.0


@dataclass
class Question:
    name: str
    samples: np.ndarray  # float32 [N], 24 kHz mono

    @property
    def sound_s(self) -> float:
        """When the speech in it ends: files often trail off into silence."""
        loud = np.flatnonzero(np.abs(self.samples) > 0.05 * np.abs(self.samples).max(initial=0.0))
        return (int(loud[-1]) + 1) / SAMPLE_RATE if len(loud) else 0.0


def read_wave(path: Path) -> Question:
    """Any sound file as 24 kHz mono; conversions are told on stderr."""
    import soundfile

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)  # [N, channels]
    except (soundfile.LibsndfileError, OSError) as error:
        reason = (
            "no such file"
            if not Path(path).exists()
            else getattr(error, "error_string", str(error)).rstrip(". ")
        )
        raise ClientError(f"cannot read {path}: {reason}") from error
    if not len(samples):
        raise ClientError(f"cannot use {path}: there is no sound in it")
    if samples.shape[1] > 1:
        print(f"note: {path} has {samples.shape[1]} channels; their mean is used", file=sys.stderr)
    mono = np.nan_to_num(samples.mean(axis=1))
    if rate != SAMPLE_RATE:
        import soxr

        print(f"note: {path} is converted from {rate} Hz to {SAMPLE_RATE} Hz", file=sys.stderr)
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    return Question(Path(path).name, mono.astype(np.float32))


class Script:
    """Decides tick by tick what the user's side says: each question follows PAUSE_S after the answer to the one
    before has ended, or NO_ANSWER_S after a question without answer; with `gap_s`, always so long after the
    question before, whether the agent still talks or not."""

    def __init__(self, questions: list[Question], gap_s: float | None = None):
        self.questions = questions
        self.gap_s = gap_s
        self._number = -1  # of the question being asked or answered
        self._position = 0
        self._asked_at = 0.0
        self._answering = False
        self._answer_ended_at: float | None = None
        self._sound_at = 0.0

    def notice(self, event: dict, now_s: float) -> None:
        if event["type"] == "agent_started":
            self._answering, self._answer_ended_at = True, None
        elif event["type"] in ("agent_ended", "agent_stopped"):
            self._answering, self._answer_ended_at = False, now_s

    def notice_sound(self, samples: np.ndarray, now_s: float) -> None:
        if np.abs(samples).max(initial=0.0) > AUDIBLE:
            self._sound_at = now_s

    def next_tick(self, now_s: float) -> tuple[np.ndarray, Question | None] | None:
        """[1920] samples of the tick that begins now and the question that begins with it, if one does; None: done."""
        begins = None
        if self._may_go_on(now_s):
            if self._number + 1 == len(self.questions):
                return None
            self._number += 1
            self._position, self._asked_at = 0, now_s
            self._answering, self._answer_ended_at = False, None
            begins = self.questions[self._number]
        tick = np.zeros(TICK_SAMPLES, np.float32)
        if self._number >= 0:
            said = self.questions[self._number].samples[
                self._position : self._position + TICK_SAMPLES
            ]
            tick[: len(said)] = said
            self._position += TICK_SAMPLES
        return tick, begins

    def _may_go_on(self, now_s: float) -> bool:
        if self._number < 0:
            return now_s >= LEAD_IN_S
        question = self.questions[self._number]
        if self._position < len(question.samples):
            return False
        last = self._number + 1 == len(self.questions)
        question_end = self._asked_at + question.sound_s
        if self.gap_s is not None and not last:
            return now_s >= question_end + self.gap_s
        if now_s >= question_end + LONGEST_ANSWER_S:
            return True
        if self._answer_ended_at is not None and self._answer_ended_at >= question_end:
            return now_s >= max(self._answer_ended_at, self._sound_at) + PAUSE_S
        return not self._answering and now_s >= max(question_end, self._sound_at) + NO_ANSWER_S


class RealTime:
    """Paces a conversation by the clock on the wall."""

    def __init__(self):
        self._started_at = time.monotonic()

    def now(self) -> float:
        return time.monotonic() - self._started_at

    def received(self) -> None:
        pass

    async def wait(self, ticks: float) -> None:
        """Until so many ticks are over: a microphone, too, delivers a tick when it has been heard to its end."""
        await asyncio.sleep(max(0.0, ticks * TICK_S - self.now()))


class Lockstep:
    """Paces a conversation by the agent: the next tick is heard as soon as the one before is answered."""

    def __init__(self):
        self._answered = 0
        self._news = asyncio.Event()

    def now(self) -> float:
        return self._answered * TICK_S

    def received(self) -> None:
        self._answered += 1
        self._news.set()

    async def wait(self, ticks: float) -> None:
        while self._answered < math.ceil(ticks) - 1:
            self._news.clear()
            await self._news.wait()


async def converse(session, script: Script, pace, display: Display) -> Recording:
    """Plays the script to the session until it is done and the session has ended."""
    recording, playback, over = Recording(), Playback(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(
            _listen(session, script, recording, playback, pace, display, over), name="listen"
        )
        tick = 0
        while not over.is_set():
            step = script.next_tick(tick * TICK_S)
            if step is None:
                break
            samples, begins = step
            if begins is not None:
                recording.note(
                    tick * TICK_S,
                    {"type": "question", "name": begins.name, "sound_s": begins.sound_s},
                )
            played = []
            for at in range(BLOCK_SAMPLES, TICK_SAMPLES + 1, BLOCK_SAMPLES):
                await first_of(pace.wait(tick + at / TICK_SAMPLES), over.wait())
                if at == TICK_SAMPLES:
                    await session.push(samples)
                    await session.played(
                        playback.passed_ms
                    )  # what is pulled now will be heard in the tick that begins
                played.append(playback.pull(BLOCK_SAMPLES))
            played = np.concatenate(played)
            script.notice_sound(played, tick * TICK_S)
            recording.add_tick(samples, played)
            tick += 1
        await session.close()
    recording.gaps, recording.dropped_ms = playback.gaps, playback.dropped_ms
    return recording


async def first_of(*waits) -> None:
    """Until one of these is done; the others are given up."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


async def _listen(
    session, script: Script, recording: Recording, playback: Playback, pace, display, over
) -> None:
    """What comes from the agent, into the loudspeaker's buffer, the script, the recording and onto the screen."""
    session_ms = 0  # how far the session's own clock has come
    ahead_ms = BLOCK_MS  # the recording's clock minus the session's
    while (message := await session.get()) is not None:
        audio, events = message
        if len(audio):
            # played samples lie one block after the pull's count: a block is pulled when the one before has been played
            ahead_ms = playback.push(audio) + BLOCK_MS - session_ms
            session_ms += len(audio) * TICK_MS // TICK_SAMPLES
            pace.received()
        for event in events:
            script.notice(event, pace.now())
            recording.note(pace.now(), event, ahead_ms)
            display.show(event)
    over.set()
