"""A run that draws speech and text together in the LM: losses, steps, validation, saves."""

import argparse

import numpy as np
import torch

from duplex.model.backbone import trained_tensors
from duplex.model.lm import LM
from duplex.training.common import schedule
from duplex.training.common.interruption import finishing_steps
from duplex.training.common.progress import RunBar
from duplex.training.common.run_log import log, show_on_board
from duplex.training.common.run_state import RunClock, resume_run, save_run
from duplex.training.objectives.alignment import (
    AlignmentHeads,
    Answers,
    consistency,
    contrastive,
    frozen_copy,
    mean_embeddings,
)
from duplex.training.objectives.next_symbol import NEXT_KEPT, symbol_losses, weighted_mean
from duplex.training.scenes.example import Tokenizer
from duplex.training.scenes.recognition import SpeechRecognizer
from duplex.training.scenes.setup import VALID_SEED
from duplex.training.scenes.utterances import Utterance, UtteranceSource

OBJECTIVES = ("supervised", "contrastive", "consistency")


def objective_losses(
    names, lm: LM, answers: Answers, batch: list[Utterance], rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """{name: loss} of the objectives that are on; of the others nothing is computed.

    lm.alignment holds the `AlignmentHeads`.
    """
    found = {}
    if "supervised" in names:
        examples = [utterance.example for utterance in batch]
        loss, _, kinds = symbol_losses(lm, examples, rng, NEXT_KEPT)
        found["supervised"] = weighted_mean(loss, kinds)
    if "contrastive" in names:
        found["contrastive"] = contrastive(lm.alignment, *mean_embeddings(lm, batch))
    if "consistency" in names:
        wanted = answers(batch)
        found["consistency"] = consistency(lm, answers.frozen, batch, wanted, answers.prompt)
    return found


class AlignmentTrainer:
    """A run: the LM with its alignment heads, the optimizer and how far it has come."""

    def __init__(self, args: argparse.Namespace, lm: LM, answers: Answers):
        self.args = args
        self.lm = lm
        self.answers = answers
        self.weights = dict(args.objectives)
        named = [(name, p) for name, p in lm.named_parameters() if p.requires_grad]
        rest = [p for name, p in named if not name.startswith("residual.")]
        residual = [p for name, p in named if name.startswith("residual.")]
        # The residual's 1536 inputs move one output together, and embeddings are small (0.14).
        groups = [
            {"params": rest, "peak": args.lr},
            {"params": residual, "peak": args.lr * 0.05},
        ]
        self.parameters = [p for _, p in named]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)
        fresh = {"step": 0, "seconds": 0.0}
        self.progress = resume_run(args.out, lm, self.optimizer, fresh, strict=False)
        self.clock = RunClock(self.progress["seconds"])

    def done(self) -> float:
        """How much of the run lies behind."""
        args = self.args
        step = self.progress["step"]
        return schedule.share_done(args.steps, args.minutes, step, self.clock.seconds())

    def step(self, source: UtteranceSource) -> dict[str, float]:
        """One update. Returns the loss of each objective."""
        done = self.done()
        step = self.progress["step"] = self.progress["step"] + 1
        factor = schedule.warm_up(step, 30) * schedule.cosine(done, floor=0.05)
        schedule.set_learning_rate(self.optimizer, factor)
        rng = np.random.default_rng([self.args.seed, step])
        batch = source.batch(rng, self.args.utterances)
        rng = np.random.default_rng([self.args.seed, step, 1])
        found = objective_losses(self.weights, self.lm, self.answers, batch, rng)
        sum(self.weights[name] * loss for name, loss in found.items()).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {name: loss.item() for name, loss in found.items()}

    @torch.no_grad()
    def validate(self, valid: UtteranceSource) -> dict[str, float]:
        """The mean loss of each objective over two batches that no training has."""
        rng = np.random.default_rng(VALID_SEED)
        rows = []
        for _ in range(2):
            batch = valid.batch(rng, self.args.utterances)
            found = objective_losses(self.weights, self.lm, self.answers, batch, rng)
            rows.append({name: loss.item() for name, loss in found.items()})
        return means(rows)

    def save(self) -> None:
        """Write the run."""
        self.progress["seconds"] = self.clock.seconds()
        tensors = trained_tensors(self.lm)
        save_run(self.args.out, tensors, self.lm.config, self.optimizer, self.progress)
        self.clock.mark_saved()


def train(trainer: AlignmentTrainer, source: UtteranceSource, valid: UtteranceSource) -> bool:
    """Learn until the run is done, or saved after Ctrl-C; returns whether it is done.

    A line in the log every 10 steps, validation every 100 and at the end.
    """
    recent = []
    out = trainer.args.out
    has_valid = len(valid.texts) > 1
    if not has_valid:
        print("Fewer than two texts are set aside: the run is not validated.", flush=True)
    bar = RunBar(trainer.done())
    with finishing_steps() as interruption:
        while trainer.done() < 1 and not interruption.is_wanted:
            recent.append(trainer.step(source))
            step = trainer.progress["step"]
            bar.show(trainer.done(), step, sum(recent[-1].values()))
            show_on_board(out, {"step": step, "loss": recent[-1]})
            last = trainer.done() >= 1
            if last or trainer.clock.minutes_unsaved() > trainer.args.save_minutes:
                trainer.save()
            if step % 10 == 0 or last:
                minutes = round(trainer.clock.seconds() / 60, 1)
                line = {"step": step, "minutes": minutes, "train": means(recent)}
                recent = []
                if has_valid and (step % 100 == 0 or last):
                    line["valid"] = trainer.validate(valid)
                log(out, line)
    bar.close()
    trainer.save()
    return not interruption.is_wanted


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each entry."""
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def align(
    args: argparse.Namespace, lm: LM, recognizer: SpeechRecognizer, tokenizer: Tokenizer
) -> bool:
    """Train as the arguments of duplex.training.align say. Returns whether the run is done.

    SystemExit where the pools hold fewer than two texts.
    """
    source, valid = (
        UtteranceSource(args, split, tokenizer, recognizer) for split in ("train", "valid")
    )
    answers = Answers(args.out / "answers.jsonl", frozen_copy(lm), source.prompt)
    # Saved and resumed with the rest; an agent that loads the folder passes over them.
    lm.alignment = AlignmentHeads(lm.config.width)
    return train(AlignmentTrainer(args, lm, answers), source, valid)
