"""A recording of two channels, however long: on the disk at the project's rate, read in parts."""

import errno
import mmap
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from duplex.audio import ENCODER_FRAME_S, SAMPLE_RATE, TICK_SAMPLES
from duplex.model.asr import features
from duplex.model.asr.encoder import Encoder
from duplex.training.conversations.labels import Unusable


@dataclass
class Channel:
    """One side of a recording."""

    samples: np.ndarray  # int16 [N], mapped.
    encoder: Encoder

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / SAMPLE_RATE

    def wave(self, start_s: float, end_s: float) -> np.ndarray:
        """A part, float32 [N]."""
        begin = max(0, int(start_s * SAMPLE_RATE))
        part = self.samples[begin : max(begin, int(end_s * SAMPLE_RATE))]
        wave = part.astype(np.float32) * np.float32(1 / 32768)
        let_go(self.samples)
        return wave

    @cached_property
    def log_probs(self) -> Tensor:
        """The encoder's log-probabilities [T, 1 + phones] of all of it, as a stream.

        It goes on for 6 ticks of silence: the last spikes come late.
        """
        found = []
        heard = features.initial_state(1)
        state = self.encoder.initial_state(1)
        end = len(self.samples) + 6 * TICK_SAMPLES
        step = 250 * TICK_SAMPLES
        with torch.no_grad():
            for begin in range(0, end, step):
                part = self.wave(begin / SAMPLE_RATE, (begin + step) / SAMPLE_RATE)
                ticks = -(-min(step, end - begin) // TICK_SAMPLES)
                part = np.pad(part, (0, ticks * TICK_SAMPLES - len(part)))
                mel, heard = features.log_mel(torch.from_numpy(part)[None], heard)
                (_, log_probs), state = self.encoder.step(mel, state)
                found.append(log_probs[0])
        return torch.cat(found)

    def frames(self, start_s: float, end_s: float) -> Tensor:
        """The log-probabilities between two times."""
        begin = max(0, int(start_s / ENCODER_FRAME_S))
        return self.log_probs[begin : max(begin, int(end_s / ENCODER_FRAME_S))]


def convert(path: Path, scratch: Path) -> np.ndarray:
    """A stereo file at the project's rate, int16 [N, 2] in the file `scratch`, left first.

    Raises Unusable.
    """
    try:
        with opened(path, scratch) as file, open(scratch, "wb") as out:
            if file.channels != 2:
                count = "is mono" if file.channels == 1 else f"has {file.channels} channels"
                raise Unusable(f"{count}, it needs two channels, left the agent and right the user")
            resampler = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 2, dtype="float32")
            while True:
                block = file.read(30 * file.samplerate, dtype="float32", always_2d=True)
                if not np.isfinite(block).all():
                    raise Unusable("holds samples that are no numbers")
                is_last = not len(block)
                made = resampler.resample_chunk(block, last=is_last)
                out.write((made.clip(-1, 1) * 32767).astype("<i2").tobytes())
                if is_last:
                    break
    except soundfile.LibsndfileError as error:
        raise Unusable(f"cannot be read as sound ({error.error_string.rstrip('.')})") from None
    if not scratch.stat().st_size:
        raise Unusable("is empty: it has no sound of the user in its right channel")
    return np.memmap(scratch, "<i2", "r").reshape(-1, 2)


@contextmanager
def opened(path: Path, scratch: Path) -> Iterator[soundfile.SoundFile]:
    """A sound file; what libsndfile cannot read, ffmpeg does: phones' m4a, sizes never filled in.

    scratch: what ffmpeg makes lies beside it meanwhile. Raises LibsndfileError, Unusable.
    """
    if not path.stat().st_size:
        raise Unusable("is an empty file")
    made = None
    try:
        file = soundfile.SoundFile(path)
        reason = "" if file.frames else "it holds no samples"
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".")
    try:
        if reason:
            made = scratch.with_suffix(".wav")
            convert_with_ffmpeg(path, made, reason)
            file = soundfile.SoundFile(made)
        with file:
            yield file
    finally:
        if made:
            made.unlink(missing_ok=True)


def convert_with_ffmpeg(path: Path, made: Path, reason: str) -> None:
    """Write the sound of a file as a wav. Raises Unusable with the reason where ffmpeg cannot."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise Unusable(
            f"cannot be read as sound ({reason}): convert it, ffmpeg -i {path.name} {path.stem}.wav"
        )
    command = [program, "-nostdin", "-v", "error", "-y", "-i", f"file:{path}", "-vn"]
    command += ["-acodec", "pcm_s16le", "-rf64", "auto", "-f", "wav", str(made)]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode or not made.exists():
        if b"No space left" in done.stderr:
            raise OSError(errno.ENOSPC, "No space left on device")
        raise Unusable(f"cannot be read as sound ({reason}), and ffmpeg cannot either")


def blocks_of(samples: np.ndarray, block: int = 1 << 20) -> Iterator[np.ndarray]:
    """The samples in parts, so that of a mapped file no more than one is in memory."""
    for begin in range(0, len(samples), block):
        yield samples[begin : begin + block]
        let_go(samples)


def let_go(samples: np.ndarray) -> None:
    """Forget what was read of a mapped file, which counts as memory: 1.4 GB in four hours."""
    mapped = getattr(samples, "_mmap", None)
    if mapped is not None and hasattr(mapped, "madvise"):  # Windows has none.
        mapped.madvise(mmap.MADV_DONTNEED)


def is_silent(samples: np.ndarray) -> bool:
    """Whether int16 [N] holds nothing but zeros."""
    return not any(block.any() for block in blocks_of(samples))


def likeness(samples: np.ndarray) -> float:
    """How much both channels of int16 [N, 2] are the same sound: 0 to 1, their correlation."""
    products = np.zeros((2, 2))
    for block in blocks_of(samples):
        part = block.astype(np.float32)
        products += part.T @ part
    power = np.sqrt(products[0, 0] * products[1, 1])
    return float(abs(products[0, 1]) / power) if power else 0.0
