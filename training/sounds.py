"""Fit the sound head: the encoder's early frames in, which sound it is out.

    python -m duplex.training.sounds --noise DATA --held 4 --out runs/sounds

DATA/audio.jsonl names recordings with their labels: the clips of ESC-10 (CC-BY and CC0) are the
sounds that get names; other noises and speech are nothing that has one. Each clip is heard several
times, somewhere in a stream that is disturbed as the world would. A linear discriminant analysis of
what the encoder makes of two seconds around it is the head: no gradient, minutes on one core. The
clips of a class stand in the order of their sources; of five equal parts one is --held out, and
`python -m duplex.training.evaluate sounds` asks the agent for it.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from duplex import checkpoint
from duplex.agent.hearing.sounds import SoundPolicy
from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.model.asr.encoder import Encoder, EncoderConfig
from duplex.model.sound import SoundConfig, SoundHead
from duplex.model.speaker import tick_statistics
from duplex.training.common.options import add_part
from duplex.training.common.run_log import describe_run
from duplex.training.data.augment import active_power, augment
from duplex.training.data.voices import hear, through_codec

# What ESC-10 calls them, and how they are told.
NAMES = {
    "Dog bark": "dog",
    "Rain": "rain",
    "Sea waves": "sea waves",
    "Baby cry": "crying baby",
    "Clock tick": "ticking clock",
    "Person sneeze": "sneeze",
    "Helicopter": "helicopter",
    "Chainsaw": "chainsaw",
    "Rooster": "rooster",
    "Fire crackling": "crackling fire",
}
# Kinds behind them that have no name.
SPEECH = len(NAMES)
NOISE = SPEECH + 1
SILENCE = SPEECH + 2
KINDS = SPEECH + 3
# Labels of other noises that may well be one of the sounds.
ALIKE = ("rain", "storm", "waves", "fireplace", "animals", "short")
FOLDS = 5
# Streams in which each clip is heard, and what has no name for each that has.
STREAMS = 4
SPEECH_STREAMS = 800
NOISE_STREAMS = 250
SILENCE_STREAMS = 150
STREAM_S = 4.5


@dataclass(frozen=True)
class Clip:
    """A recording, and which kind it is."""

    path: Path
    kind: int
    # Which fifth of its class it belongs to.
    fold: int

    def wave(self) -> np.ndarray:
        """float32 [N]."""
        wave, rate = soundfile.read(self.path, dtype="float32", always_2d=True)
        return soxr.resample(wave.mean(1), rate, SAMPLE_RATE).astype(np.float32)


def read_clips(data: Path) -> list[Clip]:
    """The sounds, other noises and speech of DATA/audio.jsonl; test speakers are the last fifth."""
    rows = [json.loads(line) for line in (data / "audio.jsonl").read_text().splitlines()]
    kinds = {label: number for number, label in enumerate(NAMES)}
    clips = []
    for label, kind in kinds.items():
        own = [row for row in rows if row["kind"] == "noise" and row.get("label") == label]
        for n, row in enumerate(own):
            clips.append(Clip(data / row["file"], kind, n * FOLDS // len(own)))
    for n, row in enumerate(rows):
        label = row.get("label")
        if row["kind"] == "noise" and label not in kinds and label not in ALIKE:
            clips.append(Clip(data / row["file"], NOISE, n % FOLDS))
        elif row["kind"] == "speech":
            fold = FOLDS - 1 if row["split"] == "test" else n % (FOLDS - 1)
            clips.append(Clip(data / row["file"], SPEECH, fold))
    return clips


def cut(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to four seconds of a wave [N], somewhere from its first loud moment on."""
    loud = np.flatnonzero(np.abs(wave) > 0.1 * np.abs(wave).max(initial=1e-6))
    first = int(loud[0]) if len(loud) else 0
    length = int(rng.uniform(1.0, 4.0) * SAMPLE_RATE)
    start = first + int(rng.integers(max(1, len(wave) - first - length)))
    return wave[start : start + length]


