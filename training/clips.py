"""Batches for the ears: utterances of several pools, joined with silences, disturbed, and padded to whole ticks.

Where the times of the words are known, a clip also has a path: the piece that should be heard at each tick.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.encoder import BLANK
from training.augment import SPEED_SHARE, active_power, augment, change_speed
from training.pool import Pool
from training.transcript import Pieces, heard_form

LONGEST_S = 15.0
JOIN_SHARE = 0.25  # of clips that get one more utterance, again and again
EMPTY_SHARE = 0.03  # of clips without any speech
LEAD_S = (0.0, 0.6)  # silence before the first utterance
GAP_S = (0.2, 2.0)  # between utterances
TAIL_S = (0.2, 0.6)  # after the last
CLIPS_AT_ONCE = 64  # drawn, sorted by length and cut into batches
HEARD_AFTER_S = 0.2  # a path has a piece in the tick that lies this long after the piece's end
UNKNOWN = -1  # in a path: anything may be heard


def lay(path: list[int], due: list[tuple[int, int]]) -> list[int]:
    """Put pieces, in order, at the ticks in which they are due, or in the next free one; the same path."""
    last = -1
    for piece, tick in due:
        again = last >= 0 and path[last] == piece  # then there must be a blank between
        last = max(tick, last + 1 + again)
        if last >= len(path):
            break  # so many pieces, so fast, that the last ones are heard only after the clip
        path[last] = piece
    return path


@dataclass
class Clip:
    """What is put together utterance by utterance."""

    parts: list[np.ndarray] = field(default_factory=list)
    target: list[int] = field(default_factory=list)  # CTC indices
    timed: list[tuple[int, float]] = field(default_factory=list)  # CTC index, seconds from the clip's beginning
    unknown: list[tuple[float, float]] = field(default_factory=list)  # from second to second: speech without times
    power: float = 1e-3  # mean square of the speech

    @property
    def samples(self) -> int:
        return sum(map(len, self.parts))

    @property
    def ticks(self) -> int:
        return -(-self.samples // TICK_SAMPLES)

    def add_silence(self, seconds: float) -> None:
        self.parts.append(np.zeros(int(seconds * SAMPLE_RATE), np.float32))

    def path(self) -> list[int]:
        """The CTC index of every tick: blank, a piece a little after its end, or UNKNOWN."""
        path = [BLANK] * self.ticks
        for start, end in self.unknown:
            ticks = slice(int(start * SAMPLE_RATE) // TICK_SAMPLES, int((end + 0.5) * SAMPLE_RATE) // TICK_SAMPLES)
            path[ticks] = [UNKNOWN] * len(path[ticks])
        return lay(path, [(piece, int((end + HEARD_AFTER_S) * SAMPLE_RATE) // TICK_SAMPLES) for piece, end in self.timed])


@dataclass
class Batch:
    clean: torch.Tensor  # [B, N] what the teacher hears
    wave: torch.Tensor  # [B, N] what the student hears
    ticks: torch.Tensor  # [B] length of each clip
    targets: list[list[int]]  # CTC indices
    paths: torch.Tensor  # [B, n] CTC index of every tick, or UNKNOWN


@dataclass
class Source:
    """A pool, the targets of its utterances (with times where they are known) and how often it is drawn from."""

    pool: Pool
    targets: list[list[int]]
    timed: list[list[tuple[int, float]] | None]
    share: float


def open_source(folder: str, share: float, pieces: Pieces) -> Source:
    pool = Pool(folder, split="train")
    targets = [pieces.spell(heard_form(entry["text"])) for entry in pool.entries]
    timed = [pieces.timed(e["words"], target) for e, target in zip(pool.entries, targets, strict=True)]
    return Source(pool, targets, timed, share)


def ticks_needed(target: list[int]) -> int:
    """A CTC path has one tick for each piece, and a blank between two equal ones."""
    return len(target) + sum(a == b for a, b in zip(target, target[1:], strict=False))


def add_utterance(clip: Clip, source: Source, i: int, rng: np.random.Generator) -> None:
    """Append utterance `i` at some speed; joined utterances are about equally loud, whatever pool they come from."""
    wave = source.pool.wave(i)
    speed = rng.uniform(0.9, 1.1) if rng.random() < SPEED_SHARE else 1.0
    if speed != 1.0:
        wave = change_speed(wave, speed)
    begin = clip.samples / SAMPLE_RATE
    clip.power = 1e-2
    clip.parts.append(wave * np.sqrt(clip.power / active_power(wave)) * 10 ** (rng.uniform(-3, 3) / 20))
    clip.target = clip.target + source.targets[i]
    if source.timed[i] is None:
        clip.unknown.append((begin, clip.samples / SAMPLE_RATE))
    else:
        clip.timed += [(piece, begin + seconds / speed) for piece, seconds in source.timed[i]]


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


def draw_batches(sources: list[Source], noises: list, hard_share: float, rng: np.random.Generator, seconds: float):
    """Draw some clips and yield them as batches of similar length, each at most `seconds` with its padding."""
    drawn = [draw_clip(sources, rng) for _ in range(CLIPS_AT_ONCE)]
    drawn = sorted((clip for clip in drawn if ticks_needed(clip.target) <= clip.ticks), key=lambda clip: clip.ticks)
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
    paths = torch.full((len(clips), longest), UNKNOWN)
    sounds = [np.concatenate(clip.parts) for clip in clips]
    for row, (clip, samples) in enumerate(zip(clips, sounds, strict=True)):
        other = sounds[row - 1] if len(clips) > 1 and clip.target else None  # alone he would be the speaker
        clean[row, : len(samples)] = torch.from_numpy(samples)
        wave[row, : len(samples)] = torch.from_numpy(augment(samples, clip.power, noises, rng, hard_share, other))
        paths[row, : clip.ticks] = torch.tensor(clip.path())
    return Batch(clean, wave, ticks, [clip.target for clip in clips], paths)
