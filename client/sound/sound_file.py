"""Sound files of any kind as 24 kHz mono, also unfinished ones and those of phones."""

import io
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.errors import ClientError

# By the format tag and bits of a WAV header: soundfile's names of samples.
RAW_SAMPLES = {(1, 16): "PCM_16", (1, 24): "PCM_24", (1, 32): "PCM_32", (3, 32): "FLOAT"}
# A mean of channels softer than this share of the loudest: they cancel each other.
CANCELLED = 0.1


@dataclass
class Question:
    """A recording: float32 [N], 24 kHz mono."""

    name: str
    samples: np.ndarray

    @property
    def sound_s(self) -> float:
        """When the speech in it ends: files often trail off into silence."""
        loud = np.flatnonzero(np.abs(self.samples) > 0.05 * np.abs(self.samples).max(initial=0.0))
        return (int(loud[-1]) + 1) / SAMPLE_RATE if len(loud) else 0.0


def read_wave(path: Path) -> Question:
    """Any sound file as 24 kHz mono; conversions are told on stderr. Raises ClientError."""
    samples, rate = _read(Path(path))  # [N, channels]
    if not len(samples):
        raise ClientError(f"cannot use {path}: there is no sound in it")
    mono = _mix(np.nan_to_num(samples), path)
    if rate != SAMPLE_RATE:
        import soxr

        _note(f"{path} is converted from {rate} Hz to {SAMPLE_RATE} Hz")
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    return Question(Path(path).name, mono.astype(np.float32))


def _read(path: Path) -> tuple[np.ndarray, int]:
    """Samples [N, channels] and their rate. Raises ClientError."""
    import soundfile

    if path.is_dir():
        raise ClientError(f"cannot read {path}: it is a folder; name the files in it")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        return (samples, rate) if len(samples) else _read_unfinished(path, rate)
    except (soundfile.LibsndfileError, OSError) as error:
        reason = getattr(error, "error_string", str(error)).rstrip(". ")
        if not path.exists():
            raise ClientError(f"cannot read {path}: no such file") from error
    return _read_with_ffmpeg(path, reason)


def _mix(samples: np.ndarray, path: Path) -> np.ndarray:
    """One channel of [N, channels]: their mean, or the loudest where they cancel each other."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    mono = samples.mean(axis=1)
    powers = np.square(samples).mean(axis=0)
    if np.square(mono).mean() < CANCELLED**2 * powers.max():
        loudest = int(powers.argmax())
        _note(f"the channels of {path} cancel each other; channel {loudest + 1} is used")
        return samples[:, loudest]
    _note(f"{path} has {samples.shape[1]} channels; their mean is used")
    return mono


def _read_unfinished(path: Path, rate: int) -> tuple[np.ndarray, int]:
    """A WAV file whose writer never filled in its sizes: samples up to the file's end."""
    import soundfile

    data = path.read_bytes()
    at = 12
    form = None
    while data[:4] == b"RIFF" and at + 8 <= len(data):
        name, size = struct.unpack("<4sI", data[at : at + 8])
        if name == b"fmt ":
            form = struct.unpack("<HHIIHH", data[at + 8 : at + 24])
        if name == b"data" and form and (form[0], form[5]) in RAW_SAMPLES:
            frame_bytes = form[1] * form[5] // 8
            raw = data[at + 8 :]
            raw = raw[: len(raw) // frame_bytes * frame_bytes]
            samples, rate = soundfile.read(
                io.BytesIO(raw),
                dtype="float32",
                always_2d=True,
                format="RAW",
                subtype=RAW_SAMPLES[form[0], form[5]],
                channels=form[1],
                samplerate=form[2],
            )
            return samples, rate
        at += 8 + size + size % 2
    return np.zeros((0, 1), np.float32), rate


def _read_with_ffmpeg(path: Path, reason: str) -> tuple[np.ndarray, int]:
    """What libsndfile does not know: phones' m4a, browsers' webm. Raises ClientError."""
    import soundfile

    program = shutil.which("ffmpeg")
    if program is None:
        raise ClientError(
            f"cannot read {path}: {reason}; convert it: ffmpeg -i {path} {path.stem}.wav"
        )
    command = [program, "-v", "error", "-i", str(path), "-f", "wav", "-acodec", "pcm_f32le", "-"]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode or not done.stdout:
        raise ClientError(f"cannot read {path}: {reason}, and ffmpeg cannot either")
    return soundfile.read(io.BytesIO(done.stdout), dtype="float32", always_2d=True)


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
