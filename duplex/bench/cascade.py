"""What one would build instead: voice activity detector -> recogniser -> language model -> voice, behind an agent's interface.

    silero-vad -> Whisper tiny.en (faster-whisper) -> SmolLM2-135M-Instruct (transformers) -> Hibari

The parts are those the default agent is made from, or was taught by, so that what differs is the duplex model and nothing else.
The detector decides everything about turns: the user has finished after QUIET_TICKS of silence, the agent stops after
LOUD_TICKS of voice.

Thinking takes longer than a tick. In real time it happens in a thread. Played faster than real time it happens at once and the
answer waits for as long as the thinking is charged (`Costs`): so the same seed gives the same conversation on every machine.
"""

import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from duplex.audio import SAMPLE_RATE, TICK_MS, TICK_SAMPLES
from duplex.bench.recognizer import Whisper
from duplex.events import Event

LOUD_TICKS = 3  # 0.24 s of voice: somebody speaks
QUIET_TICKS = 7  # 0.56 s of silence: and has finished
KEPT_TICKS = 5  # before the detector was sure
VOICE = 0.5  # probability from which a tick has voice in it
INSTRUCTIONS = "You are a helpful AI assistant. Answer in one short sentence."
DETECTOR_RATE, DETECTOR_SAMPLES = 16_000, 512  # silero-vad looks at 32 ms

LONG_NUMBER = re.compile(r"\d[\d,]{11,}")  # the voice's dictionary has no word for it and fails


def _digits(number: re.Match) -> str:
    return " ".join(digit for digit in number.group() if digit.isdigit())


@dataclass(frozen=True)
class Costs:
    """Seconds of thinking charged when there is no clock. The LM's are rounded from CPU seconds of one thread of a busy two-core
    machine (0.1 s a token, prompt included), the others are estimates; `duplex bench latency
    --agents cascade` shows a machine's own."""

    recogniser: float = 0.6  # Whisper pads to 30 s: the same for every question
    prompt: float = 0.15
    token: float = 0.07
    voice: float = 0.012  # a second of sound


@dataclass
class Parts:
    """The four parts as functions. `detector()` gives one for a new session: a tick [1920] -> probability of voice."""

    detector: Callable[[], Callable[[np.ndarray], float]]
    recognise: Callable[[np.ndarray], str]  # float32 [N], 24 kHz
    reply: Callable[
        [list[tuple[str, str]]], tuple[str, int]
    ]  # (role, text) of each message -> text, tokens
    speak: Callable[[str], np.ndarray]  # -> float32 [N], 24 kHz


@dataclass
class Thought:
    question: str
    answer: str
    tokens: int
    wave: np.ndarray
    seconds: dict[str, float]  # by stage, on the wall's clock


@dataclass
class Slot:
    detect: Callable[[np.ndarray], float]
    messages: list[tuple[str, str]]
    tick: int = -1
    heard: list[np.ndarray] = field(default_factory=list)  # the user's turn, or the last KEPT_TICKS
    loud: int = 0
    quiet: int = 0
    open: bool = False  # the user speaks
    thinking: Future | Thought | None = None
    ready_tick: int = 0
    wave: np.ndarray | None = None  # what is still to be said
    answer: str = ""
    length: int = 0  # samples of the whole answer


