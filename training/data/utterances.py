"""What the talker learns from: utterances of the agent's voice as codec codes, with their phones.

An utterance is encoded when it is first wanted, and kept in a cache beside the run, `codes.u16`
([frames, K]).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from duplex.audio import CODEC_FRAME_RATE, CODEC_FRAME_SAMPLES, SAMPLE_RATE
from duplex.model.tts.codec import Codec
from duplex.model.tts.seanet import SeanetCodec
from duplex.training.data.pool import Pool


@dataclass
class TalkerBatch:
    """B utterances, padded. F is a whole number of patches, P the most phones."""

    codes: Tensor  # [B, F, K]
    inside: Tensor  # bool [B, F]: a frame of the utterance, not padding.
    phones: Tensor  # [B, P]
    lengths: Tensor  # [B] phones of each.
    phone: Tensor  # [B, F] index of the phone that each frame belongs to.
    positions: Tensor  # [B, F, 4], see `frame_positions`.
    frames: Tensor  # [B, P] duration of each phone in codec frames.
    voices: Tensor  # [B]


class EncodedUtterance(NamedTuple):
    """One row of a batch, without its padding."""

    codes: np.ndarray  # [n, K]
    phones: list[int]
    ends: np.ndarray  # [P] codec frame at which each phone ends.


class EncodedPool:
    """A pool's utterances whose phones are known, as codec codes."""

    def __init__(self, folder: Path, codec: Codec | SeanetCodec, cache: Path):
        """What is encoded stays in the folder `cache`, so the pool may grow between runs."""
        self.pool = Pool(folder)
        self.codec = codec
        self.silence = codec.silence_codes()
        tables = [layer._codebook.embed for layer in codec.quantizer.vq.layers]
        self.codebooks = torch.stack(tables)  # [K, N, D]
        lengths = [-(-entry["samples"] // CODEC_FRAME_SAMPLES) for entry in self.pool.entries]
        self.starts = np.cumsum([0, *lengths])
        shape = (self.starts[-1], codec.config.codebooks)
        with open(cache / "codes.u16", "ab") as file:
            file.truncate(2 * shape[0] * shape[1])  # Zeros where nothing was written yet.
        self.codes = np.memmap(cache / "codes.u16", np.uint16, "r+", shape=shape)
        self.split: dict[str, list[int]] = {"train": [], "valid": []}
        for i, entry in enumerate(self.pool.entries):
            if "durations" in entry and entry["split"] in self.split:
                self.split[entry["split"]].append(i)

    def encode(self, group: list[int]) -> None:
        """Fill in the codes of the group's utterances that have none yet, from fresh states."""
        group = [i for i in group if not self.codes[self.starts[i]].any()]
        if not group:
            return
        frames = [self.starts[i + 1] - self.starts[i] for i in group]
        waves = torch.zeros(len(group), 1, max(frames) * CODEC_FRAME_SAMPLES)
        for row, i in zip(waves, group, strict=True):
            row[0, : self.pool.entries[i]["samples"]] = torch.from_numpy(self.pool.wave(i))
        for i, count, codes in zip(group, frames, self.codec.encode(waves), strict=True):
            self.codes[self.starts[i] : self.starts[i + 1]] = codes.T[:count].numpy()

    def hours(self, split: str) -> float:
        """Hours of speech in a split."""
        samples = sum(self.pool.entries[i]["samples"] for i in self.split[split])
        return samples / SAMPLE_RATE / 3600

    def groups(self, split: str, seconds: float, rng: np.random.Generator) -> list[list[int]]:
        """The split once, in random groups of about `seconds` of speech, each of one length."""
        length = {}
        for i in self.split[split]:
            length[i] = self.pool.entries[i]["samples"] * (1 + 0.1 * rng.random())
        groups = [[]]
        for i in sorted(length, key=length.get):
            if groups[-1] and (len(groups[-1]) + 1) * length[i] > seconds * SAMPLE_RATE:
                groups.append([])
            groups[-1].append(i)
        rng.shuffle(groups)
        return groups

    def phone_ends(self, i: int) -> np.ndarray:
        """The codec frame at which each phone of utterance i ends.

        The durations' unit follows from the utterance's length.
        """
        entry = self.pool.entries[i]
        ends = np.cumsum(entry["durations"])
        seconds = ends * (entry["samples"] / SAMPLE_RATE / ends[-1])
        return np.round(seconds * CODEC_FRAME_RATE).astype(int)

    def row(self, i: int, rng: np.random.Generator) -> EncodedUtterance:
        """Utterance i; of the silence before its first word 2 to 9 frames are kept at most."""
        ends = self.phone_ends(i)
        cut = max(0, ends[0] - int(rng.integers(2, 10)))
        codes = self.codes[self.starts[i] + cut : self.starts[i + 1]].astype(np.int64)
        ends = np.minimum(ends - cut, len(codes))
        return EncodedUtterance(codes[: ends[-1]], self.pool.entries[i]["phones"], ends)

    def batch(self, group: list[int], patch_frames: int, rng: np.random.Generator) -> TalkerBatch:
        """The utterances of a group, padded to whole patches of so many frames."""
        self.encode(group)
        rows = [self.row(i, rng) for i in group]
        B = len(rows)
        F = -(-max(len(row.codes) for row in rows) // patch_frames) * patch_frames
        P = max(len(row.phones) for row in rows)
        batch = TalkerBatch(
            codes=self.silence.expand(B, F, self.codes.shape[1]).clone(),
            inside=torch.zeros(B, F, dtype=torch.bool),
            phones=torch.zeros(B, P, dtype=torch.long),
            lengths=torch.tensor([len(row.phones) for row in rows]),
            phone=torch.zeros(B, F, dtype=torch.long),
            positions=torch.zeros(B, F, 4),
            frames=torch.zeros(B, P),
            voices=torch.zeros(B, dtype=torch.long),
        )
        for b, (codes, phones, ends) in enumerate(rows):
            n = len(codes)
            durations = np.diff(ends, prepend=0)
            batch.codes[b, :n] = torch.from_numpy(codes)
            batch.inside[b, :n] = True
            batch.phones[b, : len(phones)] = torch.tensor(phones)
            batch.phone[b, :n] = torch.from_numpy(np.repeat(np.arange(len(phones)), durations))
            batch.positions[b, :n] = torch.from_numpy(frame_positions(durations))
            batch.frames[b, : len(phones)] = torch.from_numpy(durations.astype(np.float32))
        return batch


def frame_positions(durations: np.ndarray) -> np.ndarray:
    """Where each frame stands in its phone [n, 4], from the phones' durations in frames [P].

    Share of the phone that lies behind, log of the phone's duration, frames behind and to come.
    """
    starts = np.cumsum(durations) - durations
    each = np.repeat(np.arange(len(durations)), durations)  # The phone of each frame.
    behind = np.arange(len(each)) - starts[each]
    length = np.maximum(1, durations)[each]
    features = [
        (behind + 0.5) / length,
        np.log(length) / 2,
        np.minimum(behind, 20) / 10,
        np.minimum(length - behind, 20) / 10,
    ]
    return np.stack(features, 1).astype(np.float32)
