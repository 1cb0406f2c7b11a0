"""A pool of synthetic speech with what its synthesiser's network gave its own signal processing: the codec's decoder learns it.

    python -m duplex.training.controls --texts texts.txt --voices heart --hours 1.2 --out pools/heart_controls
    python -m duplex.training.controls --recorded pools/real --mixed-by runs/codec --out pools/real_controls

Hibari makes its voice as the codec does, of pulses and noise. So the decoder need not find out from the sound which of it is
noise, and learns phases, which no distance between magnitudes shows. Recorded speech is taken apart by WORLD (Morise et al.
2016, IEICE E99-D 7; an hour takes two cores ten minutes). Its spectra are right, but what it calls voiced is all or nothing,
and words are lost where it errs: with --mixed-by a codec says how pulses and noise are mixed. Beside a pool's files
(duplex.training.data.pool) the folder holds `controls.f16`: for every codec frame of audio.i16 the log magnitudes of noise and of
harmonics, the harmonics' phase (BINS each; without a codec the minimum phase) and the pitch in Hz (0: unvoiced).
"""

import argparse
import multiprocessing
from functools import cache
from pathlib import Path

import numpy as np
import torch
from duplex.training.data.pool import Pool
from duplex.training.speech import (
    HibariVoice,
    draw_voice,
    read_texts,
    synthetic_utterances,
    write_pool,
)
from torchaudio.functional import melscale_fbanks

