"""Distil the draft from the LM: guess its next hidden state, and so its next symbol, from its last.

    python -m duplex.training.draft --lm runs/lm --corpus corpus/dialogues.jsonl \\
        --pool pools/user --noise DATA --minutes 20 --out runs/draft

The sequences are those of duplex.training.duplex, read by the LM as it will serve. Losses: distance
to the LM's hidden state, and the divergence from the LM's own distribution wherever the runtime
asks for a symbol; both for one guess ahead and for a guess that follows a guess. The report is the
share of guesses that are the LM's best symbol, by kind and by place.
"""

import argparse
import json

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from duplex.model.draft import Draft, DraftConfig
from duplex.model.lm import LM
from duplex.model.tokens import NEXT
from duplex.training.common import schedule
from duplex.training.common.options import add_minutes, add_part, add_run
from duplex.training.common.precision import mixed
from duplex.training.common.run_log import describe_run, log
from duplex.training.common.run_state import RunClock, resume_run, save_run
from duplex.training.objectives.next_symbol import batch_label_kinds, collate_examples
from duplex.training.scenes.example import Example, Tokenizer
from duplex.training.scenes.sequence import IGNORE
from duplex.training.scenes.setup import (
    VALID_SEED,
    add_base_arguments,
    add_data_arguments,
    build,
)
from duplex.training.scenes.source import SceneSource

# Guesses in a row. The first so many positions of a sequence are not learned.
PLACES = 3


def guesses(draft: Draft, hidden: Tensor, x: Tensor) -> list[Tensor]:
    """PLACES guesses of the LM's hidden states [B, L, D], each made from the one before.

    hidden [B, L, D] follow the inputs x [B, L, D]. Place k of position t has seen the true hidden
    state of position t - 1 - k; the first k + 1 positions stay true.
    """
    made = []
    before = hidden
    for _ in range(PLACES):
        guess = draft(before[:, :-1], x[:, 1:])
        before = torch.cat([hidden[:, :1], guess], 1)
        made.append(before)
    return made


