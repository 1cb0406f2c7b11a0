"""How far a decoded voice is from the true one: spectra, pitch, the voice's controls, features."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.model.asr.encoder import Encoder
from duplex.model.asr.features import initial_state, log_mel
from duplex.model.tts.codec import Codec
from duplex.model.tts.vocoder import (
    BINS,
    OVERLAP_FRAMES,
    PARTS,
    WINDOW_SAMPLES,
    minimum_phase,
    unit,
)
from duplex.training.common.precision import mixed
from duplex.training.data.pitch import pitch
from duplex.training.data.vocoder_targets import FLOOR, VOICED_HZ, log_bands


class SpectralDistance(nn.Module):
    """Distances between two batches of waves [B, N]: log-mel and magnitude at several windows."""

    windows_and_mels = ((256, 24), (512, 48), (1024, 80), (2048, 128))

    def __init__(self):
        super().__init__()
        for window, mels in self.windows_and_mels:
            bank = melscale_fbanks(window // 2 + 1, 0.0, SAMPLE_RATE / 2, mels, SAMPLE_RATE)
            self.register_buffer(f"bank{window}", bank / bank.sum(0).clamp(min=1e-3))
            self.register_buffer(f"hann{window}", torch.hann_window(window))

    def magnitude(self, wave: Tensor, window: int) -> Tensor:
        """Spectra [B, T, F] of waves [B, N]; those of white noise are like its samples."""
        hann = getattr(self, f"hann{window}")
        padded = F.pad(wave, (window // 2, window // 2))
        spectrum = torch.stft(
            padded, window, window // 4, window=hann, center=False, return_complex=True
        ).transpose(1, 2)
        power = spectrum.real.square() + spectrum.imag.square() + 1e-9
        return power.sqrt() / hann.square().sum().sqrt()

    def log_mel(self, magnitude: Tensor, window: int) -> Tensor:
        """Log-mel spectra [B, T, M] of magnitudes [B, T, F]."""
        return torch.log(magnitude @ getattr(self, f"bank{window}") + 1e-4)

    def forward(self, wave: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The mean distances `mel` and `magnitude` over all windows."""
        share = 1 / len(self.windows_and_mels)
        terms = {"mel": 0.0, "magnitude": 0.0}
        for window, _ in self.windows_and_mels:
            ours = self.magnitude(wave, window)
            true = self.magnitude(target, window)
            mel = self.log_mel(ours, window) - self.log_mel(true, window)
            terms["mel"] = terms["mel"] + share * mel.abs().mean()
            terms["magnitude"] = terms["magnitude"] + share * (ours - true).abs().mean()
        return terms


def voice_terms(log_hz: Tensor, spectrum: Tensor, wave: Tensor) -> dict[str, Tensor]:
    """What the decoder controls its voice with, against the wave as the encoder has it.

    log_hz [B, T], spectrum [B, T, PARTS * BINS], wave [B, N].
    `pitch`: distance where voiced, in octaves. The pulses of a frame are heard OVERLAP_FRAMES - 1
    frames later, in the middle of the decoder's window, and so late is the whole output: each frame
    needs its own pitch.
    `buzz`: share of pulses where nothing is voiced, which distances between magnitudes hardly see.
    A spectrum is that of the frame before.
    """
    hz, voiced = pitch(wave)
    distance = (log_hz - hz.log()).abs() / math.log(2)
    noise, harmonic = spectrum.chunk(PARTS, dim=-1)[:2]
    near_voiced = F.max_pool1d(voiced.float(), OVERLAP_FRAMES, 1, OVERLAP_FRAMES // 2)
    unvoiced = (near_voiced == 0)[..., None][:, :-1]
    pulses = torch.sigmoid(2 * (harmonic - noise))[:, 1:] * unvoiced
    return {
        "pitch": (distance * voiced).sum() / voiced.sum().clamp(min=1),
        "buzz": pulses.mean(-1).sum() / unvoiced.sum().clamp(min=1),
    }


def control_terms(
    spectrum: Tensor, log_hz: Tensor, wanted: Tensor, bend_hz: float = 1500.0
) -> dict[str, Tensor]:
    """What the decoder gives against the controls of the same sound, as mean distances.

    spectrum [B, T, PARTS * BINS], log_hz [B, T], wanted [B, T, NUMBERS]; see
    duplex.training.data.vocoder_targets. The decoder's spectra are those of the frames before.
    Above `bend_hz` bins weigh less: as many of them sound like one.
    `noise`, `harmonic` and `bands` (both together in mel bands: what words are told by) are in
    nepers; `turn` is 1 - cosine of the phase where harmonics are heard; `pitch` is in octaves where
    voiced.
    """
    noise, harmonic, real, imaginary = spectrum[:, 1:].chunk(PARTS, dim=-1)
    true_noise, true_harmonic, phase = wanted[:, :-1, :-1].chunk(3, dim=-1)
    hz = wanted[..., -1]
    weight = 1 / (1 + torch.arange(BINS) * (SAMPLE_RATE / WINDOW_SAMPLES) / bend_hz)
    weight = weight / weight.mean()
    given = unit(real, imaginary) * minimum_phase(true_harmonic)
    cosine = (given * torch.polar(torch.exp(-true_harmonic), -phase)).real
    audible = weight * torch.sigmoid(2 * (true_harmonic - true_noise)) * (true_harmonic > FLOOR)
    voiced = hz > 0
    octaves = (log_hz - hz.clamp(min=VOICED_HZ).log()).abs() / math.log(2)
    return {
        "noise": (weight * log_magnitude_distance(noise, true_noise)).mean(),
        "harmonic": (weight * log_magnitude_distance(harmonic, true_harmonic)).mean(),
        "bands": (log_bands(noise, harmonic) - log_bands(true_noise, true_harmonic)).abs().mean(),
        "turn": (audible * (1 - cosine)).sum() / audible.sum().clamp(min=1),
        "pitch": (octaves * voiced).sum() / voiced.sum().clamp(min=1),
    }


def log_magnitude_distance(ours: Tensor, true: Tensor) -> Tensor:
    """Distance of log magnitudes; none where both are at the floor or ours is below it."""
    return (torch.where(true < FLOOR, ours, ours.clamp(min=FLOOR)) - true).abs()


def feature_distance(encoder: Encoder, wave: Tensor, target: Tensor) -> Tensor:
    """How differently the agent hears two batches of waves [B, N].

    It is the distance of the encoder's features, in units of each channel's spread.
    """
    whole = wave.shape[1] // TICK_SAMPLES * TICK_SAMPLES
    with mixed():
        with torch.no_grad():
            wanted = encoder.encode_clip(
                log_mel(target[:, :whole], initial_state(len(wave)))[0]
            ).float()
        heard = encoder.encode_clip(log_mel(wave[:, :whole], initial_state(len(wave)))[0]).float()
    spread = wanted.flatten(0, 1).std(0).clamp(min=1e-3)
    return F.smooth_l1_loss(heard / spread, wanted / spread)


def delay_as_decoder(wave: Tensor) -> Tensor:
    """The wave [B, N] as the decoder is to give it: `decoder_delay_samples` later."""
    return F.pad(wave, (Codec.decoder_delay_samples, 0))[:, : wave.shape[1]]
