"""The fundamental frequency of clean speech per codec frame, by normalised correlation: what the codec's voice learns."""

import torch
import torch.nn.functional as F
from torch import Tensor

from duplex.audio import CODEC_FRAME_SAMPLES, SAMPLE_RATE

LOWEST_HZ, HIGHEST_HZ = 65, 420
SHORTEST, LONGEST = SAMPLE_RATE // HIGHEST_HZ, SAMPLE_RATE // LOWEST_HZ  # periods in samples
SPAN = 2 * CODEC_FRAME_SAMPLES  # samples compared with those a period later
VOICED_CORRELATION = 0.6
VOICED_LEVEL = 3e-3  # root mean square
LONG_PERIOD_COST = 0.12  # so that of one, two, three periods the one is found


def pitch(wave: Tensor) -> tuple[Tensor, Tensor]:
    """wave [B, T * CODEC_FRAME_SAMPLES] -> Hz [B, T], voiced [B, T] (bool); Hz means nothing where unvoiced."""
    reach = SPAN + LONGEST
    before = (reach - CODEC_FRAME_SAMPLES) // 2
    padded = F.pad(wave, (before, reach - CODEC_FRAME_SAMPLES - before))
    windows = padded.unfold(1, reach, CODEC_FRAME_SAMPLES)  # [B, T, reach], the frame in the middle
    size = 2048
    first = torch.fft.rfft(windows[..., :SPAN], n=size)
    product = torch.fft.irfft(first.conj() * torch.fft.rfft(windows, n=size), n=size)[
        ..., : LONGEST + 1
    ]
    sums = F.pad(windows.square().cumsum(-1), (1, 0))
    energy = (
        sums[..., SPAN : SPAN + LONGEST + 1] - sums[..., : LONGEST + 1]
    )  # of the samples a period later
    correlation = product / (energy[..., :1] * energy + 1e-6).clamp(min=1e-12).sqrt()
    cost = LONG_PERIOD_COST * torch.arange(LONGEST + 1) / LONGEST
    best = (correlation - cost)[..., SHORTEST:LONGEST].argmax(-1, keepdim=True) + SHORTEST
    left, peak, right = (correlation.gather(-1, best + d)[..., 0] for d in (-1, 0, 1))
    shift = (
        0.5 * (left - right) / (left - 2 * peak + right).clamp(max=-1e-4)
    )  # top of the parabola through the three
    voiced = (peak > VOICED_CORRELATION) & ((energy[..., 0] / SPAN).sqrt() > VOICED_LEVEL)
    return SAMPLE_RATE / (best[..., 0] + shift.clamp(-0.5, 0.5)), voiced
