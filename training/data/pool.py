"""Read a speech pool: a folder with every utterance end to end in one int16 file and an index beside it.

`audio.i16` is mono at the project's sample rate, mapped and never read as a whole; `index.jsonl` has one line
per utterance (offset, samples, text, voice, split, words, phones, durations, source). The folder is complete
once it holds the file READY.
"""

import json
from pathlib import Path

import numpy as np

INT16_SCALE = 1 / 32768


class Pool:
    """`entries` are the index lines as dictionaries, `wave(i)` is the audio of the i-th, float32 in [-1, 1)."""

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
        """Utterance `i`, float32 [samples], or the part of it from `start` (cut at its end)."""
        entry = self.entries[i]
        end = entry["samples"] if samples is None else min(entry["samples"], start + samples)
        return (
            self.audio[entry["offset"] + start : entry["offset"] + end].astype(np.float32)
            * INT16_SCALE
        )
