"""Fit the speaker head: the encoder's early frames in, a vector a tick that tells voices apart.

    python -m duplex.training.speaker --noise DATA --pool pools/real_apart=0.6 \\
        --pool pools/many_voices=0.33 --pool pools/kokoro_voices=0.07 --out runs/speaker

The pools hold several utterances of each voice (duplex.training.speech --each). --streams streams,
in which one to three of them speak, are disturbed as the world would and heard by the encoder. A
linear discriminant analysis of what it makes of their segments is the head: the directions in which
voices differ most, in units of how much one voice differs from itself. There is no gradient and no
teacher; it takes minutes on one core. The encoder stays as it is.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from duplex import checkpoint
from duplex.model.asr.encoder import Encoder, EncoderConfig
from duplex.model.speaker import SpeakerConfig, SpeakerHead, tick_statistics
from duplex.training.common.options import add_noise, add_part, pool_share
from duplex.training.common.run_log import describe_run
from duplex.training.data.augment import load_noise
from duplex.training.data.voices import Voice, hear, mix, read_voices, sample_segments

# Ticks of the shortest segment that is learned from, and of the part that is learned from beside
# each whole one: 1.5 s, after which a label is wanted.
MIN_TICKS = 8
PART_TICKS = 19


@torch.inference_mode()
def read_segments(
    args: argparse.Namespace, voices: list[list[Voice]], encoder: Encoder
) -> tuple[np.ndarray, np.ndarray]:
    """The head's mean statistics of segments [N, 4C], whole ones and their beginnings, and the
    number of the voice of each [N]."""
    noises = load_noise(args.noise) if args.noise else []
    shares = [share for _, share in args.pool]
    rows = []
    names = []
    for number in range(args.streams):
        rng = np.random.default_rng([args.seed, number])
        segments = sample_segments(voices, shares, rng)
        ticks = tick_statistics(hear(encoder, mix(segments, noises, rng)))[0].numpy()
        for segment in segments:
            start, end = segment.ticks(len(ticks))
            if end - start >= MIN_TICKS:
                for part in {end, min(end, start + PART_TICKS)}:
                    rows.append(ticks[start:part].mean(0))
                    names.append(segment.voice)
        if number % 500 == 0:
            print(f"{number} streams", flush=True)
    return np.stack(rows), np.array(names)


def discriminant(
    x: np.ndarray, names: np.ndarray, size: int, shrinkage: float
) -> tuple[np.ndarray, np.ndarray]:
    """Linear discriminant analysis: the mean of rows x [N, X], and a matrix [X, size] that takes a
    row less that mean to where voices differ.

    names [N]: the voice of each row; those with fewer than four rows say nothing. shrinkage: share
    of the covariance within a voice that is taken to be the same in all directions.
    """
    mean = x.mean(0)
    deviation = x.std(0) + 1e-6
    x = (x - mean) / deviation
    groups = [x[names == name] for name in np.unique(names)]
    groups = [rows for rows in groups if len(rows) >= 4]
    centres = np.stack([rows.mean(0) for rows in groups])
    apart = np.concatenate([rows - rows.mean(0) for rows in groups])
    within = apart.T @ apart / (len(apart) - len(groups))
    even = np.trace(within) / len(within) * np.eye(len(within), dtype=within.dtype)
    within = within * (1 - shrinkage) + shrinkage * even
    whitened = np.linalg.inv(np.linalg.cholesky(within)).T
    _, _, directions = np.linalg.svd((centres - centres.mean(0)) @ whitened, full_matrices=False)
    return mean, whitened @ directions[:size].T / deviation[:, None]


def fit(head: SpeakerHead, mean: np.ndarray, matrix: np.ndarray) -> None:
    """Put a discriminant analysis into the head; only directions matter, so numbers are near 1."""
    scaled = matrix / np.linalg.norm(matrix, axis=0).mean()
    with torch.no_grad():
        head.project.weight.copy_(torch.from_numpy(scaled.T))
        head.project.bias.copy_(torch.from_numpy(-mean @ scaled))


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pool",
        type=pool_share,
        action="append",
        required=True,
        metavar="FOLDER[=SHARE]",
        help="speech pool with several utterances of each voice, and its share; repeatable",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the head")
    parser.add_argument(
        "--streams", type=int, default=1500, help="that are heard, 5 s each (default %(default)s)"
    )
    parser.add_argument(
        "--vector", type=int, default=128, help="numbers of a vector (default %(default)s)"
    )
    parser.add_argument("--shrinkage", type=float, default=0.3, help="(default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default %(default)s)")
    add_part(parser, "encoder")
    add_noise(parser)
    return parser.parse_args(arguments)


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    describe_run(args, "duplex.training.speaker")
    encoder = Encoder(checkpoint.load_config(EncoderConfig, args.encoder))
    encoder.load_state_dict(checkpoint.load_tensors(args.encoder))
    voices = [read_voices(folder) for folder, _ in args.pool]
    print(f"{sum(map(len, voices))} voices", flush=True)
    width = encoder.config.width
    x, names = read_segments(args, voices, encoder)
    mean, matrix = discriminant(x, names, args.vector, args.shrinkage)
    head = SpeakerHead(SpeakerConfig(width, matrix.shape[1]))
    fit(head, mean.astype(np.float32), matrix.astype(np.float32))
    checkpoint.save(head.state_dict(), head.config, args.out)


if __name__ == "__main__":
    main()
