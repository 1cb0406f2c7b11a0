"""What one would build instead: voice activity detector -> recogniser -> language model -> voice.

    silero-vad -> Whisper tiny.en (faster-whisper) -> SmolLM2-135M-Instruct (transformers) -> Hibari

The parts are those the default agent is made from, or was taught by, so that what differs is the
duplex model and nothing else. The detector decides everything about turns: the user has finished
after so much silence, the agent stops after so much speech (Endpointing).

Thinking takes longer than a tick. In real time it happens in a thread. Played faster than real time
it happens at once and the answer waits for as long as the thinking is charged (Costs): so the same
seed gives the same conversation on every machine.
"""

import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from duplex.audio import SAMPLE_RATE, TICK_MS, TICK_SAMPLES
from duplex.bench.recognizer import RECOGNIZER_RATE, Whisper
from duplex.events import Event

Message = tuple[str, str]  # role, text


@dataclass(frozen=True)
class Endpointing:
    """When somebody speaks and has finished, by the detector's probability of speech."""

    min_probability: float = 0.5  # from which a tick counts as speech
    speech_ticks: int = 3  # 0.24 s of speech: somebody speaks
    silence_ticks: int = 7  # 0.56 s of silence: the turn is over
    kept_ticks: int = 5  # before the detector was sure, that belong to the turn


@dataclass(frozen=True)
class Costs:
    """Seconds of thinking charged when there is no clock.

    Those of the LM are rounded from CPU seconds of one thread of a busy two-core machine (0.1 s a
    token, prompt included), the others are estimates; `duplex bench latency --agents cascade` shows
    a machine's own.
    """

    recogniser: float = 0.6  # Whisper pads to 30 s: the same for every question
    prompt: float = 0.15
    token: float = 0.07
    voice: float = 0.012  # a second of sound


@dataclass
class CascadeParts:
    """The four parts as functions."""

    # Makes a detector for a new session: a tick [TICK_SAMPLES] -> probability of speech.
    detector: Callable[[], Callable[[np.ndarray], float]]
    # float32 [N] at 24 kHz -> its text.
    recognise: Callable[[np.ndarray], str]
    # All messages -> the assistant's next one, and how many tokens it has.
    reply: Callable[[list[Message]], tuple[str, int]]
    # A text -> float32 [N] at 24 kHz.
    speak: Callable[[str], np.ndarray]


@dataclass
class Answer:
    """What came of a user's turn."""

    question: str
    text: str
    tokens: int
    wave: np.ndarray  # float32 [N]
    seconds: dict[str, float]  # by stage, on the wall's clock


@dataclass
class CascadeSession:
    """One conversation."""

    detect: Callable[[np.ndarray], float]
    messages: list[Message]
    tick: int = -1
    # Ticks of the user's turn, or the last ones before it.
    heard: list[np.ndarray] = field(default_factory=list)
    speech_ticks: int = 0
    silence_ticks: int = 0
    is_user_open: bool = False
    # The answer that is being made, or waits for its time.
    coming: Future | Answer | None = None
    ready_tick: int = 0
    # What is still to be said of the answer, and the whole of it.
    wave: np.ndarray | None = None
    text: str = ""
    samples: int = 0


