"""A folder of spoken texts: what is missing there is said by voices that no training has heard."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
import soxr

from duplex import weights
from duplex.audio import SAMPLE_RATE
from duplex.training.data.synthesizers import KOKORO, Kokoro
from duplex.training.evaluation.play import LEAD_IN_SAMPLES


def open_kokoro() -> Kokoro:
    """Kokoro's voices. Raises weights.WeightsError."""
    return Kokoro(weights.folder(KOKORO))


class SpokenTexts:
    """NAME.wav for every text; the voices are opened only when a text is missing."""

    def __init__(self, folder: Path, open_voices: Callable[[], Kokoro] = open_kokoro):
        self.folder = folder
        self._open_voices = open_voices

    @cached_property
    def _voices(self) -> Kokoro:
        return self._open_voices()

    def path(self, name: str) -> Path:
        """Where a text is spoken."""
        return self.folder / f"{name}.wav"

    def speak(self, name: str, text: str, voice: int) -> None:
        """Make NAME.wav, if it is not there, with voice `voice` modulo the number of voices."""
        path = self.path(name)
        if path.exists():
            return
        wave = self._voices.say(text, voice % len(self._voices.voices))
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")  # whole under its name, or not at all
        soundfile.write(part, wave, SAMPLE_RATE, "PCM_16", format="WAV")
        part.rename(path)

    def read(self, name: str, lead_in_samples: int = LEAD_IN_SAMPLES) -> np.ndarray:
        """float32 [N] at the agent's rate, after the lead-in."""
        wave, rate_hz = soundfile.read(self.path(name), dtype="float32")
        wave = soxr.resample(wave, rate_hz, SAMPLE_RATE).astype(np.float32)
        return np.pad(wave, (lead_in_samples, 0))
