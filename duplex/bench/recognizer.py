"""The outside recogniser that judges: Whisper for words, and silero-vad for when somebody speaks.

Both run on a CPU and know nothing of the agent, so that any endpoint is judged by its sound alone.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soxr

from duplex.audio import SAMPLE_RATE
from duplex.bench.scenes import Word

# Hz, of both networks.
RECOGNIZER_RATE = 16_000


@dataclass
class Heard:
    """One channel as the recogniser hears it, times in seconds."""

    voice: list[tuple[float, float]] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)


class Whisper:
    """Whisper for English speech on a CPU, with weights in 8 bits (faster-whisper).

    `folder` is one of duplex.weights.whisper_tiny() and whisper_base().
    """

    def __init__(self, folder: Path, threads: int = 1):
        from faster_whisper import WhisperModel

        self._model = WhisperModel(str(folder), compute_type="int8", cpu_threads=threads)

    def text(self, wave: np.ndarray, beam_size: int = 5) -> str:
        """What is said in wave, float32 [N] at 24 kHz."""
        sound = soxr.resample(wave, SAMPLE_RATE, RECOGNIZER_RATE)
        segments, _ = self._model.transcribe(sound, language="en", beam_size=beam_size)
        return " ".join(segment.text.strip() for segment in segments).strip()

    def words(self, wave: np.ndarray, start_s: float = 0.0) -> list[Word]:
        """The words of wave, float32 [N] at 16 kHz, greedily; their times count from start_s."""
        segments, _ = self._model.transcribe(
            wave,
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
        )
        return [
            Word(
                word.word.strip(),
                round(start_s + float(word.start), 3),
                round(start_s + float(word.end), 3),
            )
            for segment in segments
            for word in segment.words
        ]


class Recognizer:
    """The bench's judge: when there is voice in a channel (silero-vad), and its words (Whisper)."""

    def __init__(self, whisper: Whisper):
        from silero_vad import load_silero_vad

        self._whisper = whisper
        self._detector = load_silero_vad(onnx=True)

    def __call__(self, wave: np.ndarray, margin_s: float = 0.3, max_gap_s: float = 1.0) -> Heard:
        """Voice and words of wave, float32 [N] at 24 kHz.

        Words are looked for only where there is voice, since Whisper invents some in silence:
        segments at most `max_gap_s` apart are recognised together, with `margin_s` around them.
        """
        wave = soxr.resample(wave, SAMPLE_RATE, RECOGNIZER_RATE).astype(np.float32)
        voice = self._voice(wave)
        words: list[Word] = []
        for begin_s, end_s in joined(voice, max_gap_s):
            first_s = max(0.0, begin_s - margin_s)
            last_s = end_s + margin_s
            part = wave[round(first_s * RECOGNIZER_RATE) : round(last_s * RECOGNIZER_RATE)]
            words += self._whisper.words(part, first_s)
        return Heard(voice, words)

    def _voice(self, wave: np.ndarray) -> list[tuple[float, float]]:
        """Where there is voice in wave, float32 [N] at 16 kHz, in seconds."""
        import torch
        from silero_vad import get_speech_timestamps

        found = get_speech_timestamps(
            torch.from_numpy(wave), self._detector, sampling_rate=RECOGNIZER_RATE
        )
        return [
            (round(one["start"] / RECOGNIZER_RATE, 3), round(one["end"] / RECOGNIZER_RATE, 3))
            for one in found
        ]


def joined(segments: list[tuple[float, float]], gap_s: float) -> list[tuple[float, float]]:
    """Segments in order, where neighbours with at most `gap_s` of silence between become one."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(segments):
        if merged and start - merged[-1][1] <= gap_s:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
