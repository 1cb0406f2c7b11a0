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

import torch

from duplex.model.lm import LM
from duplex.training.common.endings import in_a_sentence, need_extra
from duplex.training.common.options import add_length, add_noise, add_run, pool_folder
from duplex.training.common.run_log import describe_run
from duplex.training.scenes.aligner import OBJECTIVES, align
from duplex.training.scenes.example import Tokenizer
from duplex.training.scenes.recognition import SpeechRecognizer
from duplex.training.scenes.setup import add_model_arguments, build_lm, build_recognizer


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
    describe_run(args, "duplex.training.align")
    is_done = align(args, lm, recognizer, Tokenizer(args.tokenizer, recognizer))
    if is_done:
        print(f"next: python -m duplex.training.evaluate align --run {args.out}")
    else:
        print("stopped and saved; the same command goes on")


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    need_extra("scipy")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    with in_a_sentence(args.out):
        run(args, build_lm(args), build_recognizer(args))


if __name__ == "__main__":
    main()
