"""Sound in whichever form a program has it, to the samples of the wire."""

from typing import Any

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.errors import ClientError
from duplex.serving.native.messages import decode_audio

# An array, a torch tensor, a list of numbers, or bytes of PCM16.
Wave = Any


def to_samples(wave: Wave, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Mono float32 [N] at 24 kHz of a sound at `rate` samples a second.

    wave: floats in [-1, 1] or int16 [N], [N, channels] or [channels, N]; or PCM16 bytes, mono.
    Raises ClientError where that is no sound.
    """
    if not isinstance(rate, int | np.integer) or not 4_000 <= rate <= 384_000:
        raise ClientError(f"rate is samples a second, from 4000 to 384000, not {rate!r:.40}")
    if isinstance(wave, bytes | bytearray | memoryview):
        samples = decode_audio(bytes(wave)[: len(wave) // 2 * 2])
    else:
        samples = _mono(_array(wave))
    if rate != SAMPLE_RATE and len(samples):
        import soxr

        samples = soxr.resample(samples, rate, SAMPLE_RATE).astype(np.float32)
    return np.nan_to_num(samples)


def _array(wave: Wave) -> np.ndarray:
    if hasattr(wave, "detach"):
        # A tensor may lie on another device and want its gradient; numpy has no bfloat16.
        wave = wave.detach().cpu()
        wave = wave.float() if wave.is_floating_point() else wave
    found = np.asarray(wave)
    if found.dtype == np.int16:
        return found.astype(np.float32) / 32768
    if not np.issubdtype(found.dtype, np.floating) and found.size:
        raise ClientError(
            f"a sound is floats in [-1, 1], int16 or bytes of PCM16, not {found.dtype}"
        )
    return found.astype(np.float32)


def _mono(found: np.ndarray) -> np.ndarray:
    """The mean of the channels, which are fewer than the samples."""
    if found.ndim == 2:
        return found.mean(axis=0 if found.shape[0] < found.shape[1] else 1)
    if found.ndim != 1:
        raise ClientError(f"a sound is [N], [N, channels] or [channels, N], not {found.shape}")
    return found
