"""Sounds that make hearing hard: disturbed clips of speech, and sounds without any words."""

from collections.abc import Callable

import numpy as np
import scipy.signal
import soxr

from duplex.audio import SAMPLE_RATE
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.data.augment import active_power, sample_noise
from duplex.training.evaluation.hearing.rooms import far_field_response

# Samples a second of a telephone.
TELEPHONE_RATE = 8000
# Added before a sample becomes mu-law, so that segments begin at powers of two.
MU_BIAS = 132
# wave float32 [N], its own random numbers -> wave [N]
Disturbance = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def with_noise(snr_db: float, noises: list[np.ndarray]) -> Disturbance:
    """Adds a noise so far below the speech."""

    def disturb(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        gain = np.sqrt(active_power(wave) * 10 ** (-snr_db / 10))
        return wave + gain * sample_noise(len(wave), noises, rng)

    return disturb


def with_gaps(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The wave without 100 ms in every second, as from a client whose frames get lost."""
    kept = wave.copy()
    for begin in range(0, len(wave), SAMPLE_RATE):
        at = begin + rng.integers(SAMPLE_RATE * 9 // 10)
        kept[at : at + SAMPLE_RATE // 10] = 0
    return kept


def in_far_field(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The wave in a reverberant room, some metres away, as loud as before; its decay is cut off."""
    there = scipy.signal.fftconvolve(wave, far_field_response(rng))[: len(wave)]
    return (there * np.sqrt(active_power(wave) / active_power(there))).astype(np.float32)


def over_telephone(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The wave in the band of a telephone, 300 to 3400 Hz, and in the 8 bits of mu-law."""
    narrow = soxr.resample(wave, SAMPLE_RATE, TELEPHONE_RATE)
    band = scipy.signal.butter(4, (300, 3400), "bandpass", fs=TELEPHONE_RATE, output="sos")
    coded = from_mu_law(mu_law(scipy.signal.sosfilt(band, narrow)))
    wide = soxr.resample(coded, TELEPHONE_RATE, SAMPLE_RATE)
    return np.pad(wide, (0, max(0, len(wave) - len(wide))))[: len(wave)].astype(np.float32)


def mu_law(samples: np.ndarray) -> np.ndarray:
    """The codes uint8 [N] of float [N] in [-1, 1] (ITU-T G.711)."""
    magnitude = np.minimum(np.abs(samples) * 32768, 32635).astype(int) + MU_BIAS
    segment = np.floor(np.log2(magnitude)).astype(int) - 7
    code = np.where(samples < 0, 128, 0) | segment << 4 | magnitude >> (segment + 3) & 15
    return (255 - code).astype(np.uint8)


def from_mu_law(codes: np.ndarray) -> np.ndarray:
    """What the codes stand for, float32 [N]."""
    code = 255 - codes.astype(int)
    magnitude = (((code & 15) * 8 + MU_BIAS) << (code >> 4 & 7)) - MU_BIAS
    return (np.where(code & 128, -magnitude, magnitude) / 32768).astype(np.float32)


def babble(
    recordings: list[np.ndarray], seconds: float, rng: np.random.Generator, talkers: int = 6
) -> np.ndarray:
    """Several talkers at once, equally loud, as `sample_noise` takes it: int16 [N].

    Each is a stretch of the recordings, float32 [M], of at least a second.
    """
    samples = int(seconds * SAMPLE_RATE)
    mixed = np.zeros(samples, np.float32)
    for _ in range(talkers):
        recording = recordings[rng.integers(len(recordings))]
        stretch = np.resize(np.roll(recording, rng.integers(len(recording))), samples)
        mixed += stretch / np.sqrt(active_power(stretch) + 1e-9)
    return (mixed * (32000 / np.abs(mixed).max())).astype(np.int16)


def as_wrong_bytes(wave: np.ndarray) -> np.ndarray:
    """What is heard of a telephone's mu-law by a program that takes its bytes for 16-bit samples.

    wave: float32 [N] -> [N / 6], loud noise where there is speech.
    """
    codes = mu_law(soxr.resample(wave, SAMPLE_RATE, TELEPHONE_RATE))
    return codes[: len(codes) // 2 * 2].view("<i2").astype(np.float32) / 32768


def wordless(
    noises: list[np.ndarray], minutes: float, rng: np.random.Generator, seconds: int = 20
) -> list[np.ndarray]:
    """Waves of so many seconds, float32: noises at many levels, tones, music, and silence."""
    waves = []
    samples = SAMPLE_RATE * seconds
    for number in range(max(1, round(minutes * 60 / seconds))):
        level = 10 ** (rng.uniform(-60, -15) / 20)
        if number % 5 == 0:
            wave = np.zeros(samples, np.float32)
        elif number % 5 == 1:
            wave = level * tones(samples, rng)
        elif number % 5 == 2:
            wave = level * music(samples, rng)
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


def music(samples: int, rng: np.random.Generator) -> np.ndarray:
    """[samples]: two chords a second that die away, each with a beat of noise, below 1."""
    length = SAMPLE_RATE // 2
    seconds = np.arange(length) / SAMPLE_RATE
    third = rng.integers(3, 5)  # semitones: minor or major
    beats = []
    for _ in range(samples // length + 1):
        root = 110 * 2 ** (rng.choice([0, 5, 7, 9]) / 12)
        chord = np.zeros(length)
        for semitones in (0, third, 7, 12):
            hertz = root * 2 ** (semitones / 12)
            chord += sum(np.sin(2 * np.pi * k * hertz * seconds) / k**2 for k in (1, 2, 3))
        beat = rng.standard_normal(length) * np.exp(-40 * seconds)
        beats.append(0.15 * chord * np.exp(-3 * seconds) + 0.1 * beat)
    return np.concatenate(beats)[:samples].clip(-1, 1)


def words_per_minute(texts: list[str], waves: list[np.ndarray]) -> float:
    """How many words were heard in waves [N] that have none."""
    words = sum(len(spoken_form(text).split()) for text in texts)
    return round(words / (sum(map(len, waves)) / SAMPLE_RATE / 60), 2)
