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

import torch

from duplex.model.lm import LM
from duplex.training.common.distributed import join, leave
from duplex.training.common.endings import in_a_sentence, need_extra
from duplex.training.common.options import add_length, add_run
from duplex.training.common.run_log import describe_run
from duplex.training.scenes.example import Tokenizer
from duplex.training.scenes.recognition import SpeechRecognizer
from duplex.training.scenes.setup import add_data_arguments, add_model_arguments, build
from duplex.training.scenes.source import SceneSource
from duplex.training.scenes.trainer import Trainer, train


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
    parser.add_argument(
        "--shard",
        action="store_true",
        help="each process keeps its part of the backbone alone: for one that no GPU holds",
    )
    add_run(parser, lr=6e-4)
    return parser.parse_args(arguments)


def run(args: argparse.Namespace, lm: LM, recognizer: SpeechRecognizer | None) -> None:
    """Train as the arguments say. SystemExit where there is nothing to learn from."""
    tokenizer = Tokenizer(args.tokenizer, recognizer)
    together = join()
    part = together.process_index, together.num_processes
    source = SceneSource(args, "train", tokenizer, recognizer, part)
    valid = SceneSource(args, "valid", tokenizer, recognizer)
    if source.is_empty:
        raise SystemExit(
            "There is nothing to learn from: no window in the recordings, no dialogue in the "
            "corpus."
        )
    describe_run(args, "duplex.training.duplex")
    if recognizer is not None:
        recognizer.encoder.to(together.device)
    trainer = Trainer(args, lm, source, together)
    is_done = train(trainer, valid)
    if together.is_main_process:
        print(ending(args, trainer.progress, is_done))
    leave(together)


def ending(args: argparse.Namespace, progress: dict, is_done: bool) -> str:
    """What a run has come to, and how to go on."""
    after = progress["after"] if "validated" in progress else {}
    told = [
        f"{kind}: loss {loss:.2f} before" + (f", {after[kind][0]:.2f} after" if after else "")
        for kind, (loss, _) in progress["before"].items()
    ]
    told = told or ["Nothing is set aside, so nothing tells what was learned."]
    if is_done:
        told.append(f"next: python -m duplex.training.export --lm {args.out} --out AGENT")
    else:
        told.append(f"stopped and saved at step {progress['step']}; the same command goes on")
    return "\n".join(told)


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    need_extra("accelerate", "scipy")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    with in_a_sentence(args.out):
        run(args, *build(args))


if __name__ == "__main__":
    main()
