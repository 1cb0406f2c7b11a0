"""Sounds named: held-out clips, and what has no name, heard as a session hears them.

    python -m duplex.training.evaluate sounds --data DATA --out runs/evaluation

Each clip of the fifth that training.sounds held out stands in a stream of its own, as it is and
disturbed as the world would; right is the first label that is told. What is told of speech, other
noises and silence is false; of speech only test speakers are heard. Nothing but the encoder's early
frames, the head and the policy runs.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from duplex.agent.hearing.sounds import SoundPolicy, Sounds, hear
from duplex.agent.hearing.speech_activity import levels
from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.model.asr.encoder import Encoder
from duplex.model.sound import SoundHead, load_sound_head
from duplex.training import sounds
from duplex.training.data.augment import augment
from duplex.training.data.voices import hear as early_frames
from duplex.training.evaluation.intervals import interval
from duplex.training.evaluation.play import in_ticks
from duplex.weights import DEFAULT_AGENT

# Seconds of silence around a clip.
LEAD_S = 1.0


def labels(stream: np.ndarray, scores: np.ndarray, names: int, policy: SoundPolicy) -> list[int]:
    """The sounds that are told of a stream of n ticks [N] with these scores [n, K]."""
    state = Sounds(1)
    ticks = zip(scores, levels(torch.from_numpy(in_ticks(stream))), strict=True)
    found = []
    for tick, level_db in ticks:
        found += hear(state, tick[None], np.array([level_db]), names, policy).values()
    return found


@torch.inference_mode()
def score(stream: np.ndarray, encoder: Encoder, head: SoundHead) -> np.ndarray:
    """A stream [N], whole ticks -> scores [n, K]."""
    return head(early_frames(encoder, stream))[0].numpy()


def lay(wave: np.ndarray, rng: np.random.Generator, is_hard: bool) -> np.ndarray:
    """A clip between silences, whole ticks; is_hard: in a room, faint, clipped, with hiss."""
    silence = np.zeros(int(LEAD_S * SAMPLE_RATE), np.float32)
    stream = np.concatenate([silence, wave, silence])
    stream = stream[: len(stream) // TICK_SAMPLES * TICK_SAMPLES]
    if is_hard:
        return augment(stream, 1e-2, [], rng, hard_share=1.0)
    return stream + 1e-4 * rng.standard_normal(len(stream)).astype(np.float32)


def streams(
    clips: list[sounds.Clip], minutes: float, rng: np.random.Generator
) -> Iterator[tuple[int, bool, np.ndarray]]:
    """(kind, whether it is disturbed, stream): named clips both ways, then what has no name."""
    for clip in clips:
        if clip.kind < sounds.SPEECH:
            for is_hard in (False, True):
                yield clip.kind, is_hard, lay(clip.wave(), rng, is_hard)
    for kind in (sounds.SPEECH, sounds.NOISE):
        own = [clip for clip in clips if clip.kind == kind]
        seconds = 0.0
        for place in rng.permutation(len(own)):
            if seconds >= 60 * minutes:
                break
            wave = own[place].wave()[: 30 * SAMPLE_RATE]
            seconds += len(wave) / SAMPLE_RATE + 2 * LEAD_S
            yield kind, True, lay(wave, rng, is_hard=True)
    for _ in range(round(2 * minutes)):
        yield sounds.SILENCE, True, lay(np.zeros(28 * SAMPLE_RATE, np.float32), rng, True)


def held_sounds(data: Path, held: int = sounds.FOLDS - 1) -> dict[str, list[np.ndarray]]:
    """The recordings [N] of each named sound in the fifth that was held out."""
    found: dict[str, list[np.ndarray]] = {}
    names = list(sounds.NAMES.values())
    for clip in sounds.read_clips(data):
        if clip.kind < sounds.SPEECH and clip.fold == held:
            found.setdefault(names[clip.kind], []).append(clip.wave())
    return found


def summary(rows: list[tuple[int, bool, float, list[int]]]) -> dict:
    """Of (kind, disturbed, seconds, told): how many clips were named right, and false labels."""
    result = {}
    for name, is_hard in (("clean", False), ("disturbed", True)):
        own = [row for row in rows if row[0] < sounds.SPEECH and row[1] == is_hard]
        right = [float(told[:1] == [kind]) for kind, _, _, told in own]
        result[name] = {
            "right": sum(right) / max(1, len(own)),
            "interval": list(interval([(one, 1.0) for one in right])),
            "nothing": sum(not told for *_, told in own),
            "of": len(own),
        }
    unnamed = (("speech", sounds.SPEECH), ("noise", sounds.NOISE), ("silence", sounds.SILENCE))
    for name, kind in unnamed:
        own = [row for row in rows if row[0] == kind]
        minutes = sum(row[2] for row in own) / 60
        told = sum(len(row[3]) for row in own)
        result[name] = {"false labels": told, "minutes": round(minutes, 1)}
    return result


def evaluate_sounds(args: argparse.Namespace) -> dict:
    """`evaluate sounds`."""
    torch.set_num_threads(1)
    head = load_sound_head((args.agent or DEFAULT_AGENT) / "sounds")
    encoder = sounds.load_encoder((args.agent or DEFAULT_AGENT) / "encoder")
    rng = np.random.default_rng(args.seed)
    clips = [clip for clip in sounds.read_clips(args.data) if clip.fold == args.held]
    rows = []
    for kind, is_hard, stream in streams(clips, args.minutes, rng):
        scores = score(stream, encoder, head)
        told = labels(stream, scores, len(head.config.names), SoundPolicy())
        rows.append((kind, is_hard, len(stream) / SAMPLE_RATE, told))
        if kind >= sounds.SPEECH and told or kind < sounds.SPEECH and told[:1] != [kind]:
            print(kind, is_hard, [head.config.names[n] for n in told], flush=True)
    return summary(rows)
