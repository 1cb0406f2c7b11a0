"""The outside ears of the bench: when somebody speaks (silero-vad) and which words at which times (Whisper base, faster-whisper).

Both run on a CPU and know nothing of the agent, so that any endpoint is judged by its sound alone.
"""

from dataclasses import dataclass, field

import numpy as np
import soxr

from duplex.audio import SAMPLE_RATE
from duplex.bench.scenes import Word

RATE = 16_000  # Hz, of both networks
ROOM_S = 0.3  # silence kept around what the recogniser is given
SAME_UTTERANCE_S = 1.0  # stretches of voice closer than this are recognised together


@dataclass
class Heard:
    """One channel as the ears hear it, times in seconds."""

    voice: list[tuple[float, float]] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)


class Ears:
    def __init__(self, offline: bool = False, threads: int = 1):
        from faster_whisper import WhisperModel
        from silero_vad import load_silero_vad

        from duplex import weights

        self._detector = load_silero_vad(onnx=True)
        folder = str(weights.whisper_base(offline))
        self._recogniser = WhisperModel(folder, compute_type="int8", cpu_threads=threads)

    def __call__(self, wave: np.ndarray) -> Heard:
        """wave float32 [N], 24 kHz -> voice and words. Words are looked for only where there is voice: Whisper invents
        some in silence."""
        wave = soxr.resample(wave, SAMPLE_RATE, RATE).astype(np.float32)
        voice = self._voice(wave)
        words: list[Word] = []
        for begin, end in joined(voice, SAME_UTTERANCE_S):
            begin, end = max(0.0, begin - ROOM_S), end + ROOM_S
            words += self._words(wave[round(begin * RATE) : round(end * RATE)], begin)
        return Heard(voice, words)

    def _voice(self, wave: np.ndarray) -> list[tuple[float, float]]:
        import torch
        from silero_vad import get_speech_timestamps

        found = get_speech_timestamps(torch.from_numpy(wave), self._detector, sampling_rate=RATE)
        return [(round(one["start"] / RATE, 3), round(one["end"] / RATE, 3)) for one in found]

    def _words(self, wave: np.ndarray, begin: float) -> list[Word]:
        options = {
            "language": "en",
            "beam_size": 1,
            "temperature": 0.0,
            "condition_on_previous_text": False,
        }
        segments, _ = self._recogniser.transcribe(wave, word_timestamps=True, **options)
        words = [word for segment in segments for word in segment.words]
        return [
            Word(w.word.strip(), round(begin + float(w.start), 3), round(begin + float(w.end), 3))
            for w in words
        ]


def joined(segments: list[tuple[float, float]], gap_s: float) -> list[tuple[float, float]]:
    """Neighbours with at most `gap_s` of silence between them become one."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(segments):
        if merged and start - merged[-1][1] <= gap_s:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
