"""What hearing costs as it is served: a tick's time, and one long stream's errors and memory."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from duplex.agent.loader import compiled
from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.model.asr import features
from duplex.model.asr.beam_search import BeamState
from duplex.model.parts import Parts
from duplex.training.evaluation.hearing.error_rate import error_rate
from duplex.training.evaluation.hearing.listeners import with_silence
from duplex.training.scenes.recognition import SpeechRecognizer, join_words


def as_served(recognizer: SpeechRecognizer) -> SpeechRecognizer:
    """The same recogniser, with the encoder compiled for this processor."""
    return replace(recognizer, encoder=compiled(Parts(encoder=recognizer.encoder)).encoder)


@torch.inference_mode()
def tick_times(
    recognizer: SpeechRecognizer, slots: int, ticks: int = 300, warm_up_ticks: int = 50
) -> list[float]:
    """Times of a tick's features, encoder and lexicon as they are served, in ms.

    All slots hear noise. The median, the 99th percentile, and the median of the processor's time,
    which other programs lengthen less.
    """
    mel_state = features.initial_state(slots)
    state = recognizer.encoder.initial_state(slots)
    times = []
    beams = [BeamState() for _ in range(slots)]
    for _ in range(ticks):
        wave = 0.05 * torch.randn(slots, TICK_SAMPLES)
        begun = time.perf_counter(), time.process_time()
        mel, mel_state = features.log_mel(wave, mel_state)
        (_, phones), state = recognizer.encoder.step(mel, state)
        for beam, log_probs in zip(beams, phones.numpy(), strict=True):
            recognizer.search(beam, log_probs)
        times.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    wall, processor = 1000 * np.array(times[warm_up_ticks:]).T
    return np.round([np.median(wall), np.quantile(wall, 0.99), np.median(processor)], 1).tolist()


@torch.inference_mode()
def long_run(
    recognizer: SpeechRecognizer, minutes: float, texts: list[str], waves: list[np.ndarray]
) -> dict:
    """Clips over and over through one stream: WER of its first and of its last clips, memory."""
    mel_state = features.initial_state(1)
    state = recognizer.encoder.initial_state(1)
    memory_before = resident_megabytes()
    beam = BeamState()
    heard: list[tuple[str, str]] = []
    played_s = 0.0
    while played_s < 60 * minutes:
        number = len(heard) % len(waves)
        wave = with_silence(waves[number])
        words = []
        for tick in wave.view(-1, 1, TICK_SAMPLES):
            mel, mel_state = features.log_mel(tick, mel_state)
            (_, log_probs), state = recognizer.encoder.step(mel, state)
            words.append(recognizer.search(beam, log_probs[0].numpy()))
        heard.append((texts[number], join_words(words)))
        played_s += wave.shape[1] / SAMPLE_RATE
    ends = (heard[: len(texts)], heard[-len(texts) :])
    rates = [error_rate([a for a, _ in part], [b for _, b in part]) for part in ends]
    return {
        "minutes": round(played_s / 60, 1),
        "WER of the first and of the last clips": [round(rate, 3) for rate in rates],
        "MB of the process, before and after": [memory_before, resident_megabytes()],
    }


def resident_megabytes() -> int:
    """Resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024
