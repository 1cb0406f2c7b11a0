"""Correct what a trained codec gets wrong of the agent's voice in the same way everywhere.

    python -m duplex.training.finish --codec runs/codec --controlled pools/heart_controls \\
        --out runs/finished

It takes minutes, and no gradient goes through the codec:

- The pitch: what reads it off the decoder's frames was learned for all voices, here it is fitted to
  this one (least absolute error). Half a semitone of jitter is heard as roughness.
- The spectrum: distances between logarithms leave the mean power too low, most where it varies
  most. The long-term spectrum is made that of the pool's sound, by the biases of noise and
  harmonics alike.

The codes stay as they are.
"""

import argparse
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from duplex.audio import CODEC_FRAME_SAMPLES
from duplex.model.tts.codec import Codec, load_codec, save_codec
from duplex.model.tts.vocoder import BINS, MIDDLE_HZ, WINDOW_SAMPLES
from duplex.training.common.schedule import cosine
from duplex.training.data.crops import GAIN_DB
from duplex.training.data.vocoder_targets import ControlPool
from duplex.weights import DEFAULT_AGENT

# Frames at the beginning of a crop that are not looked at: the decoder lacks its past there.
SKIPPED_FRAMES = 15


def crops(pool: ControlPool, seed: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`count` batches of 8 crops of 3 s: waves [8, 1, N], pitch [8, 225] in Hz, 0 if unvoiced."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        found = [pool.crop(rng, 225, GAIN_DB) for _ in range(8)]
        waves = np.stack([wave for wave, _ in found]).astype(np.float32)
        hz = np.stack([rows[:, -1] for _, rows in found])
        yield torch.from_numpy(waves)[:, None], torch.from_numpy(hz)


@torch.no_grad()
def voiced_frames(codec: Codec, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The decoder's voiced frames [N, C], and the logarithm of their pitch over MIDDLE_HZ [N]."""
    features = []
    log_hz = []
    for wave, hz in batches:
        latent = codec.dequantize(codec.encode(wave))
        histories = codec.decoder.initial_state(len(wave)).histories
        frames = codec.decoder.network(latent, histories)[0][:, SKIPPED_FRAMES:]
        hz = hz[:, SKIPPED_FRAMES:]
        features.append(frames[hz > 0])
        log_hz.append((hz[hz > 0] / MIDDLE_HZ).log())
    return torch.cat(features), torch.cat(log_hz)


def fit_pitch(
    codec: Codec, pool: ControlPool, seed: int = 0, count: int = 60, steps: int = 3000
) -> tuple[float, float]:
    """Fit the decoder's pitch to a pool, in `steps` of 2048 frames of `count` batches.

    Returns the mean distance in semitones before and after.
    """
    decoder = codec.decoder
    features, wanted = voiced_frames(codec, crops(pool, seed, count))

    def distance(rows=slice(None)) -> Tensor:
        found = features[rows] @ decoder.to_pitch + decoder.pitch_bias
        return (found - wanted[rows]).abs().mean()

    before = float(distance().detach())
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([decoder.to_pitch, decoder.pitch_bias], lr=1e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * cosine(step / steps)
        optimizer.zero_grad()
        distance(torch.randint(len(features), (2048,), generator=generator)).backward()
        optimizer.step()
    after = float(distance().detach())
    return 12 * before / math.log(2), 12 * after / math.log(2)


@torch.no_grad()
def even_out(codec: Codec, pool: ControlPool, seed: int = 0, count: int = 60) -> Tensor:
    """Give the decoder's voice the long-term spectrum of a pool, measured on `count` batches.

    Returns what was added to each bin [BINS], in nepers, smoothed over 7 bins.
    """
    power = torch.zeros(2, BINS, dtype=torch.float64)
    window = torch.hann_window(WINDOW_SAMPLES)
    late = codec.decoder_delay_samples
    for wave, _ in crops(pool, seed, count):
        sound = codec.decode(codec.encode(wave))[:, late:]
        for row, part in zip(power, (wave[:, 0, :-late], sound), strict=True):
            part = part[:, SKIPPED_FRAMES * CODEC_FRAME_SAMPLES :]
            spectrum = torch.stft(part, WINDOW_SAMPLES, window=window, return_complex=True)
            row += spectrum.abs().square().double().sum((0, 2))
    missing = 0.5 * (power[0] / power[1]).log()
    padded = F.pad(missing[None], (3, 3), mode="replicate")
    missing = F.avg_pool1d(padded, 7, 1)[0].float()
    codec.decoder.to_spectrum.bias[: 2 * BINS] += missing.repeat(2)
    return missing


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--codec",
        type=Path,
        default=DEFAULT_AGENT / "codec",
        help="folder of a codec (default: the shipped agent's)",
    )
    parser.add_argument(
        "--controlled",
        type=Path,
        required=True,
        help="pool of the agent's voice, by duplex.training.controls",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for the codec, in float16")
    return parser.parse_args(arguments)


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    codec = load_codec(args.codec)
    pool = ControlPool(args.controlled)
    before, after = fit_pitch(codec, pool, args.seed)
    print(f"pitch: {before:.2f} -> {after:.2f} semitones")
    missing = even_out(codec, pool, args.seed)
    eighths = [round(float(part.mean() * 20 / math.log(10)), 2) for part in missing.chunk(8)]
    print("spectrum, decibels by eighths:", eighths)
    save_codec(codec, args.out, torch.float16)


if __name__ == "__main__":
    main()
