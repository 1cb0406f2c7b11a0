"""Whether drafted codec frames could be kept: how much a talker agrees with a draft of its own size.

    python -m duplex.training.evaluate drafts --run runs/talker --run runs/talker_before --codec runs/codec --pool pools/heart

The draft is another checkpoint of the talker; no small draft can be expected to be nearer. Both are given the true history, so
this is the share of codes that rejection sampling would keep, codebook by codebook: the mean of sum(min(p, q)) (Leviathan
et al. 2023, section 3), with the temperatures that serve. Coarsely, codes of one group of similar codebook entries count as one
(arXiv 2511.13732). A patch is kept whole only if all of its codes are.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from duplex.training.data.utterances import Utterances
from duplex.training.talker import conditions
from torch.nn.functional import one_hot

from duplex import checkpoint
from duplex.model.codec import load_codec
from duplex.model.synthesis import similar
from duplex.model.talker import Talker, TalkerConfig

GROUPS = (256, 64, 16)
BATCHES, BATCH_SECONDS = 4, 24.0


def load_talker(folder: Path) -> Talker:
    talker = Talker(checkpoint.load_config(TalkerConfig, folder))
    talker.load_state_dict(checkpoint.load_tensors(folder))
    return talker.eval()


def drawn_from(logits: torch.Tensor, temperature: float, top_k: int) -> torch.Tensor:
    """logits [n, N] -> the distribution that codes are drawn from, see talker.draw."""
    best, index = logits.topk(top_k)
    return torch.zeros_like(logits).scatter(1, index, (best / temperature).softmax(-1))


def kept(p: torch.Tensor, q: torch.Tensor, group: torch.Tensor | None = None) -> float:
    """The share of draws from q [n, N] that rejection sampling for p keeps, of codes or of their groups [N]."""
    if group is not None:
        members = one_hot(group).to(p.dtype)
        p, q = p @ members, q @ members
    return float(torch.minimum(p, q).sum(1).mean())


@torch.no_grad()
def evaluate_drafts(args) -> dict:
    if len(args.run) != 2 or not args.codec or len(args.pool) != 1:
        raise SystemExit(
            "drafts needs --run TALKER --run OTHER --codec CODEC and one --pool of the voice"
        )
    talker, other = map(load_talker, args.run)
    config, codec = talker.config, load_codec(args.codec)
    with tempfile.TemporaryDirectory() as cache:
        data = Utterances(args.pool[0], codec, Path(cache))
        ways = {"codes": [None] * config.codebooks}
        ways |= {f"{n} groups": [similar(entries, n) for entries in data.codebooks] for n in GROUPS}
        found = {way: np.zeros(config.codebooks) for way in ways}
        groups = data.groups("valid", BATCH_SECONDS, np.random.default_rng(0))[:BATCHES]
        for group in groups:
            batch = data.batch(group, config.patch_frames, np.random.default_rng(0))
            both = [
                t(batch.codes, batch.codes, conditions(t, batch)[0])[:, batch.inside.flatten()]
                for t in (talker, other)
            ]
            for k, (p, q) in enumerate(zip(*both, strict=True)):
                p, q = (
                    drawn_from(logits, config.temperature(k), config.top_k) for logits in (p, q)
                )
                for way, of_books in ways.items():
                    found[way][k] += kept(p, q, of_books[k]) / len(groups)
    return {
        way: {
            "kept, by codebook": share.round(3).tolist(),
            "whole patch": float(np.prod(share) ** config.patch_frames),
        }
        for way, share in found.items()
    }
