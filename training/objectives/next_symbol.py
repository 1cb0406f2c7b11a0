"""Cross entropy of the next symbol, wherever the runtime asks for one.

Most <next> are left out and their logit is shifted by as much, so the LM stays calibrated. A
batch is a list of duplex.training.scenes.example.Example.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from duplex.model import tokens
from duplex.model.kv_cache import TEXT, visible_cells
from duplex.model.lm import LM, LMConfig
from duplex.training.common.precision import mixed
from duplex.training.scenes.sequence import IGNORE, Sequence

# Share of the <next> labels that are learned.
NEXT_KEPT = 0.25


def collate_examples(lm: LM, batch: list) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the LM is given for B examples, padded to L positions.

    Returns inputs [B, L, D], positions [B, L], visible [B, L, L], labels [B, L].
    """
    length = max(len(example.sequence.token) for example in batch)
    device = lm.embedding.device
    inputs = torch.stack([embed_example(lm, example, length) for example in batch])
    positions = torch.arange(length, device=device)[None].expand(len(batch), -1)
    visible = np.stack([visible_positions(lm.config, e.sequence, length) for e in batch])
    labels = np.stack([padded(e.sequence.label, length, IGNORE) for e in batch])
    return inputs, positions, torch.from_numpy(visible).to(device), torch.from_numpy(labels)


def embed_example(lm: LM, example, length: int) -> Tensor:
    """An example's inputs [L, D]: embeddings of its tokens, and its ticks as the LM meets them."""
    device = lm.embedding.device
    sequence, features, recognised, speakers = example
    token = torch.from_numpy(padded(sequence.token, length, tokens.FIRST_TEXT_ID)).to(device)
    features = None if features is None else features.to(device)
    known = None if speakers is None else torch.from_numpy(speakers)
    ticks = lm.project(features, recognised, known)
    tick = np.where(sequence.token < 0, sequence.tick, 0)
    index = torch.from_numpy(padded(tick, length, 0)).to(device).clamp(max=len(ticks) - 1)
    embedded = lm.embed(token.clamp(min=0))
    return torch.where((token < 0)[:, None], ticks[index].to(embedded.dtype), embedded)


def padded(values: np.ndarray, length: int, filling) -> np.ndarray:
    """values [N] -> [length]"""
    return np.pad(values, (0, length - len(values)), constant_values=filling)


def visible_positions(config: LMConfig, sequence: Sequence, length: int) -> np.ndarray:
    """bool [L, L]: what each position sees: the cache's rule, less what was dropped at a <stop>."""
    is_tick = sequence.token < 0
    cell_tick = padded(np.where(is_tick, sequence.tick, TEXT), length, TEXT)
    now = padded(sequence.tick, length, sequence.tick.max())
    index = np.arange(length)
    visible = visible_cells(config, index, cell_tick, index, now)
    dropped_at = padded(sequence.dropped_at, length, 1 << 40)
    return visible & (index[:, None] < dropped_at[None])


def label_kinds(sequence: Sequence) -> np.ndarray:
    """What each label is [L]: "hearing" or "speaking" text, or the control's name."""
    controls = {
        tokens.NEXT: "next",
        tokens.USER: "user",
        tokens.USER_END: "end of user",
        tokens.ASIDE: "aside",
        tokens.END: "end",
        tokens.STOP: "stop",
        tokens.BACK: "backchannel",
    }
    names = []
    stream = "speaking"
    for token, label in zip(sequence.token.tolist(), sequence.label.tolist(), strict=True):
        if token == tokens.USER:
            stream = "hearing"
        elif token in (tokens.USER_END, tokens.ASIDE, tokens.AGENT):
            stream = "speaking"
        names.append(controls.get(label, stream))
    return np.array(names)


def batch_label_kinds(batch: list, length: int) -> np.ndarray:
    """The kinds of all labels of a batch [B, L]; "" in the padding."""
    return np.stack([padded(label_kinds(example.sequence), length, "") for example in batch])


def symbol_losses(
    lm: LM, batch: list, rng: np.random.Generator, next_kept: float
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Losses [N], whether the best symbol is the label [N], kinds [N]; for the N labels kept.

    next_kept: share of the <next> labels that is kept.
    """
    x, positions, visible, labels = collate_examples(lm, batch)
    kinds = batch_label_kinds(batch, labels.shape[1]).reshape(-1)
    labels = labels.reshape(-1)
    sampled = torch.from_numpy(rng.uniform(size=len(labels)) < next_kept)
    keep = (labels != IGNORE) & ((labels != tokens.NEXT) | sampled)
    with mixed(x.device.type):
        hidden = lm(x, positions, visible).reshape(-1, lm.config.width)[keep.to(x.device)]
        scores = lm.logits(hidden)
    # Fewer <next> are learned than there are: their score is what it would be with all of them.
    before, score, after = scores.tensor_split([tokens.NEXT, tokens.NEXT + 1], dim=1)
    scores = torch.cat([before, score + math.log(next_kept), after], 1)
    wanted = labels[keep].to(x.device)
    loss = F.cross_entropy(scores, wanted, reduction="none")
    return loss, scores.argmax(-1) == wanted, kinds[keep.numpy()]


def weighted_mean(loss: Tensor, kinds: np.ndarray) -> Tensor:
    """The mean of losses [N], weighted by their kinds."""
    # Rare decisions that everything after them hangs on count more.
    rare = {"stop": 4.0, "aside": 2.0, "end of user": 2.0}
    weights = torch.tensor([rare.get(kind, 1.0) for kind in kinds], device=loss.device)
    return (loss * weights).sum() / weights.sum()


def mean_by_kind(batches: list[tuple[Tensor, Tensor, np.ndarray]]) -> dict[str, list[float]]:
    """Mean loss and share of right labels for each kind, over results of `symbol_losses`."""
    loss = np.concatenate([loss.detach().float().cpu().numpy() for loss, _, _ in batches])
    right = np.concatenate([right.cpu().numpy() for _, right, _ in batches])
    kinds = np.concatenate([kinds for _, _, kinds in batches])
    return {
        str(kind): [
            round(float(loss[kinds == kind].mean()), 3),
            round(float(right[kinds == kind].mean()), 3),
        ]
        for kind in np.unique(kinds)
    }
