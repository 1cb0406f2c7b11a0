"""Make clean speech sound like the world: rooms, telephones, noise, other talkers, lost packets.

Everything but speed keeps the time axis of the clean wave (the direct sound stays where it was), so
one teacher serves both. A wave is float32 [N].
"""

import json
from pathlib import Path

import numpy as np
import soundfile
import soxr

from duplex.audio import SAMPLE_RATE


def load_noise(data: str | Path) -> list[np.ndarray]:
    """The recorded noises in DATA/audio.jsonl, each int16 [N] at the project's rate."""
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
    """The wave `factor` times as fast: tempo and pitch together.

    Linear interpolation is good enough for training.
    """
    positions = np.arange(int(len(wave) / factor)) * factor
    return np.interp(positions, np.arange(len(wave)), wave).astype(np.float32)


def active_power(wave: np.ndarray) -> float:
    """Mean square of the loud part of a wave.

    That are the stretches of 20 ms with at least a hundredth of the loudest one's power.
    """
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
    tail[: int(SAMPLE_RATE * rng.uniform(0.001, 0.008))] = 0  # Before the first reflection.
    tail *= 10 ** (-rng.uniform(0, 15) / 20) / np.sqrt(np.square(tail).sum() + 1e-9)
    tail[0] = 1.0
    return tail.astype(np.float32)


def band_gain(hz: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Amplitude over frequency [F]: often a spectral tilt, now and then the band of a telephone."""
    gain = np.ones_like(hz)
    if rng.random() < 0.5:
        octaves = np.log2(np.maximum(hz, 60) / 1000)
        gain *= 10 ** (rng.uniform(-3, 3) * octaves / 20)  # dB an octave
    if rng.random() < 0.1:
        low = rng.uniform(200, 400)
        high = rng.uniform(3000, 3800)
        gain /= np.sqrt((1 + (low / np.maximum(hz, 1)) ** 8) * (1 + (hz / high) ** 16))
    return gain


def apply_room(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Room, tilt and telephone in one pass through the spectrum; one clip in four is in a room."""
    import scipy.fft  # Of the extra "train", which preparing does without.

    response = room_response(rng) if rng.random() < 0.25 else None
    size = scipy.fft.next_fast_len(len(wave) + (SAMPLE_RATE // 2), real=True)
    spectrum = scipy.fft.rfft(wave, size)
    gain = band_gain(np.fft.rfftfreq(size, 1 / SAMPLE_RATE).astype(np.float32), rng)
    if response is not None:
        gain = gain * scipy.fft.rfft(response, size)
    return scipy.fft.irfft(spectrum * gain, size)[: len(wave)].astype(np.float32)


def sample_noise(samples: int, noises: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A random stretch of a random noise, repeated if it is short, at mean square 1 [samples]."""
    noise = noises[rng.integers(len(noises))]
    start = rng.integers(max(1, len(noise) - samples + 1))
    stretch = np.resize(noise[start : start + samples], samples).astype(np.float32)
    return stretch / np.sqrt(np.square(stretch).mean() + 1.0)


def lose_packets(wave: np.ndarray, rng: np.random.Generator) -> None:
    """Silence, in place, where one to three packets of 20 ms got lost, about every two seconds."""
    for _ in range(rng.poisson(len(wave) / SAMPLE_RATE / 2)):
        at = rng.integers(len(wave))
        wave[at : at + rng.integers(1, 4) * SAMPLE_RATE // 50] = 0


def augment(
    clean: np.ndarray,
    power: float,
    noises: list[np.ndarray],
    rng: np.random.Generator,
    hard_share: float = 1.0,
    other: np.ndarray | None = None,
) -> np.ndarray:
    """What a microphone might have brought of a wave, whose speech has mean square `power`.

    Only `hard_share` of the clips meet rooms, telephones and noises: early in a training less is
    learned from them. other: somebody else's speech, which may be heard behind: another talker, a
    television, or the agent's own voice from the loudspeaker.
    """
    is_hard = rng.random() < hard_share
    wave = apply_room(clean, rng) if is_hard else clean.copy()
    if is_hard and noises and rng.random() < 0.55:
        level = np.sqrt(power * 10 ** (-rng.uniform(0.0, 30.0) / 10))
        wave += level * sample_noise(len(wave), noises, rng)
    if is_hard and other is not None and rng.random() < 0.15:
        level = np.sqrt(power / active_power(other) * 10 ** (rng.uniform(-30.0, -8.0) / 10))
        wave += level * np.resize(other, len(wave))
    if is_hard and rng.random() < 0.06:
        lose_packets(wave, rng)
    # One clip in twenty is 3 to 15 dB above full scale, and so is clipped.
    is_clipped = rng.random() < 0.05
    gain_db = rng.uniform(3.0, 15.0) if is_clipped else rng.uniform(-45.0, 0.0)
    wave *= 10 ** (gain_db / 20) / (np.abs(wave).max() + 1e-6)
    if rng.random() < 0.5:
        # A microphone's own noise, in dB of full scale.
        hiss = 10 ** (rng.uniform(-85.0, -50.0) / 20)
        wave += hiss * rng.standard_normal(len(wave), dtype=np.float32)
    return wave.clip(-1, 1)
