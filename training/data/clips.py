"""Batches for the encoder: utterances joined with silences, disturbed, padded to whole ticks."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from duplex.audio import ENCODER_FRAMES_PER_TICK, SAMPLE_RATE, TICK_SAMPLES
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.data.augment import active_power, augment, change_speed
from duplex.training.data.forced_alignment import frames_needed
from duplex.training.data.normalize import phones
from duplex.training.data.pool import Pool


@dataclass
class Clip:
    """What is put together utterance by utterance."""

    parts: list[np.ndarray] = field(default_factory=list)  # float32 [N] each.
    target: list[int] = field(default_factory=list)  # Phones.
    power: float = 1e-3  # Mean square of the speech.

    @property
    def samples(self) -> int:
        """Samples so far."""
        return sum(map(len, self.parts))

    @property
    def ticks(self) -> int:
        """Ticks that hold all of it."""
        return -(-self.samples // TICK_SAMPLES)

    def add_silence(self, seconds: float) -> None:
        """Append so much silence."""
        self.parts.append(np.zeros(int(seconds * SAMPLE_RATE), np.float32))


@dataclass
class Batch:
    """B clips, padded to N samples."""

    clean: torch.Tensor  # [B, N] what the teacher hears.
    wave: torch.Tensor  # [B, N] what the student hears.
    ticks: torch.Tensor  # [B] length of each clip.
    targets: list[list[int]]  # The phones of each.


@dataclass
class Source:
    """A pool, what is said in its utterances, and how often it is drawn from."""

    pool: Pool
    targets: list[list[int]]  # Phones.
    share: float


def open_source(folder: str | Path, share: float) -> Source:
    """The training part of the pool in a folder."""
    pool = Pool(folder, split="train")
    return Source(pool, [phones(spoken_form(entry["text"])) for entry in pool.entries], share)


def add_utterance(clip: Clip, source: Source, i: int, rng: np.random.Generator) -> None:
    """Append utterance i; six in ten at another speed.

    Joined utterances are about equally loud, whatever pool they come from.
    """
    wave = source.pool.wave(i)
    speed = rng.uniform(0.85, 1.15) if rng.random() < 0.6 else 1.0
    if speed != 1.0:
        wave = change_speed(wave, speed)
    clip.power = 1e-2
    level = np.sqrt(clip.power / active_power(wave))
    clip.parts.append(wave * level * 10 ** (rng.uniform(-3, 3) / 20))
    clip.target = clip.target + source.targets[i]


def sample_clip(sources: list[Source], rng: np.random.Generator) -> Clip:
    """One to a few utterances, together about 15 s at most, with silence around them.

    Three in a hundred are silence alone. A quarter of the clips gets one more utterance, again and
    again.
    """
    clip = Clip()
    clip.add_silence(rng.uniform(0.0, 0.6))
    shares = np.array([source.share for source in sources])
    speaking = rng.random() >= 0.03
    if not speaking:
        clip.add_silence(rng.uniform(2.0, 6.0))
    while speaking:
        source = sources[rng.choice(len(sources), p=shares / shares.sum())]
        i = int(rng.integers(len(source.pool)))
        if clip.samples + source.pool.entries[i]["samples"] <= 15.0 * SAMPLE_RATE:
            add_utterance(clip, source, i, rng)
        elif not clip.target:
            continue  # It is too long even alone.
        speaking = rng.random() < 0.25
        if speaking:
            clip.add_silence(rng.uniform(0.2, 2.0))
    clip.add_silence(rng.uniform(0.2, 0.6))
    return clip


def sample_batches(
    sources: list[Source],
    noises: list[np.ndarray],
    hard_share: float,
    rng: np.random.Generator,
    seconds: float,
) -> Iterator[Batch]:
    """64 clips as batches of similar length, each of at most `seconds` with its padding.

    hard_share: see `augment`. Clips with more phones than frames to hear them in are left out.
    """
    clips = [sample_clip(sources, rng) for _ in range(64)]
    clips = [c for c in clips if frames_needed(c.target) <= c.ticks * ENCODER_FRAMES_PER_TICK]
    groups: list[list[Clip]] = [[]]
    for clip in sorted(clips, key=lambda clip: clip.ticks):
        if groups[-1] and clip.ticks * TICK_SAMPLES * (len(groups[-1]) + 1) > seconds * SAMPLE_RATE:
            groups.append([])
        groups[-1].append(clip)
    for g in rng.permutation(len(groups)):
        yield collate_clips(groups[g], noises, hard_share, rng)


def collate_clips(
    clips: list[Clip], noises: list[np.ndarray], hard_share: float, rng: np.random.Generator
) -> Batch:
    """The clips as one batch, disturbed. The clip before one may be heard behind it."""
    ticks = torch.tensor([clip.ticks for clip in clips])
    clean = torch.zeros(len(clips), int(ticks.max()) * TICK_SAMPLES)
    wave = torch.zeros_like(clean)
    sounds = [np.concatenate(clip.parts) for clip in clips]
    for row, (clip, samples) in enumerate(zip(clips, sounds, strict=True)):
        # Behind silence another speaker would be the one who speaks.
        other = sounds[row - 1] if len(clips) > 1 and clip.target else None
        disturbed = augment(samples, clip.power, noises, rng, hard_share, other)
        clean[row, : len(samples)] = torch.from_numpy(samples)
        wave[row, : len(samples)] = torch.from_numpy(disturbed)
    return Batch(clean, wave, ticks, [clip.target for clip in clips])