class Cascade:
    """An agent of four parts; see duplex.agent_interface.AgentInterface."""

    def __init__(
        self,
        slots: int,
        parts: CascadeParts,
        costs: Costs | None = None,
        endpointing: Endpointing | None = None,
    ):
        """With `costs` there is no clock: see above."""
        self.slots = slots
        self.parts = parts
        self.costs = costs
        self.endpointing = endpointing or Endpointing()
        self.sessions: dict[int, CascadeSession] = {}
        self.stage_seconds: list[dict[str, float]] = []  # of each answer, in order
        self._worker = ThreadPoolExecutor(1, "thinking")

    def open(
        self,
        slot: int,
        seed: int = 0,
        instructions: str | None = None,
        temperature: float | None = None,
        gradually: bool = False,
        real_time: bool = False,
    ) -> None:
        """Begin a session; nothing is drawn at random in it."""
        usual = "You are a helpful AI assistant. Answer in one short sentence."
        messages = [("system", instructions or usual)]
        self.sessions[slot] = CascadeSession(self.parts.detector(), messages)

    def close(self, slot: int) -> None:
        """End a session."""
        self.sessions.pop(slot, None)

    def is_prefilling(self, slot: int) -> bool:
        """Instructions are read with each question."""
        return False

    def set_playback_position(self, slot: int, heard_ms: int) -> None:
        """It keeps no words that it could take back."""

    def metrics(self) -> dict[str, float]:
        """None."""
        return {}

    def step(
        self, audio: np.ndarray, active: list[int], voice: bool = True
    ) -> tuple[np.ndarray, list[list[Event]]]:
        """[B, TICK_SAMPLES] in, [B, TICK_SAMPLES] and the events of each slot out."""
        sound = np.zeros((self.slots, TICK_SAMPLES), np.float32)
        events: list[list[Event]] = [[] for _ in range(self.slots)]
        for slot in active:
            session = self.sessions[slot]
            session.tick += 1
            self._hear(session, audio[slot], events[slot])
            self._begin(session, events[slot])
            sound[slot] = self._say(session, events[slot])
        return sound, events

    def _hear(self, session: CascadeSession, audio: np.ndarray, events: list[Event]) -> None:
        """Follow the user's turns, and begin to think when one is over."""
        rules = self.endpointing
        is_speech = session.detect(audio) > rules.min_probability
        session.speech_ticks = session.speech_ticks + 1 if is_speech else 0
        session.silence_ticks = 0 if is_speech else session.silence_ticks + 1
        session.heard.append(audio.copy())
        if not session.is_user_open and session.speech_ticks >= rules.speech_ticks:
            session.is_user_open = True
            events.append(Event("user_started", session.tick))
            if session.wave is not None:
                self._stop(session, events)
            session.coming = None  # what was begun is answered together with what comes now
        if session.is_user_open and session.silence_ticks >= rules.silence_ticks:
            session.is_user_open = False
            events.append(Event("user_ended", session.tick, to="agent"))
            self._think(session)
        elif not session.is_user_open and session.coming is None:
            session.heard = session.heard[-rules.kept_ticks :]

    def _think(self, session: CascadeSession) -> None:
        """Make an answer to the turn, in a thread or, where there is no clock, at once."""
        wave = np.concatenate(session.heard)
        messages = list(session.messages)
        if self.costs is None:
            session.coming = self._worker.submit(self.answer, wave, messages)
            session.ready_tick = session.tick
            return
        answer = self.answer(wave, messages)
        seconds = self.costs.recogniser
        if answer.question:
            seconds += self.costs.prompt + self.costs.token * answer.tokens
            seconds += self.costs.voice * len(answer.wave) / SAMPLE_RATE
        session.coming = answer
        session.ready_tick = session.tick + int(np.ceil(1000 * seconds / TICK_MS))

    def answer(self, wave: np.ndarray, messages: list[Message]) -> Answer:
        """From the user's turn, float32 [N], to the sound of the answer."""
        begun = time.perf_counter()
        question = self.parts.recognise(wave)
        seconds = {"recogniser": time.perf_counter() - begun}
        text = ""
        tokens = 0
        sound = np.zeros(0, np.float32)
        if question:
            begun = time.perf_counter()
            text, tokens = self.parts.reply([*messages, ("user", question)])
            seconds["LM"] = time.perf_counter() - begun
            begun = time.perf_counter()
            sound = self.parts.speak(text) if text else sound
            seconds["voice"] = time.perf_counter() - begun
        self.stage_seconds.append(seconds)
        return Answer(question, text, tokens, sound, seconds)

    def _begin(self, session: CascadeSession, events: list[Event]) -> None:
        """Begin to say an answer that is ready."""
        if session.coming is None or session.tick < session.ready_tick:
            return
        if isinstance(session.coming, Future):
            if not session.coming.done():
                return
            session.coming = session.coming.result()
        answer = session.coming
        session.coming = None
        session.heard = session.heard[-self.endpointing.kept_ticks :]
        if not len(answer.wave):
            return
        session.messages += [("user", answer.question), ("assistant", answer.text)]
        session.wave = answer.wave
        session.text = answer.text
        session.samples = len(answer.wave)
        events += [
            Event("heard", session.tick, " " + answer.question),
            Event("agent_started", session.tick),
            Event("said", session.tick, " " + answer.text),
        ]

    def _say(self, session: CascadeSession, events: list[Event]) -> np.ndarray:
        """The next tick of the answer, [TICK_SAMPLES]."""
        tick = np.zeros(TICK_SAMPLES, np.float32)
        if session.wave is not None:
            said = session.wave[:TICK_SAMPLES]
            session.wave = session.wave[TICK_SAMPLES:]
            tick[: len(said)] = said
            if not len(session.wave):
                session.wave = None
                events.append(Event("agent_ended", session.tick))
        return tick

    def _stop(self, session: CascadeSession, events: list[Event]) -> None:
        """Fall silent; the conversation keeps what was said, by its share of the sound."""
        share = 1 - len(session.wave) / session.samples
        kept = session.text[: round(len(session.text) * share)]
        session.messages[-1] = ("assistant", kept)
        events.append(Event("agent_stopped", session.tick, session.text[len(kept) :]))
        session.wave = None


def detector(window_samples: int = 512) -> Callable[[np.ndarray], float]:
    """silero-vad over ticks: the highest probability of the 32 ms windows that end in the tick."""
    import soxr
    import torch
    from silero_vad import load_silero_vad

    network = load_silero_vad(onnx=True)
    convert = soxr.ResampleStream(SAMPLE_RATE, RECOGNIZER_RATE, 1, dtype="float32")
    rest = np.zeros(0, np.float32)

    def detect(tick: np.ndarray) -> float:
        nonlocal rest
        rest = np.concatenate([rest, convert.resample_chunk(tick)])
        highest = 0.0
        while len(rest) >= window_samples:
            window = torch.from_numpy(rest[:window_samples].copy())
            rest = rest[window_samples:]
            highest = max(highest, float(network(window, RECOGNIZER_RATE)))
        return highest

    return detect


def real_parts(language_model, offline: bool = False, threads: int = 1) -> CascadeParts:
    """The parts named above; `language_model`: a SmolLM2 of smollm2.py. Raises WeightsError."""
    import silero_vad  # noqa: F401  its import sets torch to one thread: it comes first
    import torch
    from hibari import Hibari

    from duplex import weights

    torch.set_num_threads(threads)
    whisper = Whisper(weights.whisper_tiny(offline), threads)
    voice = Hibari(threads=threads)

    def speak(text: str) -> np.ndarray:
        return voice(spell_long_numbers(text), seed=0)

    recognise = partial(whisper.text, beam_size=1)
    return CascadeParts(detector, recognise, language_model.reply, speak)


def spell_long_numbers(text: str) -> str:
    """Numbers of a dozen digits, for which the voice has no word, digit by digit."""

    def spell(number: re.Match) -> str:
        return " ".join(digit for digit in number.group() if digit.isdigit())

    return re.sub(r"\d[\d,]{11,}", spell, text)
