"""What the speaker head learns from: streams in which one to three voices speak in turn.

A stream is disturbed as the world would, and kept as what the encoder makes of it. A cache's folder
has `early.f16` [4 ticks, 2C] of all streams end to end, `streams.jsonl` with the first tick of each
stream, its ticks, and its segments as [voice, first tick, end] within it, and, where there is a
teacher, `taught.npy` with its vector of each voice [voices, 192].
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from duplex.audio import ENCODER_FRAMES_PER_TICK, SAMPLE_RATE, TICK_SAMPLES
from duplex.model.encoder import Encoder
from duplex.model.features import initial_state, log_mel
from duplex.training.data.augment import active_power, apply_room, augment, change_speed
from duplex.training.data.pool import Pool
from duplex.training.objectives.voices import SpeakerTeacher

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


def teach(voices: list[Voice], teacher: SpeakerTeacher, clips: int = 2) -> np.ndarray:
    """The teacher's vector of each voice [voices, 192], of length 1: the mean of a few clips."""
    found = []
    for number, voice in enumerate(voices):
        rng = np.random.default_rng(number)
        heard = [teacher.embed(torch.from_numpy(cut_segment(voice, rng))) for _ in range(clips)]
        found.append(torch.nn.functional.normalize(torch.stack(heard).mean(0), dim=0).numpy())
    return np.stack(found)


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


class StreamWriter:
    """Makes streams and appends them to a cache's folder."""

    def __init__(self, out: Path, encoder: Encoder, noises: list[np.ndarray]):
        self.encoder = encoder
        self.noises = noises
        self.early = open(out / "early.f16", "wb")
        self.index = open(out / "streams.jsonl", "w", encoding="utf-8")
        self.ticks = 0

    @torch.inference_mode()
    def append(self, segments: list[Segment], rng: np.random.Generator) -> None:
        """Disturb a stream, hear it, and write it down."""
        stream = torch.from_numpy(mix(segments, self.noises, rng))[None]
        mel, _ = log_mel(stream, initial_state(1))
        early = self.encoder.early_clip(mel)[0]
        self.early.write(early.half().numpy().tobytes())
        ticks = len(early) // ENCODER_FRAMES_PER_TICK
        places = []
        for segment in segments:
            end = -(-(segment.start + len(segment.wave)) // TICK_SAMPLES)
            places.append([segment.voice, segment.start // TICK_SAMPLES, min(ticks, end)])
        line = {"first": self.ticks, "ticks": ticks, "segments": places}
        self.index.write(json.dumps(line) + "\n")
        self.ticks += ticks

    def close(self) -> None:
        """All is written."""
        self.early.close()
        self.index.close()


class Streams:
    """A cache that is read: streams by number."""

    def __init__(self, folder: Path, width: int):
        """width: numbers of a frame."""
        with open(folder / "streams.jsonl", encoding="utf-8") as lines:
            self.lines = [json.loads(line) for line in lines]
        shape = (-1, ENCODER_FRAMES_PER_TICK, width)
        self.early = np.memmap(folder / "early.f16", np.float16, "r").reshape(shape)
        taught = folder / "taught.npy"
        self.taught = np.load(taught) if taught.exists() else None

    def batch(self, chosen: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """Early frames [B, 4n, width], padded; and of all segments their row, voice, first tick and
        end [segments, 4]."""
        lines = [self.lines[i] for i in chosen]
        longest = max(line["ticks"] for line in lines)
        early = np.zeros((len(lines), longest, *self.early.shape[1:]), np.float32)
        for row, line in enumerate(lines):
            early[row, : line["ticks"]] = self.early[line["first"] :][: line["ticks"]]
        segments = [(row, *seg) for row, line in enumerate(lines) for seg in line["segments"]]
        return torch.from_numpy(early).flatten(1, 2), np.array(segments)
