"""The fundamental frequency of clean speech per codec frame, by normalized correlation."""

import torch
import torch.nn.functional as F
from torch import Tensor

from duplex.audio import CODEC_FRAME_SAMPLES, SAMPLE_RATE

# Samples of the longest period that is looked for: 65 Hz.
LONGEST = SAMPLE_RATE // 65


def pitch(wave: Tensor) -> tuple[Tensor, Tensor]:
    """wave [B, T * CODEC_FRAME_SAMPLES] -> Hz [B, T], voiced [B, T] (bool).

    Hz means nothing where unvoiced. A frame is voiced where the correlation is above 0.6 and the
    root mean square above 3e-3.
    """
    correlation, power = period_correlation(wave)
    # A longer period costs something, so that of one, two, three periods the one is found.
    cost = 0.12 * torch.arange(LONGEST + 1) / LONGEST
    # Samples of the shortest period that is looked for: 420 Hz.
    shortest = SAMPLE_RATE // 420
    best = (correlation - cost)[..., shortest:LONGEST].argmax(-1, keepdim=True) + shortest
    left, peak, right = (correlation.gather(-1, best + d)[..., 0] for d in (-1, 0, 1))
    # The top of the parabola through the three.
    shift = 0.5 * (left - right) / (left - 2 * peak + right).clamp(max=-1e-4)
    voiced = (peak > 0.6) & (power.sqrt() > 3e-3)
    return SAMPLE_RATE / (best[..., 0] + shift.clamp(-0.5, 0.5)), voiced


def period_correlation(wave: Tensor) -> tuple[Tensor, Tensor]:
    """How alike two frames' length of samples are to those 0 to LONGEST samples later.

    wave [B, T * CODEC_FRAME_SAMPLES] -> correlation [B, T, LONGEST + 1], mean power [B, T].
    """
    span = 2 * CODEC_FRAME_SAMPLES
    reach = span + LONGEST
    before = (reach - CODEC_FRAME_SAMPLES) // 2
    padded = F.pad(wave, (before, reach - CODEC_FRAME_SAMPLES - before))
    # [B, T, reach], the frame in the middle.
    windows = padded.unfold(1, reach, CODEC_FRAME_SAMPLES)
    size = 2048
    first = torch.fft.rfft(windows[..., :span], n=size)
    product = torch.fft.irfft(first.conj() * torch.fft.rfft(windows, n=size), n=size)
    product = product[..., : LONGEST + 1]
    sums = F.pad(windows.square().cumsum(-1), (1, 0))
    # Of the samples a period later.
    energy = sums[..., span : span + LONGEST + 1] - sums[..., : LONGEST + 1]
    scale = (energy[..., :1] * energy + 1e-6).clamp(min=1e-12).sqrt()
    return product / scale, energy[..., 0] / span
