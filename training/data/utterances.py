"""What the talker learns from: the agent voice's utterances as codec codes with their phones and phone boundaries.

An utterance is encoded when it is first wanted, and kept in a cache beside the run, `codes.u16` ([frames, K]).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from duplex.training.data.pool import Pool
from torch import Tensor

from duplex.audio import CODEC_FRAME_RATE, CODEC_FRAME_SAMPLES, SAMPLE_RATE
from duplex.model.codec import Codec
from duplex.model.seanet import SeanetCodec

SHORT_LEAD_FRAMES = (2, 10)  # how much of the silence before the first word is kept


@dataclass
class Batch:
    """B utterances, padded. F is a whole number of patches, P the most phones."""

    codes: Tensor  # [B, F, K]
    inside: Tensor  # [B, F] bool: a frame of the utterance, not padding
    phones: Tensor  # [B, P]
    lengths: Tensor  # [B] phones
    phone: Tensor  # [B, F] index of the phone each frame belongs to
    positions: Tensor  # [B, F, 4]
    frames: Tensor  # [B, P] duration of each phone in codec frames
    voices: Tensor  # [B]


class Utterances:
    def __init__(self, folder: Path, codec: Codec | SeanetCodec, cache: Path):
        """`folder` is the pool; what is encoded stays in `cache`, so the pool may grow between runs."""
        self.pool, self.codec, self.silence = Pool(folder), codec, codec.silence_codes()
        self.codebooks = torch.stack(
            [layer._codebook.embed for layer in codec.quantizer.vq.layers]
        )  # [K, N, D]
        self.starts = np.cumsum(
            [0, *(-(-entry["samples"] // CODEC_FRAME_SAMPLES) for entry in self.pool.entries)]
        )
        shape = (self.starts[-1], codec.config.codebooks)
        with open(cache / "codes.u16", "ab") as file:
            file.truncate(2 * shape[0] * shape[1])  # zeros where nothing was written yet
        self.codes = np.memmap(cache / "codes.u16", np.uint16, "r+", shape=shape)
        usable = [i for i, entry in enumerate(self.pool.entries) if "durations" in entry]
        self.split = {
            name: [i for i in usable if self.pool.entries[i]["split"] == name]
            for name in ("train", "valid")
        }

    def encode(self, group: list[int]) -> None:
        """Fill in the codes of those utterances of the group that have none yet, each from a fresh state."""
        group = [i for i in group if not self.codes[self.starts[i]].any()]
        if not group:
            return
        longest = max(self.starts[i + 1] - self.starts[i] for i in group)
        waves = torch.zeros(len(group), 1, longest * CODEC_FRAME_SAMPLES)
        for row, i in zip(waves, group, strict=True):
            row[0, : self.pool.entries[i]["samples"]] = torch.from_numpy(self.pool.wave(i))
        for i, codes in zip(group, self.codec.encode(waves), strict=True):
            self.codes[self.starts[i] : self.starts[i + 1]] = codes.T[
                : self.starts[i + 1] - self.starts[i]
            ].numpy()

    def hours(self, split: str) -> float:
        return sum(self.pool.entries[i]["samples"] for i in self.split[split]) / SAMPLE_RATE / 3600

    def groups(self, split: str, seconds: float, rng: np.random.Generator) -> list[list[int]]:
        """The split once, in random groups of about `seconds` of speech, within a group of about one length."""
        length = {
            i: self.pool.entries[i]["samples"] * (1 + 0.1 * rng.random()) for i in self.split[split]
        }
        groups, group = [], []
        for i in sorted(length, key=length.get):
            if group and (len(group) + 1) * length[i] > seconds * SAMPLE_RATE:
                groups, group = [*groups, group], []
            group.append(i)
        groups.append(group)
        rng.shuffle(groups)
        return groups

    def ends(self, i: int) -> np.ndarray:
        """Codec frame at which each phone of utterance `i` ends; the durations' unit follows from the length."""
        entry = self.pool.entries[i]
        ends = np.cumsum(entry["durations"])
        seconds = ends * (entry["samples"] / SAMPLE_RATE / ends[-1])
        return np.round(seconds * CODEC_FRAME_RATE).astype(int)

    def batch(self, group: list[int], patch_frames: int, rng: np.random.Generator) -> Batch:
        self.encode(group)
        rows = [self.row(i, rng) for i in group]
        B, K = len(rows), self.codes.shape[1]
        F = max(len(codes) for codes, *_ in rows)
        F, P = -(-F // patch_frames) * patch_frames, max(len(phones) for _, phones, _, _ in rows)
        batch = Batch(
            codes=self.silence.expand(B, F, K).clone(),
            inside=torch.zeros(B, F, dtype=torch.bool),
            phones=torch.zeros(B, P, dtype=torch.long),
            lengths=torch.tensor([len(phones) for _, phones, _, _ in rows]),
            phone=torch.zeros(B, F, dtype=torch.long),
            positions=torch.zeros(B, F, 4),
            frames=torch.zeros(B, P),
            voices=torch.zeros(B, dtype=torch.long),
        )
        for b, (codes, phones, ends, positions) in enumerate(rows):
            n, begins = len(codes), np.concatenate([[0], ends[:-1]])
            batch.codes[b, :n], batch.inside[b, :n] = torch.from_numpy(codes), True
            batch.phones[b, : len(phones)] = torch.tensor(phones)
            batch.phone[b, :n] = torch.from_numpy(np.repeat(np.arange(len(phones)), ends - begins))
            batch.positions[b, :n] = torch.from_numpy(positions)
            batch.frames[b, : len(phones)] = torch.from_numpy((ends - begins).astype(np.float32))
        return batch

    def row(
        self, i: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, list[int], np.ndarray, np.ndarray]:
        """Codes [n, K], phones, phone ends in frames, position features [n, 4]; most of the first silence is cut."""
        ends, phones = self.ends(i), self.pool.entries[i]["phones"]
        cut = max(0, ends[0] - int(rng.integers(*SHORT_LEAD_FRAMES)))
        codes = self.codes[self.starts[i] + cut : self.starts[i + 1]].astype(np.int64)
        ends = np.minimum(ends - cut, len(codes))
        codes = codes[: ends[-1]]
        begins = np.concatenate([[0], ends[:-1]])
        frames = np.maximum(1, ends - begins)
        each = np.repeat(np.arange(len(ends)), ends - begins)
        done, all_frames = np.arange(len(codes)) - begins[each], frames[each]
        features = [(done + 0.5) / all_frames, np.log(all_frames) / 2, np.minimum(done, 20) / 10]
        features.append(np.minimum(all_frames - done, 20) / 10)
        return codes, phones, ends, np.stack(features, 1).astype(np.float32)
