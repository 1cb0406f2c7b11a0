"""A run of the LM on scenes: steps, validation, saves; ended by time, by Ctrl-C or by no gain."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from duplex import checkpoint
from duplex.model.backbone import trained_tensors
from duplex.model.lm import LM
from duplex.training.common import schedule
from duplex.training.common.distributed import (
    agreed,
    average_gradients,
    check_together,
    collected,
    shard_frozen,
)
from duplex.training.common.interruption import finishing_steps
from duplex.training.common.progress import RunBar
from duplex.training.common.run_log import log, show_on_board
from duplex.training.common.run_state import RunClock, resume_run, save_run
from duplex.training.objectives.next_symbol import (
    NEXT_KEPT,
    mean_by_kind,
    symbol_losses,
    weighted_mean,
)
from duplex.training.scenes.setup import VALID_SEED
from duplex.training.scenes.source import SceneSource

if TYPE_CHECKING:
    from accelerate import Accelerator


class Trainer:
    """A run, in one of the processes that were launched together."""

    def __init__(
        self, args: argparse.Namespace, lm: LM, source: SceneSource, together: Accelerator
    ):
        self.args = args
        self.lm = lm.to(together.device)
        # Then all processes compute together, validations too.
        self.is_sharded = getattr(args, "shard", False) and together.num_processes > 1
        if self.is_sharded:
            shard_frozen(together, lm.blocks)
        self.source = source
        self.together = together
        residual = list(lm.residual.parameters())
        known = {id(parameter) for parameter in residual}
        rest = [p for p in lm.parameters() if p.requires_grad and id(p) not in known]
        self.parameters = rest + residual
        # Features are ten times as long as the embeddings they are added to.
        groups = [
            {"params": rest, "peak": args.lr},
            {"params": residual, "peak": args.lr * 0.03},
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)
        fresh = {"step": 0, "seconds": 0.0}
        self.progress = resume_run(args.out, lm, self.optimizer, fresh, strict=False)
        self.clock = RunClock(self.progress["seconds"])
        # Seeds of what this process draws.
        first = together.is_main_process
        self.seeds = [args.seed] if first else [args.seed, together.process_index]
        self.queue, self.drawn_at = self.resume_queue()
        # When the last validation was, and how long it took.
        self.measured = time.monotonic()
        self.measuring_s = 10.0

    def resume_queue(self) -> tuple[list, int]:
        """The batches that were drawn and left before the interruption, and in which step."""
        queues = self.progress.get("queues", [])
        if len(queues) != self.together.num_processes:
            return [], 0
        step, left = queues[self.together.process_index]
        return self.source.batches(self.rng(step), self.args.positions, 5)[:left], step

    def rng(self, step: int) -> np.random.Generator:
        """The random numbers of this process in a step."""
        return np.random.default_rng([*self.seeds, step])

    def done(self) -> float:
        """How much of the run lies behind, in all processes alike."""
        args = self.args
        step = self.progress["step"]
        share = schedule.share_done(args.steps, args.minutes, step, self.clock.seconds())
        return agreed(self.together, share)

    def step(self, done: float) -> tuple:
        """One update; `done` is what `done` said. Returns the batch's `symbol_losses`."""
        step = self.progress["step"] = self.progress["step"] + 1
        # A short run is not over before its rate is up.
        factor = max(schedule.warm_up(step, 30), min(1.0, done / 0.1))
        factor *= schedule.cosine(done, floor=0.05)
        schedule.set_learning_rate(self.optimizer, factor)
        rng = self.rng(step)
        if not self.queue:
            self.queue = self.source.batches(rng, self.args.positions, 5)
            self.drawn_at = step
        loss, right, kinds = symbol_losses(self.lm, self.queue.pop(), rng, NEXT_KEPT)
        weighted_mean(loss, kinds).backward()
        average_gradients(self.together, self.parameters)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach(), right, kinds

    def measure(self, valid: SceneSource) -> dict[str, list[float]]:
        """`validate`, and note how long that takes."""
        begun = time.monotonic()
        found = validate(self.lm, valid)
        self.measured = time.monotonic()
        self.measuring_s = self.measured - begun
        return found

    def is_validation_due(self) -> bool:
        """Whether twenty times as long has passed since a validation as it took."""
        is_due = time.monotonic() - self.measured > max(60.0, 20 * self.measuring_s)
        return bool(agreed(self.together, is_due)) if self.is_sharded else is_due

    def save(self) -> None:
        """The first process writes the run; all tell what they have drawn and left."""
        check_together(self.together, self.parameters)
        self.progress["queues"] = collected(self.together, [self.drawn_at, len(self.queue)])
        self.progress["seconds"] = self.clock.seconds()
        if self.together.is_main_process:
            tensors = trained_tensors(self.lm)
            save_run(self.args.out, tensors, self.lm.config, self.optimizer, self.progress)
        self.clock.mark_saved()


