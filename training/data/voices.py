"""What the speaker head learns from: streams in which one to three voices speak in turn, disturbed
as the world would.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.model.asr.encoder import Encoder
from duplex.model.asr.features import initial_state, log_mel
from duplex.training.data.augment import active_power, apply_room, augment, change_speed
from duplex.training.data.pool import Pool

# A recorded speaker is three people: as they are, and larger and smaller.
SIZES = (0.88, 1.0, 1.13)
# Seconds of a segment.
SEGMENT_S = (0.7, 4.0)


@dataclass(frozen=True)
class Voice:
    """One voice of a pool, and its utterances."""

    name: str
    pool: Pool
    utterances: list[int]
    speed: float = 1.0


@dataclass(frozen=True)
class Segment:
    """What one voice says at a stretch, and where in its stream [samples]."""

    voice: int
    start: int
    wave: np.ndarray  # float32 [N]

    def ticks(self, most: int) -> tuple[int, int]:
        """Its first tick, and the one after its last, of a stream of so many."""
        end = -(-(self.start + len(self.wave)) // TICK_SAMPLES)
        return self.start // TICK_SAMPLES, min(most, end)


def read_voices(folder: Path, split: str | None = "train") -> list[Voice]:
    """The voices of a pool with two utterances or more; recorded ones in three sizes.

    Recordings whose speaker is not known are left out.
    """
    pool = Pool(folder, split=split)
    by_name: dict[str, list[int]] = {}
    for i, entry in enumerate(pool.entries):
        if entry["samples"] >= SEGMENT_S[0] * SAMPLE_RATE and entry["voice"] != "real:None":
            by_name.setdefault(entry["voice"], []).append(i)
    voices = []
    for name, utterances in sorted(by_name.items()):
        sizes = SIZES if name.startswith("real:") else (1.0,)
        if len(utterances) > 1:
            voices += [Voice(f"{name},speed={s}", pool, utterances, s) for s in sizes]
    return voices


def trim(wave: np.ndarray) -> np.ndarray:
    """A wave [N] without the silence before and behind its speech."""
    stretch = SAMPLE_RATE // 50
    power = np.square(wave[: len(wave) // stretch * stretch]).reshape(-1, stretch).mean(1)
    loud = np.flatnonzero(power > 0.01 * power.max(initial=0))
    if not len(loud):
        return wave
    return wave[loud[0] * stretch : (loud[-1] + 1) * stretch]


def cut_segment(voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """A part of one of a voice's utterances, of mean square about 1e-2 where it is loud."""
    wave = voice.pool.wave(int(rng.choice(voice.utterances)))
    wave = trim(wave if voice.speed == 1.0 else change_speed(wave, voice.speed))
    length = int(rng.uniform(*SEGMENT_S) * SAMPLE_RATE)
    start = int(rng.integers(max(1, len(wave) - length + 1)))
    wave = wave[start : start + length]
    level = np.sqrt(1e-2 / active_power(wave)) * 10 ** (rng.uniform(-6, 6) / 20)
    return (wave * level).astype(np.float32)


def sample_segments(voices: list[list[Voice]], shares: list[float], rng) -> list[Segment]:
    """One to three segments in turn; every third is by the voice before it.

    voices: of each pool, with its share; a voice's number counts through all pools.
    """
    first = np.cumsum([0, *map(len, voices)])
    share = np.array(shares) / np.sum(shares)
    segments: list[Segment] = []
    at = int(rng.uniform(0.0, 0.6) * SAMPLE_RATE)
    chosen = None
    for _ in range(rng.integers(1, 4)):
        if chosen is None or rng.random() > 0.3:
            pool = rng.choice(len(voices), p=share)
            chosen = pool, int(rng.integers(len(voices[pool])))
        pool, place = chosen
        wave = cut_segment(voices[pool][place], rng)
        segments.append(Segment(int(first[pool]) + place, at, wave))
        gap_s = rng.uniform(0.02, 0.2) if rng.random() < 0.4 else rng.uniform(0.2, 1.2)
        at += len(wave) + int(gap_s * SAMPLE_RATE)
    return segments


def through_codec(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A wave [N] after a codec: Opus, MP3 at 16 kHz, or 8-bit mu-law at 8 kHz."""
    kind = rng.choice(["opus", "mp3", "ulaw"])
    rate = {"opus": SAMPLE_RATE, "mp3": 16_000, "ulaw": 8_000}[kind]
    sent = soxr.resample(wave, SAMPLE_RATE, rate).clip(-1, 1)
    file = io.BytesIO()
    if kind == "ulaw":
        soundfile.write(file, sent, rate, format="WAV", subtype="ULAW")
    else:
        made = {"opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III")}[kind]
        level = float(rng.uniform(0.6, 0.95))
        soundfile.write(file, sent, rate, *made[1:], format=made[0], compression_level=level)
    file.seek(0)
    heard, rate = soundfile.read(file, dtype="float32")
    heard = soxr.resample(heard, rate, SAMPLE_RATE)
    return np.resize(np.pad(heard, (0, max(0, len(wave) - len(heard)))), len(wave))


def mix(segments: list[Segment], noises: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A stream float32 [N], whole ticks; some segments have rooms of their own."""
    end = segments[-1].start + len(segments[-1].wave) + int(rng.uniform(0.1, 0.5) * SAMPLE_RATE)
    stream = np.zeros(-(-end // TICK_SAMPLES) * TICK_SAMPLES, np.float32)
    for segment in segments:
        wave = segment.wave
        if rng.random() < 0.3:
            wave = apply_room(wave, rng)
        stream[segment.start : segment.start + len(wave)] += wave
    stream = augment(stream, 1e-2, noises, rng, hard_share=0.6)
    return through_codec(stream, rng) if rng.random() < 0.25 else stream


@torch.inference_mode()
def hear(encoder: Encoder, stream: np.ndarray) -> torch.Tensor:
    """A stream [N], whole ticks -> what the encoder makes of it early on [1, 4n, 2C]."""
    mel, _ = log_mel(torch.from_numpy(stream)[None], initial_state(1))
    return encoder.early_clip(mel)
