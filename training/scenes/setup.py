"""What trainings of the LM begin with: backbone and adapters, the frozen recogniser, options."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from duplex.checkpoint import load_config, load_tensors
from duplex.errors import BackboneError
from duplex.model import backbone
from duplex.model.backbone import fill_lm, start_controls
from duplex.model.lm import LM, LMConfig
from duplex.model.vocabulary import check_room, load_tokenizer, moves, read_tokenizer
from duplex.training.common.options import (
    add_backbone,
    add_noise,
    add_part,
    add_tokenizer,
    backbone_path,
    corpus_path,
    file_share,
    folder_of,
    kind_share,
    pool_folder,
    pool_share,
    recordings_share,
)
from duplex.training.common.precision import fast_dtype
from duplex.training.scenes.recognition import SpeechRecognizer, load_recognizer
from duplex.weights import DEFAULT_AGENT

# Seed of what validation draws, so that all runs are measured on the same.
VALID_SEED = 99


def build(args: argparse.Namespace) -> tuple[LM, SpeechRecognizer | None]:
    """The LM, and the recogniser that hears for it: None where nothing in the run has a sound.

    SystemExit where there is nothing to learn from.
    """
    if not (args.corpus or args.recordings):
        raise SystemExit("There is nothing to learn from: give --corpus, --recordings or both.")
    has_sound = args.simulated < 1.0 or args.recordings or args.sentences
    recognizer = build_recognizer(args) if has_sound else None
    return build_lm(args), recognizer


def build_recognizer(args: argparse.Namespace) -> SpeechRecognizer:
    """The recogniser of --encoder and --lexicon."""
    return load_recognizer(args.encoder, args.lexicon)


def build_lm(args: argparse.Namespace) -> LM:
    """The backbone with the adapters of --start, or with fresh ones for --scratch.

    SystemExit where parts do not fit together.
    """
    path = backbone_path(args.backbone)
    try:
        moved = moves(read_tokenizer(args.tokenizer))
        tokenizer = load_tokenizer(args.tokenizer)
        sizes, tensors = backbone.read_backbone(path)
        check_room(moved, sizes["vocabulary"])
    except BackboneError as error:
        raise SystemExit(f"{error}.") from error
    if args.scratch:
        config = LMConfig(lora_rank=args.rank, speakers=args.speakers, moved=moved, **sizes)
    else:
        config = start_config(args.start)
        config = replace(config, speakers=max(config.speakers, args.speakers))
        if any(getattr(config, name) != size for name, size in sizes.items()):
            raise SystemExit(
                f"{args.start} was trained on another backbone than {path}: their sizes differ."
            )
    lm = LM(config)
    fill_lm(lm, tensors)
    start_controls(lm, tokenizer)
    if not args.scratch:
        lm.load_state_dict(load_tensors(args.start), strict=False)
    device = getattr(args, "compute", None) or best_device()
    for parameter in lm.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(fast_dtype(device))
    return lm


def best_device() -> str:
    """The torch device that accelerate takes by itself."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator.type if accelerator else "cpu"


def start_config(folder: Path) -> LMConfig:
    """The config of a trained LM, with the windows of today: they are not learned."""
    names = ("tick_window", "text_window")
    return replace(
        load_config(LMConfig, folder), **{name: getattr(LMConfig, name) for name in names}
    )


def add_base_arguments(parser: argparse.ArgumentParser) -> None:
    """The parts that no training of the LM changes."""
    add_backbone(parser)
    add_tokenizer(parser)
    add_part(parser, "encoder")
    add_part(parser, "lexicon")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The parts to begin with, those of the LM included."""
    add_base_arguments(parser)
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument(
        "--start",
        type=folder_of("lm"),
        default=DEFAULT_AGENT / "lm",
        metavar="FOLDER",
        help="trained LM to go on from; it decides the rank (default: the shipped agent's)",
    )
    begin.add_argument(
        "--scratch", action="store_true", help="begin with fresh adapters of --rank instead"
    )
    parser.add_argument("--rank", type=int, default=16, help="with --scratch (default 16)")
    parser.add_argument(
        "--speakers",
        type=int,
        default=0,
        metavar="N",
        help="people it learns to know apart (default: as many as --start does)",
    )


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Where scenes come from, and in which shares."""
    add_sources(parser)
    parser.add_argument(
        "--simulated", type=float, default=0.4, help="share of the dialogues without sound"
    )
    parser.add_argument(
        "--text",
        type=float,
        default=0.3,
        help="share of the sequences without ticks: several dialogues as text",
    )
    parser.add_argument(
        "--more",
        type=kind_share,
        action="append",
        default=[],
        metavar="KIND=SHARE",
        help="share of the text that is of that kind only, repeatable",
    )
    parser.add_argument(
        "--residual",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="learn the features' residual too: the encoder is final",
    )


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Corpus, recordings, pools and noises."""
    parser.add_argument(
        "--corpus",
        type=corpus_path,
        metavar="FILE",
        help="dialogues.jsonl of duplex.training.corpus, or a folder of several: where there are "
        "enough each process reads its own",
    )
    parser.add_argument(
        "--recordings",
        type=recordings_share,
        action="append",
        default=[],
        metavar="FOLDER[=SHARE]",
        help="share of the scenes from a folder of duplex.training.prepare, repeatable",
    )
    parser.add_argument(
        "--pool",
        type=pool_folder,
        action="append",
        default=[],
        metavar="FOLDER",
        help="speech pool of the corpus's user texts, repeatable",
    )
    parser.add_argument(
        "--listening",
        type=file_share,
        action="append",
        default=[],
        metavar="FILE=SHARE",
        help="share of the scenes that are long turns of icsi_mrda.jsonl.gz and when a listener "
        "says mhm",
    )
    parser.add_argument(
        "--sentences",
        type=pool_share,
        action="append",
        default=[],
        metavar="FOLDER=SHARE",
        help="share of the scenes that are sentences of a pool alone, repeatable",
    )
    add_noise(parser)
