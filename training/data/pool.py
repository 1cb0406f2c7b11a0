"""A speech pool: a folder with every utterance end to end in one int16 file and an index beside it.

`audio.i16` is mono at the project's rate, mapped and never read as a whole; `index.jsonl` has one
line an utterance (offset, samples, text, voice, split, words, phones, durations, source). Where the
voice's controls are known (`duplex.training.data.vocoder_targets`) they are in `controls.f16`. The
folder is complete once it holds the file READY.
"""

import json
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from duplex.audio import CODEC_FRAME_SAMPLES, SAMPLE_RATE


class Pool:
    """`entries` are the index lines as dictionaries, `wave(i)` is the audio of the i-th."""

    def __init__(self, folder: str | Path, split: str | None = None):
        """`split` keeps only the utterances marked so ("train" or "valid")."""
        folder = Path(folder)
        with open(folder / "index.jsonl", encoding="utf-8") as lines:
            entries = [json.loads(line) for line in lines]
        self.entries = [entry for entry in entries if split is None or entry["split"] == split]
        self.audio = np.memmap(folder / "audio.i16", dtype=np.int16, mode="r")

    def __len__(self) -> int:
        return len(self.entries)

    def wave(self, i: int, start: int = 0, samples: int | None = None) -> np.ndarray:
        """Utterance `i`, float32 [samples] in [-1, 1), or its part from `start`, cut at its end."""
        entry = self.entries[i]
        end = entry["samples"] if samples is None else min(entry["samples"], start + samples)
        stored = self.audio[entry["offset"] + start : entry["offset"] + end]
        return stored.astype(np.float32) * (1 / 32768)


def to_int16(wave: np.ndarray) -> np.ndarray:
    """A wave float32 [N] as a pool stores it; softer where its peak would be above 0.98."""
    peak = float(np.abs(wave).max(initial=0))
    gain = min(1.0, 0.98 / peak) if peak else 1.0
    return (wave * gain * 32767).astype("<i2")


class PoolWriter:
    """Appends utterances to a pool, and goes on where an interrupted run stopped.

    A wave without its index line, or controls without their wave, are cut off first.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        index = folder / "index.jsonl"
        lines = whole_lines(index) if index.exists() else []
        last = json.loads(lines[-1]) if lines else {"offset": 0, "samples": 0}
        self.count = len(lines)
        self.offset = last["offset"] + last["samples"]
        self.folder = folder
        self.files = ExitStack()
        self.audio = self.files.enter_context(open(folder / "audio.i16", "ab"))
        self.audio.truncate(2 * self.offset)
        self.index = self.files.enter_context(open(index, "a", encoding="utf-8"))
        self.controls = None

    def __enter__(self) -> "PoolWriter":
        return self

    def __exit__(self, *_) -> None:
        self.files.close()

    def append(self, text: str, wave: np.ndarray, fields: dict) -> None:
        """wave float32 [N]; `fields` may hold "controls" [N // CODEC_FRAME_SAMPLES, numbers]."""
        samples = to_int16(wave)
        self.audio.write(samples.tobytes())
        fields = dict(fields)
        rows = fields.pop("controls", None)
        if rows is not None:
            self.append_controls(rows.astype("<f2"))
        entry = {"offset": self.offset, "samples": len(samples), "text": text, **fields}
        self.index.write(json.dumps(entry) + "\n")
        self.offset += len(samples)

    def append_blocks(self, text: str, blocks: Iterable[np.ndarray], fields: dict) -> None:
        """As `append`, of a wave that comes in parts, int16 [N] each."""
        samples = 0
        for block in blocks:
            self.audio.write(block.astype("<i2").tobytes())
            samples += len(block)
        entry = {"offset": self.offset, "samples": samples, "text": text, **fields}
        self.index.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self.offset += samples

    def append_controls(self, rows: np.ndarray) -> None:
        """rows float16 [frames, numbers] of the utterance that begins at `offset`."""
        if self.controls is None:
            self.controls = self.files.enter_context(open(self.folder / "controls.f16", "ab"))
            self.controls.truncate(self.offset // CODEC_FRAME_SAMPLES * rows[0].nbytes)
        self.controls.write(rows.tobytes())
        self.controls.flush()

    def flush(self) -> None:
        """Write down what is buffered, sound before the lines that name it."""
        self.audio.flush()
        self.index.flush()


def whole_lines(index: Path) -> list[str]:
    """The lines of an index; one that was being written when the program was killed is cut off."""
    content = index.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        with open(index, "r+b") as file:
            file.truncate(end)
    return content[:end].decode("utf-8").splitlines()


def write_pool(
    utterances: Callable[[int], Iterable[tuple[str, np.ndarray, dict]]], out: Path, hours: float
) -> None:
    """Fill a pool until it has so many hours; a run that was interrupted goes on.

    utterances(first) yields text, wave [N] and index fields from number `first` on. Silent and
    infinite waves are left out.
    """
    started = time.time()
    with PoolWriter(out) as pool:
        for count, (text, wave, fields) in enumerate(utterances(pool.count)):
            if pool.offset >= hours * 3600 * SAMPLE_RATE:
                break
            peak = float(np.abs(wave).max(initial=0))
            if peak == 0 or not np.isfinite(peak):
                continue
            pool.append(text, wave, fields)
            if count % 1000 == 0:
                pool.flush()
                made_h = pool.offset / SAMPLE_RATE / 3600
                seconds = time.time() - started
                print(f"{count} utterances, {made_h:.2f} h, {seconds:.0f} s", flush=True)
    (out / "READY").touch()
