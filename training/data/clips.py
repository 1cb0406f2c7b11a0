"""Batches for the ears: utterances of several pools, joined with silences, disturbed, and padded to whole ticks."""

from dataclasses import dataclass, field

import numpy as np
import torch
from duplex.training.data.augment import SPEED_SHARE, active_power, augment, change_speed
from duplex.training.data.normalize import heard_form, phones
from duplex.training.data.pool import Pool

from duplex.audio import ENCODER_FRAMES_PER_TICK, SAMPLE_RATE, TICK_SAMPLES

LONGEST_S = 15.0
JOIN_SHARE = 0.25  # of clips that get one more utterance, again and again
EMPTY_SHARE = 0.03  # of clips without any speech
LEAD_S = (0.0, 0.6)  # silence before the first utterance
GAP_S = (0.2, 2.0)  # between utterances
TAIL_S = (0.2, 0.6)  # after the last
CLIPS_AT_ONCE = 64  # drawn, sorted by length and cut into batches


@dataclass
class Clip:
    """What is put together utterance by utterance."""

    parts: list[np.ndarray] = field(default_factory=list)
    target: list[int] = field(default_factory=list)  # phones
    power: float = 1e-3  # mean square of the speech

    @property
    def samples(self) -> int:
        return sum(map(len, self.parts))

    @property
    def ticks(self) -> int:
        return -(-self.samples // TICK_SAMPLES)

    def add_silence(self, seconds: float) -> None:
        self.parts.append(np.zeros(int(seconds * SAMPLE_RATE), np.float32))


@dataclass
class Batch:
    clean: torch.Tensor  # [B, N] what the teacher hears
    wave: torch.Tensor  # [B, N] what the student hears
    ticks: torch.Tensor  # [B] length of each clip
    targets: list[list[int]]  # phones


@dataclass
class Source:
    """A pool, what is said in its utterances and how often it is drawn from."""

    pool: Pool
    targets: list[list[int]]
    share: float


def open_source(folder: str, share: float) -> Source:
    pool = Pool(folder, split="train")
    return Source(pool, [phones(heard_form(entry["text"])) for entry in pool.entries], share)


def frames_needed(target: list[int]) -> int:
    """A CTC path has one frame for each phone, and a blank between two equal ones."""
    return len(target) + sum(a == b for a, b in zip(target, target[1:], strict=False))


def add_utterance(clip: Clip, source: Source, i: int, rng: np.random.Generator) -> None:
    """Append utterance `i` at some speed; joined utterances are about equally loud, whatever pool they come from."""
    wave = source.pool.wave(i)
    speed = rng.uniform(0.85, 1.15) if rng.random() < SPEED_SHARE else 1.0
    if speed != 1.0:
        wave = change_speed(wave, speed)
    clip.power = 1e-2
    clip.parts.append(
        wave * np.sqrt(clip.power / active_power(wave)) * 10 ** (rng.uniform(-3, 3) / 20)
    )
    clip.target = clip.target + source.targets[i]


def draw_clip(sources: list[Source], rng: np.random.Generator) -> Clip:
    """One to a few utterances with silence around them, or only silence."""
    clip = Clip()
    clip.add_silence(rng.uniform(*LEAD_S))
    shares = np.array([source.share for source in sources])
    speaking = rng.random() >= EMPTY_SHARE
    if not speaking:
        clip.add_silence(rng.uniform(2.0, 6.0))
    while speaking:
        source = sources[rng.choice(len(sources), p=shares / shares.sum())]
        i = int(rng.integers(len(source.pool)))
        if clip.samples + source.pool.entries[i]["samples"] <= LONGEST_S * SAMPLE_RATE:
            add_utterance(clip, source, i, rng)
        elif not clip.target:
            continue  # too long even alone
        speaking = rng.random() < JOIN_SHARE
        if speaking:
            clip.add_silence(rng.uniform(*GAP_S))
    clip.add_silence(rng.uniform(*TAIL_S))
    return clip


def draw_batches(
    sources: list[Source], noises: list, hard_share: float, rng: np.random.Generator, seconds: float
):
    """Draw some clips and yield them as batches of similar length, each at most `seconds` with its padding."""
    drawn = [draw_clip(sources, rng) for _ in range(CLIPS_AT_ONCE)]
    drawn = sorted(
        (c for c in drawn if frames_needed(c.target) <= c.ticks * ENCODER_FRAMES_PER_TICK),
        key=lambda clip: clip.ticks,
    )
    groups: list[list[Clip]] = [[]]
    for clip in drawn:
        if groups[-1] and clip.ticks * TICK_SAMPLES * (len(groups[-1]) + 1) > seconds * SAMPLE_RATE:
            groups.append([])
        groups[-1].append(clip)
    for g in rng.permutation(len(groups)):
        yield collate(groups[g], noises, hard_share, rng)


def collate(clips: list[Clip], noises: list, hard_share: float, rng: np.random.Generator) -> Batch:
    ticks = torch.tensor([clip.ticks for clip in clips])
    longest = int(ticks.max())
    clean = torch.zeros(len(clips), longest * TICK_SAMPLES)
    wave = torch.zeros_like(clean)
    sounds = [np.concatenate(clip.parts) for clip in clips]
    for row, (clip, samples) in enumerate(zip(clips, sounds, strict=True)):
        other = (
            sounds[row - 1] if len(clips) > 1 and clip.target else None
        )  # alone he would be the speaker
        clean[row, : len(samples)] = torch.from_numpy(samples)
        wave[row, : len(samples)] = torch.from_numpy(
            augment(samples, clip.power, noises, rng, hard_share, other)
        )
    return Batch(clean, wave, ticks, [clip.target for clip in clips])
