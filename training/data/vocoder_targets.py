"""What the codec's decoder is to give for a sound: its controls, frame by frame.

Controls are float32 [T, NUMBERS], a row for each codec frame: log magnitudes of the noise and of
the harmonics, the harmonics' phases (BINS each) and the pitch in Hz, 0 where unvoiced. Hibari's own
network gives them for its speech; recorded speech is analyzed with WORLD (Morise et al. 2016, IEICE
E99-D 7), or mixed as a trained codec does.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from duplex.audio import CODEC_FRAME_SAMPLES, SAMPLE_RATE
from duplex.model.tts.codec import Codec
from duplex.model.tts.vocoder import (
    BINS,
    MIDDLE_HZ,
    OVERLAP_FRAMES,
    OVERLAP_GAIN,
    PARTS,
    SILENCE,
    WINDOW_SAMPLES,
    minimum_phase,
    unit,
)
from duplex.training.data.pool import Pool

# Values in a row of controls.
NUMBERS = 3 * BINS + 1
# Nepers below which magnitudes are not told apart, but for digital silence, which stays silent.
FLOOR = SILENCE
DIGITAL_SILENCE = FLOOR - 3
# Hz below which Hibari's pitch means unvoiced.
VOICED_HZ = 40.0
# Nepers added to Hibari's and WORLD's harmonics, measured: voiced frames are then as loud as
# Hibari's own.
HARMONIC_NEPERS = -0.14
# Mel bands in which noise and harmonics are compared together.
BANDS = 40


def interpolate(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """rows [T, ...] at fractional places [N], linearly; both ends go on as they are."""
    places = places.clip(0, len(rows) - 1)
    low = np.minimum(places.astype(int), len(rows) - 2)
    share = (places - low).reshape(-1, *[1] * (rows.ndim - 1)).astype(np.float32)
    return rows[low] * (1 - share) + rows[low + 1] * share


def resample_to_frames(
    noise: np.ndarray, harmonic: np.ndarray, theta: np.ndarray | None, hz: np.ndarray, hop: float
) -> np.ndarray:
    """Spectra and pitch every `hop` samples, as controls.

    noise, harmonic, theta: log magnitudes and phases [T, bins up to half the sample rate]; without
    phases harmonics have their minimum phase. hz [T]. The middle of the window that the decoder
    makes of a frame is CODEC_FRAME_SAMPLES / 2 after the frame's beginning; its pitch is that at
    the end of the pulses made, which are heard decoder_delay_samples later.
    """
    starts = np.arange(int(len(hz) * hop // CODEC_FRAME_SAMPLES)) * CODEC_FRAME_SAMPLES
    middle = (starts + CODEC_FRAME_SAMPLES / 2) / hop
    bins = np.arange(BINS) * (noise.shape[1] - 1) / (BINS - 1)
    voiced = interpolate((hz > VOICED_HZ).astype(np.float32), middle)[:, None] > 0.5

    def on_frames(spectrum: np.ndarray) -> np.ndarray:
        return interpolate(interpolate(spectrum, middle).T, bins).T  # [frames, BINS]

    harmonic = np.where(voiced, on_frames(harmonic), FLOOR)
    if theta is None:
        phase = minimum_phase(torch.from_numpy(harmonic)).angle().numpy()
    else:
        phase = np.angle(on_frames(np.exp(1j * theta).astype(np.complex64)))
    after = (starts + OVERLAP_FRAMES * CODEC_FRAME_SAMPLES - Codec.decoder_delay_samples) / hop
    nearest = np.minimum(after.round().astype(int), len(hz) - 1)
    pitch = np.where(hz[nearest] > VOICED_HZ, interpolate(hz, after), 0.0)[:, None]
    return np.concatenate([on_frames(noise), harmonic, phase, pitch], 1)


def controls_of_hibari(
    harmonic: np.ndarray, theta: np.ndarray, residual: np.ndarray, hz: np.ndarray
) -> np.ndarray:
    """Hibari's spectra [601, T] and pitch [T], as controls."""
    hop = 300
    window = 1200
    # Noise of the same density in windows that are shorter and overlap less often: by 3 instead of
    # 4, so that squares sum to 1.125 instead of 1.5. The rest was measured: unvoiced frames are
    # then as loud as Hibari's own.
    noise_nepers = 0.5 * np.log(WINDOW_SAMPLES / window * 1.125 / 1.5) + 0.17
    noise = residual.T + noise_nepers
    harmonic = harmonic.T.clip(max=6.0) + HARMONIC_NEPERS
    return resample_to_frames(noise, harmonic, np.pi * np.tanh(theta.T), hz, hop)


