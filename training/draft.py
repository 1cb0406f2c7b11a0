"""Distil the draft from the LM: guess its next hidden state and its next symbol from its last hidden state.

    python -m duplex.training.draft --lm runs/lm --corpus corpus/dialogues.jsonl --backbone SmolLM2.gguf --tokenizer TOKENIZER_FOLDER \\
        --encoder runs/encoder --lexicon runs/lexicon --pool pools/user --noise DATA --minutes 20 --out runs/draft

The sequences are those of duplex.training.duplex, read by the LM as it will serve. Losses: distance to the LM's hidden state, and the
divergence from the LM's own distribution wherever the runtime asks for a symbol; both for one guess ahead and for a guess
that follows a guess. The report is the share of guesses that are the LM's best symbol, by kind and by place.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from duplex.training.common.precision import mixed
from duplex.training.common.run_log import describe_run, log
from duplex.training.common.run_state import has_run, resume_run, save_run
from duplex.training.duplex import (
    VALID_SEED,
    SceneSource,
    Tokenizer,
    add_data_arguments,
    assemble,
    build,
    kind_of,
)
from duplex.training.scenes.sequence import IGNORE
from torch.nn import functional as F

from duplex.checkpoint import load_tensors
from duplex.model.draft import Draft, DraftConfig
from duplex.model.tokens import NEXT

PLACES = 3  # guesses in a row
NEXT_KEPT = 0.2
DISTANCE_WEIGHT = 0.5


def guesses(draft: Draft, hidden: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
    """hidden [B, L, D] of the LM after its inputs x [B, L, D] -> PLACES guesses of it [B, L, D], each made from the one before.

    Place k of position t has seen the true hidden state of position t - 1 - k; the first k + 1 positions stay true.
    """
    made, before = [], hidden
    for _ in range(PLACES):
        guess = draft(before[:, :-1], x[:, 1:])
        before = torch.cat([hidden[:, :1], guess], 1)
        made.append(before)
    return made


def target(lm, drawn: list):
    """-> inputs x, hidden states of the LM (float32) [B, L, D], labels [B, L], kinds [B, L]."""
    with torch.no_grad(), mixed():
        x, positions, visible, labels = assemble(lm, drawn)
        hidden = lm(x, positions, visible)
    length = labels.shape[1]
    names = np.stack(
        [np.pad(kind_of(s), (0, length - len(s.token)), constant_values="") for s, _, _ in drawn]
    )
    return x.float(), hidden.float(), labels, names


def losses(
    draft: Draft, lm, drawn: list, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    x, hidden, labels, _ = target(lm, drawn)
    asked = (labels != IGNORE) & (
        (labels != NEXT) | torch.from_numpy(rng.uniform(size=labels.shape) < NEXT_KEPT)
    )
    asked[:, :PLACES] = False
    with torch.no_grad(), mixed():
        wanted = lm.logits(hidden[asked]).softmax(-1)
    distance = divergence = 0.0
    for place, guess in enumerate(guesses(draft, hidden, x)):
        weight = 0.5**place
        distance = distance + weight * F.smooth_l1_loss(guess[asked], hidden[asked])
        with mixed():
            scores = lm.logits(guess[asked])
        divergence = divergence + weight * F.kl_div(
            scores.log_softmax(-1), wanted, reduction="batchmean"
        )
    return distance, divergence


@torch.no_grad()
def agreement(draft: Draft, lm, source: SceneSource, batches: int = 8) -> dict:
    """Share of guesses that are the LM's best symbol: {kind of the LM's symbol: one share a place}."""
    rng, found = np.random.default_rng(VALID_SEED), {}
    for drawn in source.batches(rng, 1200, batches):
        x, hidden, labels, names = target(lm, drawn)
        asked = labels != IGNORE
        asked[:, :PLACES] = False
        best = lm.logits(hidden[asked].to(lm.embedding.dtype)).argmax(-1)
        kinds = names[asked.numpy()]
        for place, guess in enumerate(guesses(draft, hidden, x)):
            same = (lm.logits(guess[asked].to(lm.embedding.dtype)).argmax(-1) == best).numpy()
            for kind in np.unique(kinds):
                found.setdefault(str(kind), [[] for _ in range(PLACES)])[place].append(
                    same[kinds == kind]
                )
    return {
        kind: [round(float(np.concatenate(place).mean()), 3) for place in places]
        for kind, places in found.items()
    }


def train(args, draft: Draft, lm, source: SceneSource, valid: SceneSource) -> None:
    optimizer = torch.optim.AdamW(
        draft.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01
    )
    progress = (
        resume_run(args.out, draft, optimizer) if has_run(args.out) else {"step": 0, "seconds": 0.0}
    )
    begun, saved, queue, recent = time.time() - progress["seconds"], time.time(), [], []
    while (elapsed := time.time() - begun) < args.minutes * 60:
        step = progress["step"] = progress["step"] + 1
        rate = args.lr * min(1.0, step / 30) * max(0.02, 1 - elapsed / (args.minutes * 60))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng([args.seed, step])
        queue = queue or source.batches(rng, args.positions, 5)
        distance, divergence = losses(draft, lm, queue.pop(), rng)
        (DISTANCE_WEIGHT * distance + divergence).backward()
        torch.nn.utils.clip_grad_norm_(draft.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent.append((distance.item(), divergence.item()))
        if step % 25 == 0:
            line = {
                "step": step,
                "minutes": round(elapsed / 60, 1),
                "distance, divergence": np.mean(recent, 0).round(4).tolist(),
            }
            recent = []
            if step % 200 == 0:
                line["agreement"] = agreement(draft, lm, valid)
            log(args.out, line)
        if time.time() - saved > 180:
            saved = time.time()
            save_run(
                args.out,
                draft.state_dict(),
                draft.config,
                optimizer,
                {**progress, "seconds": time.time() - begun},
            )
    save_run(
        args.out,
        draft.state_dict(),
        draft.config,
        optimizer,
        {**progress, "seconds": time.time() - begun},
    )
    print(json.dumps({"agreement": agreement(draft, lm, valid, 20)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_data_arguments(parser)
    parser.add_argument("--lm", type=Path, required=True, help="folder of the trained LM")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--positions", type=int, default=900, help="positions a batch")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run; a run resumes there"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    describe_run(args, "duplex.training.draft")
    lm, ears = build(args)
    lm.load_state_dict(load_tensors(args.lm), strict=False)
    lm.merge().requires_grad_(False)
    tokenizer = Tokenizer(args.tokenizer, ears)
    sources = [SceneSource(args, split, tokenizer, ears) for split in ("train", "valid")]
    draft = Draft(DraftConfig(width=lm.config.width))
    print(f"{sum(p.numel() for p in draft.parameters()):,} weights", flush=True)
    train(args, draft, lm, *sources)


if __name__ == "__main__":
    main()