def train(trainer: Trainer, valid: SceneSource, patience: int = 0) -> bool:
    """Learn until the run is done, or saved after Ctrl-C; returns whether it is done.

    patience: validations in a row without a gain that end the run as well; 0: none do. Validation
    is at the start, at the end and between, so that it takes a twentieth of the time; what was best
    is kept in OUT/best.
    """
    together = trainer.together
    progress = trainer.progress
    recent = []
    # All processes must ask how much is done: they agree on it.
    done = trainer.done()
    bar = RunBar(done) if together.is_main_process else None
    validates = trainer.is_sharded or together.is_main_process
    if validates and "before" not in progress:
        progress["before"] = trainer.measure(valid)
        progress["after"] = progress["before"]
    with finishing_steps() as interruption:
        while done < 1 and not agreed(together, interruption.is_wanted):
            recent.append(trainer.step(done))
            done = trainer.done()
            report(trainer, bar, recent, done)
            if validates and trainer.is_validation_due():
                check_gain(trainer, valid)
            if patience and agreed(together, progress.get("worse", 0)) >= patience:
                break
            if agreed(together, trainer.clock.minutes_unsaved()) > trainer.args.save_minutes:
                trainer.save()
    if bar:
        bar.close()
    if validates and not interruption.is_wanted:
        check_gain(trainer, valid)
    trainer.save()
    return not interruption.is_wanted


def report(trainer: Trainer, bar: RunBar | None, recent: list[tuple], done: float) -> None:
    """Tell the last step on the bar and on TensorBoard, every 25 of them in the log."""
    if bar is None:
        recent.clear()
        return
    step = trainer.progress["step"]
    loss = float(recent[-1][0].mean())
    bar.show(done, step, loss)
    show_on_board(trainer.args.out, {"step": step, "loss": loss})
    if step % 25 == 0:
        minutes = round(trainer.clock.seconds() / 60, 1)
        log(trainer.args.out, {"step": step, "minutes": minutes, "train": mean_by_kind(recent)})
        recent.clear()


def check_gain(trainer: Trainer, valid: SceneSource) -> None:
    """Validate; keep the model where it is the best so far, else count one more without a gain."""
    progress = trainer.progress
    if valid.is_empty or progress.get("validated") == progress["step"]:
        return
    found = trainer.measure(valid)
    progress["validated"] = progress["step"]
    is_first = trainer.together.is_main_process
    if is_first:
        log(trainer.args.out, {"step": progress["step"], "valid": found})
    progress["after"] = found
    loss = text_loss(found)
    if loss < progress.get("best", text_loss(progress["before"])):
        progress["best"] = loss
        progress["worse"] = 0
        if is_first:
            out = trainer.args.out / "best"
            checkpoint.save(trained_tensors(trainer.lm), trainer.lm.config, out)
    else:
        progress["worse"] = progress.get("worse", 0) + 1


def text_loss(found: dict[str, list[float]]) -> float:
    """Of what `validate` returns the mean loss of words heard and words said."""
    losses = [found[kind][0] for kind in ("hearing", "speaking") if kind in found]
    return sum(losses) / len(losses) if losses else float("inf")


@torch.no_grad()
def validate(lm: LM, source: SceneSource, count: int = 6) -> dict[str, list[float]]:
    """Mean loss and share of right labels by kind, over `count` batches that no training has."""
    if source.is_empty:
        return {}
    rng = np.random.default_rng(VALID_SEED)
    batches = source.batches(rng, 1500, count)
    return mean_by_kind([symbol_losses(lm, batch, rng, 1.0) for batch in batches])
