"""Play sound to an agent without a clock, in many sessions side by side.

What happens in a session is a script: a generator that yields each tick of the user's sound and is
sent the Tick that the agent made of it. What it returns is the session's result:

    def echo(slot):
        tick = yield np.zeros(TICK_SAMPLES, np.float32)
        return tick.voice

    voices = play(agent, [echo, echo, echo])
"""

import itertools
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from duplex.audio import SAMPLE_RATE, SPEECH_LEVEL, TICK_SAMPLES
from duplex.events import Event
from duplex.transcript import transcribe

# Silence before a question, as in any room.
LEAD_IN_SAMPLES = SAMPLE_RATE // 2
# Ticks without an answer that end the wait for one: 6 s.
PATIENCE_TICKS = 75

Result = TypeVar("Result")


@dataclass
class Tick:
    """What the agent did in one tick of one session."""

    voice: np.ndarray  # float32 [TICK_SAMPLES]
    events: list[Event]
    seconds: float  # that the step of all sessions took


Script = Callable[[int], Generator[np.ndarray, Tick, Result]]


def play(
    agent, scripts: Iterable[Script], seeds: Iterable[int] = itertools.repeat(0)
) -> list[Result]:
    """Play each script in a session of its own, as many at once as the agent has slots.

    A script is called with the slot of its session, when that has been opened with the next seed.
    Returns what each script returned, in their order.
    """
    waiting = enumerate(zip(scripts, seeds, strict=False))
    running: dict[int, tuple[int, Generator]] = {}
    sound: dict[int, np.ndarray] = {}
    results: dict[int, Result] = {}
    while True:
        free = [slot for slot in range(agent.slots) if slot not in running]
        for slot, (number, (script, seed)) in zip(free, waiting, strict=False):
            agent.open(slot, seed=seed)
            running[slot] = number, script(slot)
            sound[slot] = next(running[slot][1])
        if not running:
            return [results[number] for number in sorted(results)]
        audio = np.zeros((agent.slots, TICK_SAMPLES), np.float32)
        for slot in running:
            audio[slot] = sound[slot]
        begun = time.perf_counter()
        voice, events = agent.step(audio, list(running))
        seconds = time.perf_counter() - begun
        for slot, (number, session) in list(running.items()):
            try:
                sound[slot] = session.send(Tick(voice[slot], events[slot], seconds))
            except StopIteration as ended:
                results[number] = ended.value
                agent.close(slot)
                del running[slot]


def in_ticks(wave: np.ndarray) -> np.ndarray:
    """wave, float32 [N] -> [ticks, TICK_SAMPLES], filled up with silence."""
    return np.pad(wave, (0, -len(wave) % TICK_SAMPLES)).reshape(-1, TICK_SAMPLES)


def tick_at(sound: np.ndarray, tick: int) -> np.ndarray:
    """sound, [ticks, TICK_SAMPLES] -> the samples of a tick; silence after the last one."""
    return sound[tick] if tick < len(sound) else np.zeros(TICK_SAMPLES, np.float32)


def end_of_sound(wave: np.ndarray) -> int:
    """Sample after which a recording is 40 dB below its peak: where its last word ends."""
    return int(np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max()).max()) + 1


@dataclass
class Answer:
    """What an agent heard of a question and did about it."""

    heard: str
    said: str
    voice: np.ndarray  # float32 [N], from the beginning of the question's lead-in
    delay_s: float | None  # from the end of the question to its voice; None: there was none
    tick_s: list[float] = field(default_factory=list)  # seconds of every step


def ask(wave: np.ndarray, rest_ticks: int = 12) -> Generator[np.ndarray, Tick, Answer]:
    """Play a question, float32 [N], and listen until the answer has ended and its voice is silent.

    A part of a script, for `yield from`. That takes more than `rest_ticks` of silence after the
    answer; without an answer PATIENCE_TICKS end the wait.
    """
    wave = np.pad(wave, (LEAD_IN_SAMPLES, 0))
    sound = in_ticks(wave)
    ticks: list[Tick] = []
    has_ended = False
    silent_ticks = 0
    while not (has_ended and silent_ticks > rest_ticks) and silent_ticks < PATIENCE_TICKS:
        tick = yield tick_at(sound, len(ticks))
        is_playing = len(ticks) < len(sound)
        ticks.append(tick)
        has_ended = has_ended or any(event.kind == "agent_ended" for event in tick.events)
        is_loud = np.abs(tick.voice).max() > SPEECH_LEVEL
        silent_ticks = 0 if is_playing or is_loud else silent_ticks + 1
    transcript = transcribe(event for tick in ticks for event in tick.events)
    voice = np.concatenate([tick.voice for tick in ticks])
    loud = np.flatnonzero(np.abs(voice) > SPEECH_LEVEL)
    after = loud[loud > end_of_sound(wave)]
    return Answer(
        heard=transcript.user_text.strip(),
        said=transcript.agent_text.strip(),
        voice=voice,
        delay_s=(after[0] - end_of_sound(wave)) / SAMPLE_RATE if len(after) else None,
        tick_s=[tick.seconds for tick in ticks],
    )