class Cascade:
    def __init__(self, slots: int, parts: Parts, costs: Costs | None = None):
        """With `costs` there is no clock: see above."""
        self.slots, self.parts, self.costs = slots, parts, costs
        self.sessions: dict[int, Slot] = {}
        self.stage_seconds: list[dict[str, float]] = []  # of each thought, in order
        self._worker = ThreadPoolExecutor(1, "thinking")

    def open(
        self, slot: int, seed=0, instructions: str | None = None, temperature=None, gradually=False
    ) -> None:
        self.sessions[slot] = Slot(
            self.parts.detector(), [("system", instructions or INSTRUCTIONS)]
        )

    def close(self, slot: int) -> None:
        self.sessions.pop(slot, None)

    def is_prefilling(self, slot: int) -> bool:
        return False

    def set_playback_position(self, slot: int, heard_ms: int) -> None:
        """It keeps no words that it could take back."""

    def metrics(self) -> dict[str, float]:
        return {}

    def step(
        self, audio: np.ndarray, active: list[int], voice: bool = True
    ) -> tuple[np.ndarray, list[list[Event]]]:
        """[B, 1920] in, [B, 1920] and the events of each slot out."""
        played = np.zeros((self.slots, TICK_SAMPLES), np.float32)
        events: list[list[Event]] = [[] for _ in range(self.slots)]
        for slot in active:
            session = self.sessions[slot]
            session.tick += 1
            self._hear(session, audio[slot], events[slot])
            self._begin(session, events[slot])
            played[slot] = self._say(session, events[slot])
        return played, events

    def _hear(self, session: Slot, audio: np.ndarray, events: list[Event]) -> None:
        voice = session.detect(audio) > VOICE
        session.loud, session.quiet = (session.loud + 1, 0) if voice else (0, session.quiet + 1)
        session.heard.append(audio.copy())
        if not session.open and session.loud >= LOUD_TICKS:
            session.open = True
            events.append(Event("user_started", session.tick))
            if session.wave is not None:
                self._stop(session, events)
            session.thinking = None  # what was begun is answered together with what comes now
        if session.open and session.quiet >= QUIET_TICKS:
            session.open = False
            events.append(Event("user_ended", session.tick, to="agent"))
            self._think(session)
        elif not session.open and session.thinking is None:
            session.heard = session.heard[-KEPT_TICKS:]

    def _think(self, session: Slot) -> None:
        wave, messages = np.concatenate(session.heard), list(session.messages)
        if self.costs is None:
            session.thinking, session.ready_tick = (
                self._worker.submit(self.think, wave, messages),
                session.tick,
            )
            return
        thought, costs = self.think(wave, messages), self.costs
        seconds = costs.recogniser
        if thought.question:
            seconds += (
                costs.prompt
                + costs.token * thought.tokens
                + costs.voice * len(thought.wave) / SAMPLE_RATE
            )
        session.thinking, session.ready_tick = (
            thought,
            session.tick + int(np.ceil(1000 * seconds / TICK_MS)),
        )

    def think(self, wave: np.ndarray, messages: list[tuple[str, str]]) -> Thought:
        """From the user's turn, float32 [N], to the sound of the answer."""
        begun = time.perf_counter()
        question = self.parts.recognise(wave)
        seconds = {"recogniser": time.perf_counter() - begun}
        answer, tokens, sound = "", 0, np.zeros(0, np.float32)
        if question:
            begun = time.perf_counter()
            answer, tokens = self.parts.reply([*messages, ("user", question)])
            seconds["LM"], begun = time.perf_counter() - begun, time.perf_counter()
            sound = self.parts.speak(answer) if answer else sound
            seconds["voice"] = time.perf_counter() - begun
        self.stage_seconds.append(seconds)
        return Thought(question, answer, tokens, sound, seconds)

    def _begin(self, session: Slot, events: list[Event]) -> None:
        """Take up a thought that is ready."""
        if session.thinking is None or session.tick < session.ready_tick:
            return
        if isinstance(session.thinking, Future):
            if not session.thinking.done():
                return
            session.thinking = session.thinking.result()
        thought, session.thinking = session.thinking, None
        session.heard = session.heard[-KEPT_TICKS:]
        if not len(thought.wave):
            return
        session.messages += [("user", thought.question), ("assistant", thought.answer)]
        session.wave, session.answer, session.length = (
            thought.wave,
            thought.answer,
            len(thought.wave),
        )
        events.append(Event("heard", session.tick, " " + thought.question))
        events += [
            Event("agent_started", session.tick),
            Event("said", session.tick, " " + thought.answer),
        ]

    def _say(self, session: Slot, events: list[Event]) -> np.ndarray:
        tick = np.zeros(TICK_SAMPLES, np.float32)
        if session.wave is not None:
            said, session.wave = session.wave[:TICK_SAMPLES], session.wave[TICK_SAMPLES:]
            tick[: len(said)] = said
            if not len(session.wave):
                session.wave = None
                events.append(Event("agent_ended", session.tick))
        return tick

    def _stop(self, session: Slot, events: list[Event]) -> None:
        """Fall silent; the conversation keeps what was said, by its share of the sound."""
        kept = session.answer[
            : round(len(session.answer) * (1 - len(session.wave) / session.length))
        ]
        session.messages[-1] = ("assistant", kept)
        events.append(Event("agent_stopped", session.tick, session.answer[len(kept) :]))
        session.wave = None


def detector() -> Callable[[np.ndarray], float]:
    """silero-vad over ticks: the highest probability of the 32 ms windows that end in the tick."""
    import soxr
    import torch
    from silero_vad import load_silero_vad

    network, convert = (
        load_silero_vad(onnx=True),
        soxr.ResampleStream(SAMPLE_RATE, DETECTOR_RATE, 1, dtype="float32"),
    )
    rest = np.zeros(0, np.float32)

    def detect(tick: np.ndarray) -> float:
        nonlocal rest
        rest = np.concatenate([rest, convert.resample_chunk(tick)])
        highest = 0.0
        while len(rest) >= DETECTOR_SAMPLES:
            window, rest = rest[:DETECTOR_SAMPLES], rest[DETECTOR_SAMPLES:]
            highest = max(highest, float(network(torch.from_numpy(window.copy()), DETECTOR_RATE)))
        return highest

    return detect


def real_parts(language_model, offline: bool = False, threads: int = 1) -> Parts:
    """`language_model`: a bench_smollm2.SmolLM2. Raises WeightsError."""
    import silero_vad  # noqa: F401  its import sets torch to one thread: it comes first
    import torch
    from hibari import Hibari

    from duplex import weights

    torch.set_num_threads(threads)
    whisper = Whisper(weights.whisper_tiny(offline), threads)
    voice = Hibari(threads=threads)
    return Parts(
        detector,
        partial(whisper.text, beam_size=1),
        language_model.reply,
        lambda text: voice(LONG_NUMBER.sub(_digits, text), seed=0),
    )