from duplex.audio import CODEC_FRAME_SAMPLES, SAMPLE_RATE
from duplex.model.codec import Codec, load_codec
from duplex.model.vocoder import (
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

HIBARI_HOP, HIBARI_WINDOW, VOICED_HZ = 300, 1200, 40.0
# Noise of the same density in windows that are shorter and overlap less often (by 3 instead of 4: squares sum to 1.125, not 1.5).
# What is added to it and to the harmonics was measured: with it unvoiced and voiced frames are as loud as Hibari's own.
NOISE_NEPERS = 0.5 * np.log(WINDOW_SAMPLES / HIBARI_WINDOW * 1.125 / 1.5) + 0.17
HARMONIC_NEPERS = -0.14
WORLD_HOP = CODEC_FRAME_SAMPLES / 4
# WORLD's spectra are those of white noise of variance 1 and of pulses of the same power; the decoder's noise has magnitude 1 in
# every bin of a window, its pulses in every harmonic's peak.
WORLD_NOISE_NEPERS = 0.5 * np.log(WINDOW_SAMPLES / OVERLAP_GAIN)
WORLD_HARMONIC_NEPERS = np.log(WINDOW_SAMPLES / 2) + HARMONIC_NEPERS
UNVOICED_HZ = 100.0  # WORLD's window there is three periods long: nearly the decoder's own
VOICED_SHARE = 0.02  # of a frame's bins, those in which pulses are above the noise
NUMBERS = 3 * BINS + 1  # a frame
AT_ONCE = 64  # utterances taken apart
FLOOR = SILENCE  # below it nothing is told apart, but
DIGITAL_SILENCE = FLOOR - 3  # is to stay silent
BANDS, LOWEST_BAND_HZ, BAND_FLOOR = 40, 50.0, -7.0
BEND_HZ = 1500.0  # above, bins weigh less: as many of them sound like one


def between(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """rows [T, ...] at fractional places [N], linearly; the ends go on."""
    places = places.clip(0, len(rows) - 1)
    low = np.minimum(places.astype(int), len(rows) - 2)
    share = (places - low).reshape(-1, *[1] * (rows.ndim - 1)).astype(np.float32)
    return rows[low] * (1 - share) + rows[low + 1] * share


def on_frames(
    noise: np.ndarray, harmonic: np.ndarray, theta: np.ndarray | None, hz: np.ndarray, hop: float
) -> np.ndarray:
    """Log magnitudes and phases [T, bins up to half the sample rate] and pitch [T] every `hop` samples -> [frames, NUMBERS].

    Without phases (theta is None) harmonics have their minimum phase. The middle of the window that the decoder makes of a frame
    is CODEC_FRAME_SAMPLES / 2 after the frame's beginning; its pitch is that at the end of the pulses made, which are heard
    decoder_delay_samples later.
    """
    starts = np.arange(int(len(hz) * hop // CODEC_FRAME_SAMPLES)) * CODEC_FRAME_SAMPLES
    middle = (starts + CODEC_FRAME_SAMPLES / 2) / hop
    bins = np.arange(BINS) * (noise.shape[1] - 1) / (BINS - 1)
    voiced = between((hz > VOICED_HZ).astype(np.float32), middle)[:, None] > 0.5

    def moved(spectrum: np.ndarray) -> np.ndarray:
        return between(between(spectrum, middle).T, bins).T  # [frames, BINS]

    harmonic = np.where(voiced, moved(harmonic), FLOOR)
    if theta is None:
        phase = minimum_phase(torch.from_numpy(harmonic)).angle().numpy()
    else:
        phase = np.angle(moved(np.exp(1j * theta).astype(np.complex64)))
    after = (starts + OVERLAP_FRAMES * CODEC_FRAME_SAMPLES - Codec.decoder_delay_samples) / hop
    nearest = np.minimum(after.round().astype(int), len(hz) - 1)
    pitch = np.where(hz[nearest] > VOICED_HZ, between(hz, after), 0.0)[:, None]
    return np.concatenate([moved(noise), harmonic, phase, pitch], 1)


def controls(
    harmonic: np.ndarray, theta: np.ndarray, residual: np.ndarray, hz: np.ndarray
) -> np.ndarray:
    """Hibari's spectra [601, T] and pitch [T] -> what the decoder is to give [frames, NUMBERS]."""
    noise, harmonic = residual.T + NOISE_NEPERS, harmonic.T.clip(max=6.0) + HARMONIC_NEPERS
    return on_frames(noise, harmonic, np.pi * np.tanh(theta.T), hz, HIBARI_HOP)


def taken_apart(wave: np.ndarray) -> np.ndarray:
    """Speech [N] -> what the decoder is to give for the same sound [N // CODEC_FRAME_SAMPLES, NUMBERS], by WORLD."""
    import pyworld

    wave = wave.astype(np.float64)
    hz, times = pyworld.harvest(wave, SAMPLE_RATE, frame_period=1000 * WORLD_HOP / SAMPLE_RATE)
    spectrum = pyworld.cheaptrick(wave, np.where(hz > 0, hz, UNVOICED_HZ), times, SAMPLE_RATE)
    noisy = np.square(pyworld.d4c(wave, hz, times, SAMPLE_RATE)).clip(
        1e-6, 1 - 1e-6
    )  # share of the power
    of_pulse = np.log(np.where(hz > 0, hz, MIDDLE_HZ) / SAMPLE_RATE)[
        :, None
    ]  # a period's power is in one pulse
    noise = 0.5 * np.log(spectrum * noisy + 1e-16) + WORLD_NOISE_NEPERS
    harmonic = 0.5 * (np.log(spectrum * (1 - noisy) + 1e-16) + of_pulse) + WORLD_HARMONIC_NEPERS
    rows = on_frames(noise.clip(FLOOR), harmonic.clip(FLOOR), None, hz, WORLD_HOP)
    return rows[: len(wave) // CODEC_FRAME_SAMPLES].astype(np.float32)


def controlled(texts: list[str], voices: str, seed: int, first: int):
    """Utterances for duplex.training.speech.write_pool, as loud as they are to stay, with their controls."""
    from hibari import dsp

    voice = HibariVoice()

    def speak(text: str, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
        drawn = draw_voice(rng) if voices == "many" else {"speed": float(rng.uniform(0.85, 1.15))}
        parts, _, _ = voice.spectra(text, **drawn)
        harmonic, theta, _, residual, _, hz = parts
        rows, wave = controls(harmonic, theta, residual, hz), dsp.synth(*parts, rng)
        gain = min(1.0, 0.98 / max(np.abs(wave).max(), 1e-3))
        rows[:, : 2 * BINS] = (rows[:, : 2 * BINS] + np.log(gain)).clip(min=FLOOR)
        return gain * wave[: len(rows) * CODEC_FRAME_SAMPLES], {
            "voice": f"hibari:{voices}",
            "words": [],
            "controls": rows,
        }

    return synthetic_utterances(texts, speak, seed, first)


@torch.inference_mode()
def mixed_by(codec: Codec, wave: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A wave's controls with the codec's own mixture of pulses and noise, its phases and pitch; every band stays as loud."""
    latent = codec.dequantize(codec.encode(torch.from_numpy(wave)[None, None]))
    spectrum, log_hz, _ = codec.decoder.controls(latent, codec.initial_decode_state(1).histories)
    spectrum = torch.cat([spectrum[0, 1:], spectrum[0, -1:]])  # a frame's is given with the next
    noise, harmonic, *turn = spectrum.chunk(PARTS, dim=-1)
    wanted = log_bands(*torch.from_numpy(rows[:, : 2 * BINS]).chunk(2, dim=-1))
    missing = (wanted - log_bands(noise, harmonic)) @ mel_shares()
    noise, harmonic = (noise + missing).clamp(min=FLOOR), (harmonic + missing).clamp(min=FLOOR)
    voiced = (harmonic > noise).float().mean(-1) > VOICED_SHARE
    phase = (minimum_phase(harmonic) * unit(*turn)).angle()
    return torch.cat([noise, harmonic, phase, (log_hz[0].exp() * voiced)[:, None]], dim=-1).numpy()


def recorded(folder: Path, codec: Codec | None, first: int):
    """What a pool has to train with, for duplex.training.speech.write_pool, with its controls; codec: `mixed_by` it."""
    pool = Pool(folder, "train")
    with multiprocessing.get_context("spawn").Pool() as workers:
        for begin in range(first, len(pool), AT_ONCE):
            numbers = range(begin, min(begin + AT_ONCE, len(pool)))
            waves = [
                pool.wave(
                    i, 0, pool.entries[i]["samples"] // CODEC_FRAME_SAMPLES * CODEC_FRAME_SAMPLES
                )
                for i in numbers
            ]
            waves = [wave * min(1.0, 0.98 / max(np.abs(wave).max(), 1e-3)) for wave in waves]
            for i, wave, rows in zip(numbers, waves, workers.map(taken_apart, waves), strict=True):
                if codec:
                    rows = mixed_by(codec, wave, rows)
                kept = {key: pool.entries[i][key] for key in ("voice", "words", "source", "split")}
                yield pool.entries[i]["text"], wave, {**kept, "controls": rows}


class ControlPool:
    """A pool's crops with their controls."""

    def __init__(self, folder: str | Path):
        self.pool = Pool(folder, "train")
        self.numbers = np.memmap(Path(folder) / "controls.f16", np.float16, "r").reshape(
            -1, NUMBERS
        )

    def crop(
        self, rng: np.random.Generator, frames: int, gain_db: tuple[float, float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """-> wave [frames * CODEC_FRAME_SAMPLES], controls [frames, NUMBERS]; silence after the utterance's end."""
        i = int(rng.integers(len(self.pool)))
        entry = self.pool.entries[i]
        has = entry["samples"] // CODEC_FRAME_SAMPLES
        start = int(rng.integers(max(1, has - frames // 2)))
        count = min(frames, has - start)
        part = self.pool.wave(i, start * CODEC_FRAME_SAMPLES, count * CODEC_FRAME_SAMPLES)
        gain = min(
            10 ** (rng.uniform(*gain_db) / 20), 0.99 / max(np.abs(part).max(initial=0), 1e-3)
        )
        first = entry["offset"] // CODEC_FRAME_SAMPLES + start
        rows = np.zeros((frames, NUMBERS), np.float32)
        rows[:count] = self.numbers[first : first + count]
        rows[:, : 2 * BINS] = np.maximum(rows[:, : 2 * BINS] + np.log(gain), FLOOR)
        rows[count:, : 2 * BINS] = DIGITAL_SILENCE
        return np.pad(gain * part, (0, (frames - count) * CODEC_FRAME_SAMPLES)), rows


def control_terms(
    spectrum: torch.Tensor, log_hz: torch.Tensor, wanted: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What the decoder gives [B, T, PARTS * BINS], [B, T] against the controls [B, T, NUMBERS] -> mean distances.

    `noise`, `harmonic`, `bands` (both together in mel bands: what words are told by) in nepers, `turn` 1 - cosine where harmonics
    are heard, `pitch` in octaves where voiced. The decoder's spectra are those of the frames before.
    """
    noise, harmonic, real, imaginary = spectrum[:, 1:].chunk(PARTS, dim=-1)
    true_noise, true_harmonic, phase = wanted[:, :-1, :-1].chunk(3, dim=-1)
    hz = wanted[..., -1:]
    weight = 1 / (1 + torch.arange(BINS) * (SAMPLE_RATE / WINDOW_SAMPLES) / BEND_HZ)
    weight = weight / weight.mean()
    cosine = (
        unit(real, imaginary)
        * minimum_phase(true_harmonic)
        * torch.polar(torch.exp(-true_harmonic), -phase)
    ).real
    audible = weight * torch.sigmoid(2 * (true_harmonic - true_noise)) * (true_harmonic > FLOOR)
    voiced, hz = (hz > 0)[..., 0], hz[..., 0].clamp(min=VOICED_HZ)
    return {
        "noise": (weight * told_apart(noise, true_noise)).mean(),
        "harmonic": (weight * told_apart(harmonic, true_harmonic)).mean(),
        "bands": (log_bands(noise, harmonic) - log_bands(true_noise, true_harmonic)).abs().mean(),
        "turn": (audible * (1 - cosine)).sum() / audible.sum().clamp(min=1),
        "pitch": ((log_hz - hz.log()).abs() / np.log(2) * voiced).sum() / voiced.sum().clamp(min=1),
    }


def told_apart(ours: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Distance of log magnitudes, none as long as both are at the floor or ours is below it."""
    return (torch.where(true < FLOOR, ours, ours.clamp(min=FLOOR)) - true).abs()


def log_bands(noise: torch.Tensor, harmonic: torch.Tensor) -> torch.Tensor:
    """Log magnitudes [..., BINS] -> those of both together in mel bands [..., BANDS]."""
    return 0.5 * torch.log(
        (torch.exp(2 * noise) + torch.exp(2 * harmonic)) @ mel_bank() + np.exp(2 * BAND_FLOOR)
    )


@cache
def mel_bank() -> torch.Tensor:
    bank = melscale_fbanks(BINS, LOWEST_BAND_HZ, SAMPLE_RATE / 2, BANDS, SAMPLE_RATE)
    return bank / bank.sum(0)


@cache
def mel_shares() -> torch.Tensor:
    """[BANDS, BINS]: whose level a bin has; those outside all bands have the nearest one's."""
    bank = melscale_fbanks(BINS, LOWEST_BAND_HZ, SAMPLE_RATE / 2, BANDS, SAMPLE_RATE)
    outside = bank.sum(1) == 0
    bank[: BINS // 2, 0] += outside[: BINS // 2]
    bank[BINS // 2 :, -1] += outside[BINS // 2 :]
    return (bank / bank.sum(1, keepdim=True)).T


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--texts", type=Path, nargs="+", help="files with one text a line, for Hibari to say"
    )
    parser.add_argument(
        "--recorded", type=Path, help="pool of recorded speech to take apart instead"
    )
    parser.add_argument(
        "--mixed-by",
        type=Path,
        metavar="FOLDER",
        help="with --recorded: the codec that says how, see above",
    )
    parser.add_argument(
        "--voices",
        choices=["heart", "many"],
        default="heart",
        help="as duplex.training.speech; `many`: Hibari's alone",
    )
    parser.add_argument("--hours", type=float, default=1.2, help="0.8 GB each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, required=True, help="the pool's folder; a run resumes there"
    )
    args = parser.parse_args()
    if (args.texts is None) == (args.recorded is None):
        parser.error(
            "one of --texts and --recorded is needed: what is to be said, or what has been said"
        )
    if args.mixed_by and not args.recorded:
        parser.error(
            "--mixed-by needs --recorded: of its own speech a synthesiser knows the mixture"
        )
    if args.recorded:
        codec = load_codec(args.mixed_by) if args.mixed_by else None
        write_pool(lambda first: recorded(args.recorded, codec, first), args.out, args.hours)
        return
    texts = read_texts(args.texts)
    write_pool(lambda first: controlled(texts, args.voices, args.seed, first), args.out, args.hours)


if __name__ == "__main__":
    main()
