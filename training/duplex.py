"""Teach the LM to hear, to take its turn and to answer: adapters, control rows and the projector.

    python -m duplex.training.duplex --corpus corpus/dialogues.jsonl --pool pools/user \\
        --noise DATA --minutes 60 --out runs/lm

Every scene is a dialogue laid on a time line (duplex.training.scenes). In the share `--simulated`
of the dialogues what is heard is made up from the text; in the others a voice of the pool speaks,
is disturbed, and goes through the frozen encoder and the lexicon. The LM learns to write down the
words that were heard, right or wrong, and to answer what was said. The share `--text` of all
sequences has no ticks at all: what to answer is learned from many dialogues at the price of one
scene. The loss is duplex.training.objectives.next_symbol.

So that any sentence is heard, those of `--sentences` pools are to be written down; what to answer
is left open. Your own conversations, prepared by duplex.training.prepare, take a share of the
scenes, or without a corpus all:

    python -m duplex.training.duplex --recordings prepared --minutes 60 --out runs/mine

The run goes on from the shipped LM; --scratch begins with fresh adapters. `accelerate launch -m
duplex.training.duplex ...` runs it in several processes, on as many GPUs if there are
(duplex.training.common.distributed).
"""

import argparse
import json

import numpy as np
import torch
from accelerate import Accelerator

from duplex.model.backbone import trained_tensors
from duplex.model.lm import LM
from duplex.training.common import schedule
from duplex.training.common.distributed import (
    agreed,
    average_gradients,
    check_together,
    collected,
    join,
)
from duplex.training.common.options import add_length, add_run
from duplex.training.common.run_log import describe_run, log
from duplex.training.common.run_state import RunClock, resume_run, save_run
from duplex.training.objectives.next_symbol import (
    NEXT_KEPT,
    mean_by_kind,
    symbol_losses,
    weighted_mean,
)
from duplex.training.scenes.example import Tokenizer
from duplex.training.scenes.recognition import SpeechRecognizer
from duplex.training.scenes.setup import VALID_SEED, add_data_arguments, add_model_arguments, build
from duplex.training.scenes.source import SceneSource


class Trainer:
    """A run, in one of the processes that were launched together."""

    def __init__(
        self, args: argparse.Namespace, lm: LM, source: SceneSource, together: Accelerator
    ):
        self.args = args
        self.lm = lm.to(together.device)
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
        factor = schedule.warm_up(step, 30) * schedule.cosine(done, floor=0.05)
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

    def save(self) -> None:
        """The first process writes the run; all tell what they have drawn and left."""
        check_together(self.together, self.parameters)
        self.progress["queues"] = collected(self.together, [self.drawn_at, len(self.queue)])
        self.progress["seconds"] = self.clock.seconds()
        if self.together.is_main_process:
            tensors = trained_tensors(self.lm)
            save_run(self.args.out, tensors, self.lm.config, self.optimizer, self.progress)
        self.clock.mark_saved()


def train(trainer: Trainer, valid: SceneSource) -> None:
    """Learn until the run is done; a line in the log every 25 steps, validation every 200."""
    args = trainer.args
    together = trainer.together
    recent = []
    while (done := trainer.done()) < 1:
        recent.append(trainer.step(done))
        step = trainer.progress["step"]
        if step % 25 == 0:
            minutes = round(trainer.clock.seconds() / 60, 1)
            line = {"step": step, "minutes": minutes, "train": mean_by_kind(recent)}
            recent = []
            if together.is_main_process:
                if step % 200 == 0:
                    line["valid"] = validate(trainer.lm, valid)
                log(args.out, line)
        if agreed(together, trainer.clock.minutes_unsaved()) > args.save_minutes:
            trainer.save()
    trainer.save()
    if together.is_main_process:
        print(json.dumps({"valid": validate(trainer.lm, valid, 20)}), flush=True)


@torch.no_grad()
def validate(lm: LM, source: SceneSource, count: int = 6) -> dict[str, list[float]]:
    """Mean loss and share of right labels by kind, over `count` batches that no training has."""
    if source.is_empty:  # A few recordings, none of them set aside.
        return {}
    rng = np.random.default_rng(VALID_SEED)
    batches = source.batches(rng, 1500, count)
    return mean_by_kind([symbol_losses(lm, batch, rng, 1.0) for batch in batches])


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_arguments(parser)
    add_data_arguments(parser)
    add_length(parser, minutes=60.0)
    parser.add_argument(
        "--positions", type=int, default=1200, help="positions a batch (default %(default)s)"
    )
    add_run(parser, lr=6e-4)
    return parser.parse_args(arguments)


def run(args: argparse.Namespace, lm: LM, recognizer: SpeechRecognizer | None) -> None:
    """Train as the arguments say. SystemExit where there is nothing to learn from."""
    tokenizer = Tokenizer(args.tokenizer, recognizer)
    source, valid = (
        SceneSource(args, split, tokenizer, recognizer) for split in ("train", "valid")
    )
    if source.is_empty:
        raise SystemExit(
            "There is nothing to learn from: no window in the recordings, no dialogue in the "
            "corpus."
        )
    describe_run(args, "duplex.training.duplex")
    together = join()
    if recognizer is not None:
        recognizer.encoder.to(together.device)
    train(Trainer(args, lm, source, together), valid)


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    run(args, *build(args))


if __name__ == "__main__":
    main()
