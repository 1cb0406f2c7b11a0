"""A pool of synthetic speech with what its synthesiser's network gave its own signal processing: the codec's decoder learns it.

    python -m training.controls --texts texts.txt --voices heart --hours 1.2 --out pools/heart_controls

Hibari makes its voice as the codec does, of pulses and noise. So the decoder need not find out from the sound which of it is
noise, and learns phases, which no distance between magnitudes shows. Beside a pool's files (training.pool) the folder holds
`controls.f16`: for every codec frame of audio.i16 the log magnitudes of noise and of harmonics, the harmonics' phase (BINS each)
and the pitch in Hz (0: unvoiced).
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from duplex.audio import CODEC_FRAME_SAMPLES, SAMPLE_RATE
from duplex.codec import Codec
from duplex.vocoder import BINS, OVERLAP_FRAMES, PARTS, SILENCE, WINDOW_SAMPLES, minimum_phase
from training.pool import Pool
from training.speech import HibariVoice, draw_voice, read_texts, synthetic_utterances, write_pool

HIBARI_HOP, HIBARI_WINDOW, VOICED_HZ = 300, 1200, 40.0
# Noise of the same density in windows that are shorter and overlap less often (by 3 instead of 4: squares sum to 1.125, not 1.5).
# What is added to it and to the harmonics was measured: with it unvoiced and voiced frames are as loud as Hibari's own.
NOISE_NEPERS = 0.5 * np.log(WINDOW_SAMPLES / HIBARI_WINDOW * 1.125 / 1.5) + 0.17
HARMONIC_NEPERS = -0.14
NUMBERS = 3 * BINS + 1  # a frame
FLOOR = SILENCE  # below it nothing is told apart
BEND_HZ = 1500.0  # above, bins weigh less: as many of them sound like one


def between(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """rows [T, ...] at fractional places [N], linearly; the ends go on."""
    places = places.clip(0, len(rows) - 1)
    low = np.minimum(places.astype(int), len(rows) - 2)
    share = (places - low).reshape(-1, *[1] * (rows.ndim - 1)).astype(np.float32)
    return rows[low] * (1 - share) + rows[low + 1] * share


def controls(harmonic: np.ndarray, theta: np.ndarray, residual: np.ndarray, hz: np.ndarray) -> np.ndarray:
    """Hibari's spectra [601, T] and pitch [T] -> what the decoder is to give [frames, NUMBERS].

    The middle of the window that the decoder makes of a frame is CODEC_FRAME_SAMPLES / 2 after the frame's beginning; its pitch is
    that at the end of the pulses made, which are heard decoder_delay_samples later.
    """
    starts = np.arange(len(hz) * HIBARI_HOP // CODEC_FRAME_SAMPLES) * CODEC_FRAME_SAMPLES
    middle = (starts + CODEC_FRAME_SAMPLES / 2) / HIBARI_HOP
    bins = np.arange(BINS) * HIBARI_WINDOW / WINDOW_SAMPLES
    voiced = between((hz > VOICED_HZ).astype(np.float32), middle)[:, None] > 0.5

    def moved(spectrum: np.ndarray) -> np.ndarray:
        return between(between(spectrum.T, middle).T, bins).T

    turn = np.exp(1j * np.pi * np.tanh(theta)).astype(np.complex64)
    phase = np.angle(between(between(turn.T, middle).T, bins).T)
    after = (starts + OVERLAP_FRAMES * CODEC_FRAME_SAMPLES - Codec.decoder_delay_samples) / HIBARI_HOP
    nearest = np.minimum(after.round().astype(int), len(hz) - 1)
    pitch = np.where(hz[nearest] > VOICED_HZ, between(hz, after), 0.0)[:, None]
    harmonics = np.where(voiced, moved(harmonic).clip(max=6.0) + HARMONIC_NEPERS, FLOOR)
    return np.concatenate([moved(residual) + NOISE_NEPERS, harmonics, phase, pitch], 1)


def controlled(texts: list[str], voices: str, seed: int, first: int):
    """Utterances for training.speech.write_pool, as loud as they are to stay, with their controls."""
    from hibari import dsp

    voice = HibariVoice()

    def speak(text: str, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
        drawn = draw_voice(rng) if voices == "many" else {"speed": float(rng.uniform(0.85, 1.15))}
        parts, _, _ = voice.spectra(text, **drawn)
        harmonic, theta, _, residual, _, hz = parts
        rows, wave = controls(harmonic, theta, residual, hz), dsp.synth(*parts, rng)
        gain = min(1.0, 0.98 / max(np.abs(wave).max(), 1e-3))
        rows[:, : 2 * BINS] = (rows[:, : 2 * BINS] + np.log(gain)).clip(min=FLOOR)
        return gain * wave[: len(rows) * CODEC_FRAME_SAMPLES], {"voice": f"hibari:{voices}", "words": [], "controls": rows}

    return synthetic_utterances(texts, speak, seed, first)


class ControlPool:
    """A pool's crops with their controls."""

    def __init__(self, folder: str | Path):
        self.pool = Pool(folder, "train")
        self.numbers = np.memmap(Path(folder) / "controls.f16", np.float16, "r").reshape(-1, NUMBERS)

    def crop(self, rng: np.random.Generator, frames: int, gain_db: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """-> wave [frames * CODEC_FRAME_SAMPLES], controls [frames, NUMBERS]; silence after the utterance's end."""
        i = int(rng.integers(len(self.pool)))
        entry = self.pool.entries[i]
        has = entry["samples"] // CODEC_FRAME_SAMPLES
        start = int(rng.integers(max(1, has - frames // 2)))
        count = min(frames, has - start)
        part = self.pool.wave(i, start * CODEC_FRAME_SAMPLES, count * CODEC_FRAME_SAMPLES)
        gain = min(10 ** (rng.uniform(*gain_db) / 20), 0.99 / max(np.abs(part).max(initial=0), 1e-3))
        first = entry["offset"] // CODEC_FRAME_SAMPLES + start
        rows = np.zeros((frames, NUMBERS), np.float32)
        rows[:, : 2 * BINS] = FLOOR
        rows[:count] = self.numbers[first : first + count]
        rows[:, : 2 * BINS] = np.maximum(rows[:, : 2 * BINS] + np.log(gain), FLOOR)
        return np.pad(gain * part, (0, (frames - count) * CODEC_FRAME_SAMPLES)), rows


def control_terms(spectrum: torch.Tensor, log_hz: torch.Tensor, wanted: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the decoder gives [B, T, PARTS * BINS], [B, T] against the controls [B, T, NUMBERS] -> mean distances.

    `noise`, `harmonic` in nepers, `turn` 1 - cosine where harmonics are heard, `pitch` in octaves where voiced.
    """
    noise, harmonic, real, imaginary = spectrum.chunk(PARTS, dim=-1)
    true_noise, true_harmonic, phase, hz = wanted.split([BINS, BINS, BINS, 1], dim=-1)
    weight = 1 / (1 + torch.arange(BINS) * (SAMPLE_RATE / WINDOW_SAMPLES) / BEND_HZ)
    weight = weight / weight.mean()
    turned = torch.polar(torch.ones_like(phase), phase) * minimum_phase(true_harmonic).conj()
    cosine = F.cosine_similarity(torch.stack([1 + real, imaginary]), torch.view_as_real(turned).movedim(-1, 0), dim=0)
    audible = weight * torch.sigmoid(2 * (true_harmonic - true_noise)) * (true_harmonic > FLOOR)
    voiced, hz = (hz > 0)[..., 0], hz[..., 0].clamp(min=VOICED_HZ)
    return {
        "noise": (weight * (noise.clamp(min=FLOOR) - true_noise).abs()).mean(),
        "harmonic": (weight * (harmonic.clamp(min=FLOOR) - true_harmonic).abs()).mean(),
        "turn": (audible * (1 - cosine)).sum() / audible.sum().clamp(min=1),
        "pitch": ((log_hz - hz.log()).abs() / np.log(2) * voiced).sum() / voiced.sum().clamp(min=1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="files with one text a line")
    parser.add_argument("--voices", choices=["heart", "many"], default="heart", help="as training.speech; `many`: Hibari's alone")
    parser.add_argument("--hours", type=float, default=1.2, help="0.8 GB each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="the pool's folder; a run resumes there")
    args = parser.parse_args()
    texts = read_texts(args.texts)
    write_pool(lambda first: controlled(texts, args.voices, args.seed, first), args.out, args.hours)


if __name__ == "__main__":
    main()
