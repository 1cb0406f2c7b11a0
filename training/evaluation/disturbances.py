"""Sounds that make hearing hard: disturbed clips of speech, and sounds without any words."""

from collections.abc import Callable

import numpy as np
import scipy.signal
import soxr

from duplex.audio import SAMPLE_RATE
from duplex.model.spoken_form import spoken_form
from duplex.training.data.augment import active_power, room_response, sample_noise

# wave float32 [N], its own random numbers -> wave [N]
Disturbance = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def disturbances(noises: list[np.ndarray]) -> dict[str, Disturbance]:
    """What a clip is put through, by name; `noises` are added at four levels."""
    table: dict[str, Disturbance] = {"clean": lambda wave, rng: wave}
    table |= {f"SNR {snr_db} dB": with_noise(snr_db, noises) for snr_db in (20, 10, 5, 0)}
    return table | {
        "room": in_room,
        "telephone": over_telephone,
        "peak -40 dB": with_peak(-40),
        "clipped by 12 dB": with_peak(12),
    }


def with_noise(snr_db: float, noises: list[np.ndarray]) -> Disturbance:
    """Adds a noise so far below the speech."""

    def disturb(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        gain = np.sqrt(active_power(wave) * 10 ** (-snr_db / 10))
        return wave + gain * sample_noise(len(wave), noises, rng)

    return disturb


def with_peak(peak_db: float) -> Disturbance:
    """Sets the loudest sample to this level of full scale; above 0 dB the wave is clipped."""

    def disturb(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        wave = wave * 10 ** (peak_db / 20) / (np.abs(wave).max() + 1e-9)
        return wave.clip(-1, 1).astype(np.float32)

    return disturb


def in_room(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The wave in a reverberant room."""
    return scipy.signal.fftconvolve(wave, room_response(rng))[: len(wave)].astype(np.float32)


def over_telephone(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The wave without what lies above 4 kHz."""
    narrow = soxr.resample(soxr.resample(wave, SAMPLE_RATE, 8000), 8000, SAMPLE_RATE)
    return np.pad(narrow, (0, max(0, len(wave) - len(narrow))))[: len(wave)].astype(np.float32)


def wordless(
    noises: list[np.ndarray], minutes: float, rng: np.random.Generator, seconds: int = 20
) -> list[np.ndarray]:
    """Waves of so many seconds, float32: noises at many levels, tones, and silence."""
    waves = []
    samples = SAMPLE_RATE * seconds
    for number in range(max(1, round(minutes * 60 / seconds))):
        level = 10 ** (rng.uniform(-60, -15) / 20)
        if number % 5 == 0:
            wave = np.zeros(samples, np.float32)
        elif number % 5 == 1:
            wave = level * tones(samples, rng)
        else:
            wave = level * sample_noise(samples, noises, rng)
        waves.append(wave.astype(np.float32))
    return waves


def tones(samples: int, rng: np.random.Generator) -> np.ndarray:
    """[samples]: tones of a quarter of a second each, over two octaves, as in music."""
    length = SAMPLE_RATE // 4
    hertz = 220 * 2 ** (rng.integers(0, 25, samples // length + 1) / 12)
    steps = np.repeat(hertz, length)[:samples]
    return np.sin(2 * np.pi * np.cumsum(steps) / SAMPLE_RATE)


def words_per_minute(texts: list[str], waves: list[np.ndarray]) -> float:
    """How many words were heard in waves [N] that have none."""
    words = sum(len(spoken_form(text).split()) for text in texts)
    return round(words / (sum(map(len, waves)) / SAMPLE_RATE / 60), 2)