def analyze_with_world(wave: np.ndarray) -> np.ndarray:
    """The controls [N // CODEC_FRAME_SAMPLES, NUMBERS] of recorded speech [N], by WORLD.

    WORLD's spectra are those of white noise of variance 1 and of pulses of the same power; the
    decoder's noise has magnitude 1 in every bin of a window, its pulses in every harmonic's peak.
    """
    import pyworld

    hop = CODEC_FRAME_SAMPLES / 4
    # WORLD's window is three periods long: where unvoiced, at this pitch, nearly the decoder's own.
    unvoiced_hz = 100.0
    wave = wave.astype(np.float64)
    hz, times = pyworld.harvest(wave, SAMPLE_RATE, frame_period=1000 * hop / SAMPLE_RATE)
    spectrum = pyworld.cheaptrick(wave, np.where(hz > 0, hz, unvoiced_hz), times, SAMPLE_RATE)
    noisy = np.square(pyworld.d4c(wave, hz, times, SAMPLE_RATE))
    noisy = noisy.clip(1e-6, 1 - 1e-6)  # The noise's share of the power.
    # The power of a period is in one pulse.
    of_pulse = np.log(np.where(hz > 0, hz, MIDDLE_HZ) / SAMPLE_RATE)[:, None]
    noise_nepers = 0.5 * np.log(WINDOW_SAMPLES / OVERLAP_GAIN)
    harmonic_nepers = np.log(WINDOW_SAMPLES / 2) + HARMONIC_NEPERS
    noise = 0.5 * np.log(spectrum * noisy + 1e-16) + noise_nepers
    harmonic = 0.5 * (np.log(spectrum * (1 - noisy) + 1e-16) + of_pulse) + harmonic_nepers
    rows = resample_to_frames(noise.clip(FLOOR), harmonic.clip(FLOOR), None, hz, hop)
    return rows[: len(wave) // CODEC_FRAME_SAMPLES].astype(np.float32)


@torch.inference_mode()
def mix_by_codec(codec: Codec, wave: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The controls of a wave with the codec's mixture of pulses and noise, its phases and pitch.

    wave float32 [N], rows: its controls by WORLD. Every mel band stays as loud as it is in `rows`.
    A frame is voiced where pulses are above the noise in more than 2 % of its bins.
    """
    latent = codec.dequantize(codec.encode(torch.from_numpy(wave)[None, None]))
    spectrum, log_hz, _ = codec.decoder.controls(latent, codec.initial_decode_state(1).histories)
    # A frame's spectrum is given with the next frame.
    spectrum = torch.cat([spectrum[0, 1:], spectrum[0, -1:]])
    noise, harmonic, *turn = spectrum.chunk(PARTS, dim=-1)
    wanted = log_bands(*torch.from_numpy(rows[:, : 2 * BINS]).chunk(2, dim=-1))
    missing = (wanted - log_bands(noise, harmonic)) @ mel_shares()
    noise = (noise + missing).clamp(min=FLOOR)
    harmonic = (harmonic + missing).clamp(min=FLOOR)
    voiced = (harmonic > noise).float().mean(-1) > 0.02
    phase = (minimum_phase(harmonic) * unit(*turn)).angle()
    hz = (log_hz[0].exp() * voiced)[:, None]
    return torch.cat([noise, harmonic, phase, hz], dim=-1).numpy()


def log_bands(noise: Tensor, harmonic: Tensor) -> Tensor:
    """Log magnitudes [..., BINS] of both together in mel bands [..., BANDS]; -7 at the least."""
    power = torch.exp(2 * noise) + torch.exp(2 * harmonic)
    return 0.5 * torch.log(power @ mel_bank() + np.exp(2 * -7.0))


def mel_filters() -> Tensor:
    """[BINS, BANDS]: triangular mel bands from 50 Hz up."""
    return melscale_fbanks(BINS, 50.0, SAMPLE_RATE / 2, BANDS, SAMPLE_RATE)


@cache
def mel_bank() -> Tensor:
    """[BINS, BANDS]: the mean over the bins of each band."""
    bank = mel_filters()
    return bank / bank.sum(0)


@cache
def mel_shares() -> Tensor:
    """[BANDS, BINS]: whose level a bin has; bins outside all bands have the nearest one's."""
    bank = mel_filters()
    outside = bank.sum(1) == 0
    bank[: BINS // 2, 0] += outside[: BINS // 2]
    bank[BINS // 2 :, -1] += outside[BINS // 2 :]
    return (bank / bank.sum(1, keepdim=True)).T


class ControlPool:
    """Crops of a pool with their controls, which are in its file controls.f16."""

    def __init__(self, folder: str | Path):
        self.pool = Pool(folder, "train")
        stored = np.memmap(Path(folder) / "controls.f16", np.float16, "r")
        self.numbers = stored.reshape(-1, NUMBERS)

    def crop(
        self, rng: np.random.Generator, frames: int, gain_db: tuple[float, float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """A random crop of random gain, as wave and controls.

        wave [frames * CODEC_FRAME_SAMPLES], controls [frames, NUMBERS]. It may go on after the
        utterance's end, with digital silence.
        """
        i = int(rng.integers(len(self.pool)))
        entry = self.pool.entries[i]
        has = entry["samples"] // CODEC_FRAME_SAMPLES
        start = int(rng.integers(max(1, has - frames // 2)))
        count = min(frames, has - start)
        part = self.pool.wave(i, start * CODEC_FRAME_SAMPLES, count * CODEC_FRAME_SAMPLES)
        gain = 10 ** (rng.uniform(*gain_db) / 20)
        gain = min(gain, 0.99 / max(np.abs(part).max(initial=0), 1e-3))
        first = entry["offset"] // CODEC_FRAME_SAMPLES + start
        rows = np.zeros((frames, NUMBERS), np.float32)
        rows[:count] = self.numbers[first : first + count]
        rows[:, : 2 * BINS] = np.maximum(rows[:, : 2 * BINS] + np.log(gain), FLOOR)
        rows[count:, : 2 * BINS] = DIGITAL_SILENCE
        return np.pad(gain * part, (0, (frames - count) * CODEC_FRAME_SAMPLES)), rows
