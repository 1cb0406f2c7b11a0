"""Who hears the clips: the agent, its recogniser alone, and Whisper on the whole clip.

A listener takes waves, float32 [N] at 24 kHz, and the ticks of silence before each, and returns
what it heard of each.
"""

import hashlib
import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from duplex.agent.config import SecondPassConfig
from duplex.agent.hearing.second_pass import Task, read
from duplex.audio import ENCODER_FRAMES_PER_TICK, MEL_FRAMES_PER_TICK, TICK_SAMPLES
from duplex.model.asr import features
from duplex.model.asr.beam_search import BeamState, n_best
from duplex.model.asr.whisper import Whisper
from duplex.training.evaluation.play import Script, Tick, in_ticks, play, tick_at
from duplex.training.scenes.recognition import SpeechRecognizer
from duplex.transcript import Transcript


@dataclass(frozen=True)
class Heard:
    """What somebody made of a clip."""

    text: str
    is_answered: bool | None = None  # whether it began to speak, if it can


Listener = Callable[[list[np.ndarray], int], list[Heard]]


def with_silence(wave: np.ndarray, after_ticks: int = 10) -> torch.Tensor:
    """wave, float32 [N] -> [1, N'], whole ticks with after_ticks of silence at the end.

    In them the recogniser's last words come.
    """
    sound = torch.from_numpy(wave.astype(np.float32))
    return F.pad(sound, (0, TICK_SAMPLES * after_ticks + -len(sound) % TICK_SAMPLES))[None]


@torch.inference_mode()
def transcribe(recognizer: SpeechRecognizer, wave: np.ndarray) -> str:
    """What the recogniser hears of a clip, float32 [N]: the best hypothesis of it as one turn."""
    mel, _ = features.log_mel(with_silence(wave), features.initial_state(1))
    beam = BeamState()
    for tick in recognizer.encoder(mel)[1][0].split(ENCODER_FRAMES_PER_TICK):
        recognizer.search(beam, tick.numpy())
    return " ".join(n_best(recognizer.lexicon, beam, 1)[0][0])


def listen(
    wave: np.ndarray, lead_ticks: int = 6, settle_ticks: int = 35, quiet_ticks: int = 10
) -> Generator[np.ndarray, Tick, Heard]:
    """A script: plays a clip, float32 [N], and reads what becomes of it.

    lead_ticks: silence before the clip, as in any room. The session ends when the user's turn has
    ended after the clip and nothing was heard or corrected any more for quiet_ticks, or else after
    settle_ticks.
    """
    sound = in_ticks(np.pad(wave, (lead_ticks * TICK_SAMPLES, 0)))
    transcript = Transcript()
    is_answered = False
    of_the_user = ("user_started", "heard", "corrected", "user_ended")
    quiet = 0
    for tick in range(len(sound) + settle_ticks):
        events = (yield tick_at(sound, tick)).events
        for event in events:
            transcript.read(event)
        is_answered = is_answered or any(event.kind == "agent_started" for event in events)
        is_quiet = tick >= len(sound) and not any(event.kind in of_the_user for event in events)
        quiet = quiet + 1 if is_quiet else 0
        if quiet >= quiet_ticks and transcript.turns("user") and not transcript.is_open("user"):
            break
    return Heard(transcript.user_text.strip(), is_answered)


def agent_transcripts(agent, waves: list[np.ndarray], lead_ticks: int = 6) -> list[Heard]:
    """What the agent's LM has read of each clip in the end, each in a session of its own."""
    order = sorted(range(len(waves)), key=lambda i: len(waves[i]))
    scripts: list[Script] = [lambda slot, i=i: listen(waves[i], lead_ticks) for i in order]
    found = dict(zip(order, play(agent, scripts), strict=True))
    return [found[i] for i in range(len(waves))]


@torch.inference_mode()
def read_clip(whisper: Whisper, wave: np.ndarray) -> str:
    """What the second pass reads of a clip, float32 [N], as one turn; "" where it believes none."""
    _, power = features.log_mel_and_power(with_silence(wave, 0), features.initial_state(1))[0]
    found = read(
        whisper,
        Task([ticks.numpy() for ticks in power[0].split(MEL_FRAMES_PER_TICK)]),
        SecondPassConfig(),
    )
    return found.text if found.is_believed else ""


class Remembered:
    """A recogniser of whole clips, and a file that keeps what it heard: it hears no sound twice."""

    def __init__(self, path: Path, recognise: Callable[[np.ndarray], str]):
        """recognise: wave float32 [N] at 24 kHz -> its text."""
        self.path = path
        self.recognise = recognise
        lines = path.read_text().splitlines() if path.exists() else []
        self.heard: dict[str, str] = dict(json.loads(line) for line in lines)

    def transcribe(self, wave: np.ndarray) -> str:
        """The text of wave, float32 [N] at 24 kHz."""
        key = hashlib.sha256(wave.tobytes()).hexdigest()[:16]
        if key not in self.heard:
            self.heard[key] = self.recognise(wave)
            with open(self.path, "a") as file:
                file.write(json.dumps([key, self.heard[key]]) + "\n")
        return self.heard[key]


def agent_listener(agent) -> Listener:
    """The agent: what its LM has read."""
    return lambda waves, lead_ticks: agent_transcripts(agent, waves, lead_ticks)


def clip_listener(transcribe: Callable[[np.ndarray], str]) -> Listener:
    """Somebody who is given clips one by one, with the silence before them."""

    def listen(waves: list[np.ndarray], lead_ticks: int) -> list[Heard]:
        padded = (np.pad(wave, (lead_ticks * TICK_SAMPLES, 0)) for wave in waves)
        return [Heard(transcribe(wave.astype(np.float32))) for wave in padded]

    return listen
