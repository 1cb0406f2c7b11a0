"""Sound files of any kind as 24 kHz mono, also unfinished ones and those of phones."""

import io
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.errors import ClientError

if TYPE_CHECKING:
    import soundfile

# By the format tag and bits of a WAV header: soundfile's names of samples.
RAW_SAMPLES = {(1, 16): "PCM_16", (1, 24): "PCM_24", (1, 32): "PCM_32", (3, 32): "FLOAT"}
# A mean of channels softer than this share of the loudest: they cancel each other.
CANCELLED = 0.1


@dataclass
class Question:
    """A recording: float32 [N], 24 kHz mono."""

    name: str
    samples: np.ndarray
    # It is said into an answer, once that has been heard for so long; None: after the answer.
    into_answer_s: float | None = None

    @property
    def sound_s(self) -> float:
        """When the speech in it ends: files often trail off into silence."""
        loud = np.flatnonzero(np.abs(self.samples) > 0.05 * np.abs(self.samples).max(initial=0.0))
        return (int(loud[-1]) + 1) / SAMPLE_RATE if len(loud) else 0.0


def read_wave(path: Path) -> Question:
    """Any sound file as 24 kHz mono; conversions are told on stderr. Raises ClientError."""
    import soundfile

    path = Path(path)
    if path.is_dir():
        raise ClientError(f"cannot read {path}: it is a folder; name the files in it")
    try:
        with _open(path) as sound:
            samples = _mono(sound, path)
    except (soundfile.LibsndfileError, OSError) as error:
        reason = getattr(error, "error_string", str(error)).rstrip(". ")
        if not path.exists():
            raise ClientError(f"cannot read {path}: no such file") from error
        with _open_with_ffmpeg(path, reason) as sound:
            samples = _mono(sound, path)
    if not len(samples):
        raise ClientError(f"cannot use {path}: there is no sound in it")
    return Question(path.name, samples)


def _open(path: Path) -> "soundfile.SoundFile":
    """A file that libsndfile reads. Raises LibsndfileError, OSError."""
    import soundfile

    sound = soundfile.SoundFile(path)
    if sound.frames:
        return sound
    return _open_unfinished(path) or sound


def _mono(sound: "soundfile.SoundFile", path: Path) -> np.ndarray:
    """One channel at 24 kHz: the mean of all, or the loudest where they cancel each other.

    It is read second by second: of a long recording only that one channel is held.
    """
    powers = np.zeros(sound.channels)
    mixed_power = 0.0

    def means():
        nonlocal powers, mixed_power
        for block in _blocks(sound):
            mono = block.mean(axis=1)
            powers = powers + np.square(block, dtype=np.float64).sum(axis=0)
            mixed_power += float(np.square(mono, dtype=np.float64).sum())
            yield mono

    samples = _resampled(means(), sound.samplerate)
    if sound.channels > 1 and mixed_power < CANCELLED**2 * powers.max():
        loudest = int(powers.argmax())
        _note(f"the channels of {path} cancel each other; channel {loudest + 1} is used")
        sound.seek(0)
        samples = _resampled((block[:, loudest] for block in _blocks(sound)), sound.samplerate)
    elif sound.channels > 1:
        _note(f"{path} has {sound.channels} channels; their mean is used")
    if sound.samplerate != SAMPLE_RATE:
        _note(f"{path} is converted from {sound.samplerate} Hz to {SAMPLE_RATE} Hz")
    return samples


def _blocks(sound: "soundfile.SoundFile") -> Iterator[np.ndarray]:
    """float32 [N, channels], a second each; what is no number is silence."""
    for block in sound.blocks(sound.samplerate, dtype="float32", always_2d=True):
        yield np.nan_to_num(block)


def _resampled(blocks: Iterator[np.ndarray], rate: int) -> np.ndarray:
    """Blocks [N] at `rate` as one sound at 24 kHz."""
    import soxr

    if rate == SAMPLE_RATE:
        return np.concatenate([np.zeros(0, np.float32), *blocks])
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    pieces = [stream.resample_chunk(block) for block in blocks]
    return np.concatenate([*pieces, stream.resample_chunk(np.zeros(0, np.float32), last=True)])


def _open_unfinished(path: Path) -> "soundfile.SoundFile | None":
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
            return soundfile.SoundFile(
                io.BytesIO(raw[: len(raw) // frame_bytes * frame_bytes]),
                format="RAW",
                subtype=RAW_SAMPLES[form[0], form[5]],
                channels=form[1],
                samplerate=form[2],
            )
        at += 8 + size + size % 2
    return None


def _open_with_ffmpeg(path: Path, reason: str) -> "soundfile.SoundFile":
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
    return soundfile.SoundFile(io.BytesIO(done.stdout))


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
