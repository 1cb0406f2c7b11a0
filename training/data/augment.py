"""Make clean speech sound like the world: other speeds, rooms, telephones, noise, other talkers, lost packets, levels.

Everything but speed keeps the time axis of the clean wave (the direct sound stays where it was), so one teacher serves
both.
"""

import json
from pathlib import Path

import numpy as np
import scipy.fft
import soundfile
import soxr

from duplex.audio import SAMPLE_RATE

SPEED_SHARE = 0.6  # of utterances
ROOM_SHARE = 0.25  # of clips, as all below
TELEPHONE_SHARE = 0.1
TILT_SHARE = 0.5
NOISE_SHARE = 0.55
HISS_SHARE = 0.5
NOISE_SNR_DB = (0.0, 30.0)
HISS_DB = (-85.0, -50.0)
OTHER_SHARE = 0.15
OTHER_DB = (
    -30.0,
    -8.0,
)  # another talker, a television or the agent's own voice from the loudspeaker, beside the speaker
LOST_SHARE = 0.06
GAIN_DB = (-45.0, 0.0)
CLIPPED_SHARE = 0.05
CLIPPED_DB = (3.0, 15.0)  # above full scale


def load_noise(data: str | Path) -> list[np.ndarray]:
    """The recorded noises that `audio.jsonl` in this folder lists, each int16 [samples] at the project's rate."""
    noises = []
    for line in (Path(data) / "audio.jsonl").read_text().splitlines():
        item = json.loads(line)
        if item["kind"] != "noise":
            continue
        wave, rate = soundfile.read(Path(data) / item["file"], dtype="float32", always_2d=True)
        wave = soxr.resample(wave.mean(1), rate, SAMPLE_RATE, quality="QQ")
        peak = np.abs(wave).max(initial=0.0)
        if len(wave) > SAMPLE_RATE // 2 and peak > 1e-4:
            noises.append((wave * (32000 / peak)).astype(np.int16))
    return noises


def change_speed(wave: np.ndarray, factor: float) -> np.ndarray:
    """Play `factor` times as fast: tempo and pitch together. Linear interpolation is good enough for training."""
    positions = np.arange(int(len(wave) / factor)) * factor
    return np.interp(positions, np.arange(len(wave)), wave).astype(np.float32)


def active_power(wave: np.ndarray) -> float:
    """Mean square of the loud part of a wave (20 ms stretches above a hundredth of the loudest)."""
    stretch = SAMPLE_RATE // 50
    power = np.square(wave[: len(wave) // stretch * stretch]).reshape(-1, stretch).mean(1)
    if not len(power) or power.max() <= 0:
        return 1e-4
    return float(power[power >= 0.01 * power.max()].mean())


def room_response(rng: np.random.Generator) -> np.ndarray:
    """Direct sound, then noise that decays by 60 dB in 0.15 to 0.8 s."""
    decay_s = rng.uniform(0.15, 0.8)
    seconds = np.arange(int(SAMPLE_RATE * min(decay_s, 0.5))) / SAMPLE_RATE
    tail = rng.standard_normal(len(seconds)) * 10 ** (-3 * seconds / decay_s)
    tail[: int(SAMPLE_RATE * rng.uniform(0.001, 0.008))] = 0  # before the first reflection
    tail *= 10 ** (-rng.uniform(0, 15) / 20) / np.sqrt(np.square(tail).sum() + 1e-9)
    tail[0] = 1.0
    return tail.astype(np.float32)


def band_gain(hz: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Amplitude over frequency: spectral tilt, and now and then the band of a telephone."""
    gain = np.ones_like(hz)
    if rng.random() < TILT_SHARE:
        octaves = np.log2(np.maximum(hz, 60) / 1000)
        gain *= 10 ** (rng.uniform(-3, 3) * octaves / 20)  # dB per octave
    if rng.random() < TELEPHONE_SHARE:
        low, high = rng.uniform(200, 400), rng.uniform(3000, 3800)
        gain /= np.sqrt((1 + (low / np.maximum(hz, 1)) ** 8) * (1 + (hz / high) ** 16))
    return gain


def filtered(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Room, tilt and telephone in one pass through the spectrum."""
    response = room_response(rng) if rng.random() < ROOM_SHARE else None
    size = scipy.fft.next_fast_len(len(wave) + (SAMPLE_RATE // 2), real=True)
    spectrum = scipy.fft.rfft(wave, size)
    gain = band_gain(np.fft.rfftfreq(size, 1 / SAMPLE_RATE).astype(np.float32), rng)
    if response is not None:
        gain = gain * scipy.fft.rfft(response, size)
    return scipy.fft.irfft(spectrum * gain, size)[: len(wave)].astype(np.float32)


def noise_stretch(samples: int, noises: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A random stretch of a random noise, repeated if it is short, at mean square 1 [samples]."""
    noise = noises[rng.integers(len(noises))]
    start = rng.integers(max(1, len(noise) - samples + 1))
    piece = np.resize(noise[start : start + samples], samples).astype(np.float32)
    return piece / np.sqrt(np.square(piece).mean() + 1.0)


def lose_packets(wave: np.ndarray, rng: np.random.Generator) -> None:
    """Silence, in place, where one to three packets of 20 ms did not come, about once in two seconds."""
    for _ in range(rng.poisson(len(wave) / SAMPLE_RATE / 2)):
        at = rng.integers(len(wave))
        wave[at : at + rng.integers(1, 4) * SAMPLE_RATE // 50] = 0


def augment(
    clean: np.ndarray,
    power: float,
    noises: list[np.ndarray],
    rng: np.random.Generator,
    share=1.0,
    other=None,
):
    """clean [samples] with speech of mean square `power` -> what a microphone might have brought [samples].

    Only a `share` of all clips meets rooms, telephones and noises (early in training less is learned from them).
    other: somebody else's speech, who may be heard behind.
    """
    hard = rng.random() < share
    wave = filtered(clean, rng) if hard else clean.copy()
    if hard and noises and rng.random() < NOISE_SHARE:
        level = np.sqrt(power * 10 ** (-rng.uniform(*NOISE_SNR_DB) / 10))
        wave += level * noise_stretch(len(wave), noises, rng)
    if hard and other is not None and rng.random() < OTHER_SHARE:
        level = np.sqrt(power / active_power(other) * 10 ** (rng.uniform(*OTHER_DB) / 10))
        wave += level * np.resize(other, len(wave))
    if hard and rng.random() < LOST_SHARE:
        lose_packets(wave, rng)
    gain = rng.uniform(*(CLIPPED_DB if rng.random() < CLIPPED_SHARE else GAIN_DB))
    wave *= 10 ** (gain / 20) / (np.abs(wave).max() + 1e-6)
    if rng.random() < HISS_SHARE:  # a microphone's own noise, in dB of full scale
        wave += 10 ** (rng.uniform(*HISS_DB) / 20) * rng.standard_normal(
            len(wave), dtype=np.float32
        )
    return wave.clip(-1, 1)