def lm_states(lm: LM, batch: list[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs x and hidden states of the LM, both float32 [B, L, D]; labels [B, L]."""
    with torch.no_grad(), mixed():
        x, positions, visible, labels = collate_examples(lm, batch)
        hidden = lm(x, positions, visible)
    return x.float(), hidden.float(), labels


def draft_losses(
    draft: Draft, lm: LM, batch: list[Example], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Distance and divergence of the guesses; a later place counts half as much as the one before.

    A fifth of the <next> labels is learned.
    """
    x, hidden, labels = lm_states(lm, batch)
    sampled = torch.from_numpy(rng.uniform(size=labels.shape) < 0.2)
    asked = (labels != IGNORE) & ((labels != NEXT) | sampled)
    asked[:, :PLACES] = False
    with torch.no_grad(), mixed():
        wanted = lm.logits(hidden[asked]).softmax(-1)
    distance = divergence = 0.0
    for place, guess in enumerate(guesses(draft, hidden, x)):
        weight = 0.5**place
        distance = distance + weight * F.smooth_l1_loss(guess[asked], hidden[asked])
        with mixed():
            scores = lm.logits(guess[asked]).log_softmax(-1)
        divergence = divergence + weight * F.kl_div(scores, wanted, reduction="batchmean")
    return distance, divergence


@torch.no_grad()
def agreement(draft: Draft, lm: LM, source: SceneSource, count: int = 8) -> dict:
    """{kind of the LM's symbol: for each place the share of guesses that are the LM's best symbol}.

    Over `count` batches that no training has.
    """
    rng = np.random.default_rng(VALID_SEED)
    found: dict[str, list[list[np.ndarray]]] = {}
    for batch in source.batches(rng, 1200, count):
        x, hidden, labels = lm_states(lm, batch)
        asked = labels != IGNORE
        asked[:, :PLACES] = False
        best = best_symbols(lm, hidden[asked])
        kinds = batch_label_kinds(batch, labels.shape[1])[asked.numpy()]
        for place, guess in enumerate(guesses(draft, hidden, x)):
            same = (best_symbols(lm, guess[asked]) == best).numpy()
            for kind in np.unique(kinds):
                places = found.setdefault(str(kind), [[] for _ in range(PLACES)])
                places[place].append(same[kinds == kind])
    return {
        kind: [round(float(np.concatenate(place).mean()), 3) for place in places]
        for kind, places in found.items()
    }


def best_symbols(lm: LM, hidden: Tensor) -> Tensor:
    """The likeliest symbols [N] after hidden states [N, D]."""
    return lm.logits(hidden.to(lm.embedding.dtype)).argmax(-1)


class Trainer:
    """A run: the draft, the LM it learns from, the optimizer and how far it has come."""

    def __init__(self, args: argparse.Namespace, draft: Draft, lm: LM):
        self.args = args
        self.draft = draft
        self.lm = lm
        groups = [{"params": list(draft.parameters()), "peak": args.lr}]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
        fresh = {"step": 0, "seconds": 0.0}
        self.progress = resume_run(args.out, draft, self.optimizer, fresh)
        self.clock = RunClock(self.progress["seconds"])
        self.queue: list[list[Example]] = []

    def step(self, source: SceneSource, done: float) -> tuple[float, float]:
        """One update, when `done` of the run lies behind. Returns distance and divergence."""
        step = self.progress["step"] = self.progress["step"] + 1
        factor = schedule.warm_up(step, 30) * schedule.linear(done, floor=0.02)
        schedule.set_learning_rate(self.optimizer, factor)
        rng = np.random.default_rng([self.args.seed, step])
        self.queue = self.queue or source.batches(rng, self.args.positions, 5)
        distance, divergence = draft_losses(self.draft, self.lm, self.queue.pop(), rng)
        (0.5 * distance + divergence).backward()
        torch.nn.utils.clip_grad_norm_(self.draft.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return distance.item(), divergence.item()

    def save(self) -> None:
        """Write the run."""
        self.progress["seconds"] = self.clock.seconds()
        draft = self.draft
        save_run(self.args.out, draft.state_dict(), draft.config, self.optimizer, self.progress)
        self.clock.mark_saved()


def train(trainer: Trainer, source: SceneSource, valid: SceneSource) -> None:
    """Learn until the run is done; a line in the log every 25 steps, validation every 200."""
    args = trainer.args
    recent = []
    while (done := trainer.clock.seconds() / (60 * args.minutes)) < 1:
        recent.append(trainer.step(source, done))
        step = trainer.progress["step"]
        if step % 25 == 0:
            minutes = round(trainer.clock.seconds() / 60, 1)
            losses = np.mean(recent, 0).round(4).tolist()
            line = {"step": step, "minutes": minutes, "distance, divergence": losses}
            recent = []
            if step % 200 == 0:
                line["agreement"] = agreement(trainer.draft, trainer.lm, valid)
            log(args.out, line)
        if trainer.clock.minutes_unsaved() > args.save_minutes:
            trainer.save()
    trainer.save()
    found = agreement(trainer.draft, trainer.lm, valid, 20)
    print(json.dumps({"agreement": found}), flush=True)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_part(parser, "lm", "folder of the trained LM")
    add_base_arguments(parser)
    add_data_arguments(parser)
    add_minutes(parser, 20.0)
    parser.add_argument(
        "--positions", type=int, default=900, help="positions a batch (default %(default)s)"
    )
    add_run(parser, lr=1e-3)
    args = parser.parse_args(arguments)
    args.start = args.lm
    args.scratch = False
    return args


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    describe_run(args, "duplex.training.draft")
    lm, recognizer = build(args)
    lm.merge().requires_grad_(False)
    tokenizer = Tokenizer(args.tokenizer, recognizer)
    source, valid = (
        SceneSource(args, split, tokenizer, recognizer) for split in ("train", "valid")
    )
    draft = Draft(DraftConfig(width=lm.config.width))
    print(f"{sum(p.numel() for p in draft.parameters()):,} weights", flush=True)
    train(Trainer(args, draft, lm), source, valid)


if __name__ == "__main__":
    main()
