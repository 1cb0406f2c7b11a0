"""Set right what a trained codec gets wrong of the agent's voice in the same way everywhere; minutes, without gradients through it.

    python -m duplex.training.finish runs/codec --controlled pools/heart_controls --out runs/finished

- The pitch: what reads it off the decoder's frames was learned for all voices, here it is fitted to this one (least absolute
  error). Half a semitone of jitter is heard as roughness.
- The spectrum: distances between logarithms leave the mean power too low, most where it varies most. The long-term spectrum is
  made that of the pool's sound, by the biases of noise and harmonics alike.

The codes stay as they are.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from duplex.training.codec import GAIN_DB
from duplex.training.controls import ControlPool
from torch import Tensor
from torch.nn import functional as F

from duplex.audio import CODEC_FRAME_SAMPLES
from duplex.model.codec import Codec, load_codec, save_codec
from duplex.model.vocoder import BINS, MIDDLE_HZ, WINDOW_SAMPLES

FRAMES, BATCH, BATCHES = 225, 8, 60  # 3 s each, 24 minutes in all
BEGINNING = 15  # frames of each, in which the decoder lacks its past
STEPS, ROWS, RATE = 3000, 2048, 1e-3
SMOOTH_BINS = 7


def crops(pool: ControlPool, seed: int):
    """Batches: waves [B, 1, N], the pitch in Hz of their frames [B, FRAMES], 0 where unvoiced."""
    for number in range(BATCHES):
        rng = np.random.default_rng([seed, number])
        waves, controls = zip(*(pool.crop(rng, FRAMES, GAIN_DB) for _ in range(BATCH)), strict=True)
        yield (
            torch.from_numpy(np.stack(waves).astype(np.float32))[:, None],
            torch.from_numpy(np.stack(controls)[..., -1]),
        )


def fit_pitch(codec: Codec, pool: ControlPool, seed: int = 0) -> tuple[float, float]:
    """-> mean distance in semitones before and after"""
    decoder, features, wanted = codec.decoder, [], []
    with torch.no_grad():
        for wave, hz in crops(pool, seed):
            latent = codec.dequantize(codec.encode(wave))
            frames = decoder.network(latent, decoder.initial_state(BATCH).histories)[0]
            voiced = hz[:, BEGINNING:] > 0
            features.append(frames[:, BEGINNING:][voiced])
            wanted.append((hz[:, BEGINNING:][voiced] / MIDDLE_HZ).log())
    features, wanted = torch.cat(features), torch.cat(wanted)

    def distance(rows=slice(None)) -> Tensor:
        return (features[rows] @ decoder.to_pitch + decoder.pitch_bias - wanted[rows]).abs().mean()

    before, generator = float(distance().detach()), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([decoder.to_pitch, decoder.pitch_bias], lr=RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        distance(torch.randint(len(features), (ROWS,), generator=generator)).backward()
        optimizer.step()
        falling.step()
    return 12 * before / np.log(2), 12 * float(distance().detach()) / np.log(2)


@torch.no_grad()
def even_out(codec: Codec, pool: ControlPool, seed: int = 0) -> Tensor:
    """-> what was added to each bin [BINS], nepers"""
    power = torch.zeros(2, BINS, dtype=torch.float64)
    window, late = torch.hann_window(WINDOW_SAMPLES), codec.decoder_delay_samples
    for wave, _ in crops(pool, seed):
        sound = codec.decode(codec.encode(wave))[:, late:]
        for row, part in zip(power, (wave[:, 0, :-late], sound), strict=True):
            part = part[:, BEGINNING * CODEC_FRAME_SAMPLES :]
            row += (
                torch.stft(part, WINDOW_SAMPLES, window=window, return_complex=True)
                .abs()
                .square()
                .double()
                .sum((0, 2))
            )
    missing = 0.5 * (power[0] / power[1]).log()
    missing = F.avg_pool1d(
        F.pad(missing[None], 2 * [SMOOTH_BINS // 2], mode="replicate"), SMOOTH_BINS, 1
    )[0].float()
    codec.decoder.to_spectrum.bias[: 2 * BINS] += missing.repeat(2)
    return missing


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("codec", type=Path, help="folder of a codec")
    parser.add_argument(
        "--controlled",
        type=Path,
        required=True,
        help="pool of the agent's voice (duplex.training.controls)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the weights, in half precision"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    codec, pool = load_codec(args.codec), ControlPool(args.controlled)
    before, after = fit_pitch(codec, pool, args.seed)
    print(f"pitch: {before:.2f} -> {after:.2f} semitones")
    missing = even_out(codec, pool, args.seed)
    print(
        "spectrum, decibels by eighths:",
        [round(float(part.mean() * 20 / np.log(10)), 2) for part in missing.chunk(8)],
    )
    save_codec(codec, args.out, torch.float16)


if __name__ == "__main__":
    main()
