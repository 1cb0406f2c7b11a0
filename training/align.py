"""Draw speech and text together in the LM: heard words must mean to it what read words mean.

    python -m duplex.training.align --objectives supervised contrastive consistency \\
        --pool pools/user --steps 600 --out runs/align_all

Three objectives on the utterances of speech pools, each with a weight if wanted
(`contrastive=0.5`):

- supervised: the streaming transcript in the token grammar, as in duplex.training.duplex;
- contrastive: the mean of an utterance's ticks is nearest to the mean of its own words' embeddings,
  and a judge cannot tell speech from text. It can move only the projector's residual and the blank;
- consistency: the LM as it was when the run began answers the text; read from the speech alone,
  the same answer must have the same distributions.

The last two are in duplex.training.objectives.alignment. A batch is decided by seed and step alone,
so runs that differ in their objectives see the same data. Each alone and all together:

    for o in supervised contrastive consistency "supervised contrastive consistency"; do
        python -m duplex.training.align --objectives $o --pool pools/user \\
            --out "runs/align_$(echo $o | tr ' ' _)"
    done
    python -m duplex.training.evaluate align --run runs/align_supervised \\
        --run runs/align_contrastive ...

The last command prints every measure at the start and after each run, and plots both clouds into
each run's clouds.png. A run's folder is what duplex.training.duplex takes as `--start`.
"""

import argparse
import math

import numpy as np
import torch

from duplex.model.backbone import trained_tensors
from duplex.model.lm import LM
from duplex.training.common import schedule
from duplex.training.common.options import add_length, add_noise, add_run, pool_folder
from duplex.training.common.run_log import describe_run, log
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
from duplex.training.scenes.setup import (
    VALID_SEED,
    add_model_arguments,
    build_lm,
    build_recognizer,
)
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


class Trainer:
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


def train(trainer: Trainer, source: UtteranceSource, valid: UtteranceSource) -> None:
    """Learn until the run is done; a line in the log every 10 steps, validation every 100."""
    recent = []
    while trainer.done() < 1:
        recent.append(trainer.step(source))
        step = trainer.progress["step"]
        last = trainer.done() >= 1
        if step % 10 == 0 or last:
            minutes = round(trainer.clock.seconds() / 60, 1)
            line = {"step": step, "minutes": minutes, "train": means(recent)}
            recent = []
            if valid.found and (step % 100 == 0 or last):
                line["valid"] = trainer.validate(valid)
            log(trainer.args.out, line)
        if trainer.clock.minutes_unsaved() > trainer.args.save_minutes:
            trainer.save()
    trainer.save()


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each entry."""
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def objective(text: str) -> tuple[str, float]:
    """NAME or NAME=WEIGHT -> both."""
    name, _, weight = text.partition("=")
    if name not in OBJECTIVES:
        raise argparse.ArgumentTypeError(
            f"there is no objective {name!r}, only {', '.join(OBJECTIVES)}"
        )
    try:
        value = float(weight or 1.0)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"the weight of {name} must be a number above zero, not {weight!r}; "
            "leave out what is off"
        )
    return name, value


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--objectives",
        type=objective,
        nargs="+",
        default=[(name, 1.0) for name in OBJECTIVES],
        metavar="NAME[=WEIGHT]",
        help="any of supervised, contrastive and consistency (default: all)",
    )
    parser.add_argument(
        "--pool",
        type=pool_folder,
        action="append",
        required=True,
        metavar="FOLDER",
        help="speech pool with word times, repeatable",
    )
    add_noise(parser)
    add_length(parser, steps=600)
    parser.add_argument(
        "--utterances",
        type=int,
        default=12,
        help="in a batch: each is a counter-example for the others (default 12)",
    )
    add_run(parser, lr=6e-4)
    args = parser.parse_args(arguments)
    names = [name for name, _ in args.objectives]
    if len(set(names)) < len(names):
        parser.error(f"an objective is named twice: {' '.join(names)}")
    if args.minutes is not None:
        args.steps = None
    if args.utterances < 2 or (args.steps is not None and args.steps < 1):
        parser.error(
            f"a run has at least one step of two utterances, not {args.steps} of {args.utterances}"
        )
    return args


def run(args: argparse.Namespace, lm: LM, recognizer: SpeechRecognizer) -> None:
    """Train as the arguments say."""
    tokenizer = Tokenizer(args.tokenizer, recognizer)
    source, valid = (
        UtteranceSource(args, split, tokenizer, recognizer) for split in ("train", "valid")
    )
    describe_run(args, "duplex.training.align")
    answers = Answers(args.out / "answers.jsonl", frozen_copy(lm), source.prompt)
    # Saved and resumed with the rest; an agent that loads the folder passes over them.
    lm.alignment = AlignmentHeads(lm.config.width)
    train(Trainer(args, lm, answers), source, valid)


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    run(args, build_lm(args), build_recognizer(args))


if __name__ == "__main__":
    main()
