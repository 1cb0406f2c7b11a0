"""What the codec learns from: random crops of random gain from speech pools."""

import numpy as np
import torch
from torch import Tensor

from duplex.audio import CODEC_FRAME_SAMPLES, SAMPLE_RATE
from duplex.training.data.pool import Pool
from duplex.training.data.vocoder_targets import ControlPool

# Samples of a crop: one second.
CROP_SAMPLES = SAMPLE_RATE
# Decibels by which a crop is made louder, from and to.
GAIN_DB = (-14.0, 4.0)


class Crops:
    """Batches of crops from several pools; the same for the same (seed, step).

    Plain pools share their batches. A pool whose controls are known makes whole batches, of its
    share.
    """

    def __init__(
        self,
        pools: list[tuple[Pool, float]],
        seed: int,
        controlled: list[tuple[ControlPool, float, bool]] = (),
    ):
        """pools: each with its share; controlled: and whether the talker knows its codes."""
        plain = sum(share for _, share in pools)
        self.pools = [pool for pool, _ in pools]
        self.shares = np.array([share for _, share in pools]) / plain
        self.kinds = [(None, False), *((pool, known) for pool, _, known in controlled)]
        weights = np.array([plain, *(share for _, share, _ in controlled)])
        self.kind_shares = weights / weights.sum()
        self.seed = seed

    def crop(self, rng: np.random.Generator) -> np.ndarray:
        """One crop [CROP_SAMPLES]; it may begin before or end after the utterance.

        One in fifty is silent.
        """
        crop = np.zeros(CROP_SAMPLES, dtype=np.float32)
        if rng.random() < 0.02:
            return crop
        pool = self.pools[rng.choice(len(self.pools), p=self.shares)]
        i = int(rng.integers(len(pool)))
        margin = CROP_SAMPLES // 4
        latest = max(1, pool.entries[i]["samples"] - CROP_SAMPLES + margin)
        start = int(rng.integers(-margin, latest))
        before = max(0, -start)
        wave = pool.wave(i, max(0, start), CROP_SAMPLES - before)
        crop[before : before + len(wave)] = wave
        gain = 10 ** (rng.uniform(*GAIN_DB) / 20)
        return crop * min(gain, 0.99 / max(np.abs(crop).max(), 1e-3))

    def batch(self, step: int, items: int = 8) -> tuple[Tensor, Tensor | None, bool]:
        """The batch of a step.

        Returns waves [items, 1, CROP_SAMPLES]; their controls [items, T, NUMBERS] or None; whether
        the talker knows their codes.
        """
        rng = np.random.default_rng([self.seed, step])
        pool, known = self.kinds[rng.choice(len(self.kinds), p=self.kind_shares)]
        if pool is None:
            crops = np.stack([self.crop(rng) for _ in range(items)])
            return torch.from_numpy(crops)[:, None], None, known
        frames = CROP_SAMPLES // CODEC_FRAME_SAMPLES
        crops = [pool.crop(rng, frames, GAIN_DB) for _ in range(items)]
        waves = np.stack([wave for wave, _ in crops]).astype(np.float32)
        controls = np.stack([rows for _, rows in crops]).astype(np.float32)
        return torch.from_numpy(waves)[:, None], torch.from_numpy(controls), known
