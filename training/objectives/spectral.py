"""How far a decoded voice is from the true one: distances between spectra, pitch, and pulses where none belong."""

import math

import torch
import torch.nn.functional as F
from duplex.training.common.precision import mixed
from duplex.training.data.pitch import pitch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.model.codec import Codec
from duplex.model.encoder import Encoder
from duplex.model.features import initial_state, log_mel
from duplex.model.vocoder import OVERLAP_FRAMES, PARTS

WINDOWS_AND_MELS = ((256, 24), (512, 48), (1024, 80), (2048, 128))
LOG_FLOOR = 1e-4


class Losses(nn.Module):
    """Distances between two batches of waves [B, N]: log-mel and magnitude at several windows."""

    def __init__(self):
        super().__init__()
        for window, mels in WINDOWS_AND_MELS:
            bank = melscale_fbanks(window // 2 + 1, 0.0, SAMPLE_RATE / 2, mels, SAMPLE_RATE)
            self.register_buffer(f"bank{window}", bank / bank.sum(0).clamp(min=1e-3))
            self.register_buffer(f"hann{window}", torch.hann_window(window))

    def magnitude(self, wave: Tensor, window: int) -> Tensor:
        """wave [B, N] -> [B, T, F], scaled so that white noise has magnitudes like its samples."""
        hann = getattr(self, f"hann{window}")
        padded = F.pad(wave, (window // 2, window // 2))
        result = torch.stft(
            padded, window, window // 4, window=hann, center=False, return_complex=True
        ).transpose(1, 2)
        return (
            result.real.square() + result.imag.square() + 1e-9
        ).sqrt() / hann.square().sum().sqrt()

    def log_mel(self, magnitude: Tensor, window: int) -> Tensor:
        return torch.log(magnitude @ getattr(self, f"bank{window}") + LOG_FLOOR)

    def forward(self, wave: Tensor, target: Tensor) -> dict[str, Tensor]:
        terms, share = {"mel": 0.0, "magnitude": 0.0}, 1 / len(WINDOWS_AND_MELS)
        for window, _ in WINDOWS_AND_MELS:
            ours, true = self.magnitude(wave, window), self.magnitude(target, window)
            mel = self.log_mel(ours, window) - self.log_mel(true, window)
            terms["mel"] = terms["mel"] + share * mel.abs().mean()
            terms["magnitude"] = terms["magnitude"] + share * (ours - true).abs().mean()
        return terms


def voice_terms(log_hz: Tensor, spectrum: Tensor, wave: Tensor) -> dict[str, Tensor]:
    """What the decoder controls its voice with [B, T, ...] against wave [B, N] as the encoder has it.

    `pitch`: distance where voiced, in octaves. The pulses a frame makes are heard OVERLAP_FRAMES - 1 frames later, in the middle of
    the decoder's window, and so late is the whole output: each frame needs its own pitch.
    `buzz`: share of pulses where nothing is voiced, which the distances between magnitudes hardly see; a spectrum is that of the
    frame before.
    """
    hz, voiced = pitch(wave)
    distance = (log_hz - hz.log()).abs() / math.log(2)
    noise, harmonic = spectrum.chunk(PARTS, dim=-1)[:2]
    unvoiced = (F.max_pool1d(voiced.float(), OVERLAP_FRAMES, 1, OVERLAP_FRAMES // 2) == 0)[
        ..., None
    ]
    unvoiced = unvoiced[:, :-1]
    pulses = torch.sigmoid(2 * (harmonic - noise))[:, 1:] * unvoiced
    return {
        "pitch": (distance * voiced).sum() / voiced.sum().clamp(min=1),
        "buzz": pulses.mean(-1).sum() / unvoiced.sum().clamp(min=1),
    }


def heard_distance(ears: Encoder, wave: Tensor, target: Tensor) -> Tensor:
    """How differently the agent hears two batches of waves [B, N]: distance of features, in units of each channel's spread."""
    whole = wave.shape[1] // TICK_SAMPLES * TICK_SAMPLES
    with mixed():
        with torch.no_grad():
            wanted = ears.listen(log_mel(target[:, :whole], initial_state(len(wave)))[0]).float()
        heard = ears.listen(log_mel(wave[:, :whole], initial_state(len(wave)))[0]).float()
    spread = wanted.flatten(0, 1).std(0).clamp(min=1e-3)
    return F.smooth_l1_loss(heard / spread, wanted / spread)


def late(wave: Tensor) -> Tensor:
    """The wave [B, N] as the decoder is to give it: `decoder_delay_samples` later."""
    return F.pad(wave, (Codec.decoder_delay_samples, 0))[:, : wave.shape[1]]