def make_stream(
    wave: np.ndarray, rng: np.random.Generator, hard_share: float = 0.6
) -> tuple[np.ndarray, int]:
    """A stream with a wave somewhere in it [N], whole ticks, disturbed; and where it begins."""
    stream = np.zeros(int(STREAM_S * SAMPLE_RATE) // TICK_SAMPLES * TICK_SAMPLES, np.float32)
    start = int(rng.uniform(0.0, 1.5) * SAMPLE_RATE)
    wave = wave[: len(stream) - start]
    stream[start : start + len(wave)] = wave
    stream = augment(stream, active_power(wave), [], rng, hard_share=hard_share)
    return (through_codec(stream, rng) if rng.random() < 0.15 else stream), start


@torch.inference_mode()
def read_windows(clips: list[Clip], encoder: Encoder, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean statistics of windows of streams [N, 4C], and their kinds [N]: two of each stream."""
    rng = np.random.default_rng(seed)
    named = [clip for clip in clips if clip.kind < SPEECH]
    drawn = [clip for clip in named for _ in range(STREAMS)]
    for kind, count in ((SPEECH, SPEECH_STREAMS), (NOISE, NOISE_STREAMS)):
        own = [clip for clip in clips if clip.kind == kind]
        drawn += [own[n] for n in rng.integers(len(own), size=count)] if own else []
    drawn += [None] * SILENCE_STREAMS
    rows = []
    kinds = []
    policy = SoundPolicy()
    for number, clip in enumerate(drawn):
        wave = cut(clip.wave(), rng) if clip else np.zeros(SAMPLE_RATE, np.float32)
        stream, start = make_stream(wave, rng)
        ticks = tick_statistics(hear(encoder, stream))[0].numpy()
        begin = start // TICK_SAMPLES + policy.least_ticks
        for end in rng.integers(begin, min(len(ticks), begin + policy.window_ticks) + 1, size=2):
            rows.append(ticks[max(0, end - policy.window_ticks) : end].mean(0))
            kinds.append(clip.kind if clip else SILENCE)
        if number % 500 == 0:
            print(f"{number} of {len(drawn)} streams", flush=True)
    return np.stack(rows), np.array(kinds)


def discriminants(
    x: np.ndarray, kinds: np.ndarray, shrinkage: float
) -> tuple[np.ndarray, np.ndarray]:
    """Linear discriminant analysis of rows x [N, X] of some kinds [N], each equally likely.

    Returns the weights [KINDS, X] and biases [KINDS] of scores whose differences are nats. Kinds
    without rows are never the best. shrinkage: share of the covariance within a kind that is taken
    to be the same in all directions.
    """
    mean = x.mean(0)
    deviation = x.std(0) + 1e-6
    x = (x - mean) / deviation
    present = np.unique(kinds)
    centres = np.stack([x[kinds == kind].mean(0) for kind in present])
    apart = x - centres[np.searchsorted(present, kinds)]
    within = apart.T @ apart / (len(x) - len(present))
    even = np.trace(within) / len(within) * np.eye(len(within), dtype=within.dtype)
    within = within * (1 - shrinkage) + shrinkage * even
    found = np.linalg.solve(within, centres.T).T
    weights = np.zeros((KINDS, x.shape[1]))
    biases = np.full(KINDS, -1e4)
    weights[present] = found / deviation
    biases[present] = -0.5 * (found * centres).sum(1) - weights[present] @ mean
    return weights.astype(np.float32), biases.astype(np.float32)


def fit(x: np.ndarray, kinds: np.ndarray, shrinkage: float) -> SoundHead:
    """The head that tells these windows' kinds."""
    weights, biases = discriminants(x, kinds, shrinkage)
    head = SoundHead(SoundConfig(x.shape[1] // 4, tuple(NAMES.values()), KINDS))
    with torch.no_grad():
        head.score.weight.copy_(torch.from_numpy(weights))
        head.score.bias.copy_(torch.from_numpy(biases))
    return head.eval()


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--noise", type=Path, required=True, metavar="DATA", help="folder with audio.jsonl"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the head")
    parser.add_argument(
        "--held", type=int, default=4, help="fifth that is held out, from 0 (default %(default)s)"
    )
    parser.add_argument("--shrinkage", type=float, default=0.3, help="(default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default %(default)s)")
    add_part(parser, "encoder")
    return parser.parse_args(arguments)


def load_encoder(folder: Path) -> Encoder:
    """The encoder in a folder."""
    encoder = Encoder(checkpoint.load_config(EncoderConfig, folder))
    encoder.load_state_dict(checkpoint.load_tensors(folder))
    return encoder.eval()


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    describe_run(args, "duplex.training.sounds")
    clips = [clip for clip in read_clips(args.noise) if clip.fold != args.held]
    windows, kinds = read_windows(clips, load_encoder(args.encoder), args.seed)
    head = fit(windows, kinds, args.shrinkage)
    checkpoint.save(head.state_dict(), head.config, args.out, dtype=torch.float16)


if __name__ == "__main__":
    main()
