"""`duplex tune`: from somebody's recordings to an agent that was taught by them, and a report.

    prepare ─► what it does before ─► (align) ─► train ─► export ─► what it does after ─► report

Everything but the agent is in OUT/tuning; what is done there already is not done again.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from duplex.agent import load_agent
from duplex.training.common.distributed import join
from duplex.training.common.endings import in_a_sentence, need_extra
from duplex.training.common.options import add_length, add_noise, add_run
from duplex.training.common.packing import copy_part, export_part, fill_up
from duplex.training.common.run_log import describe_run
from duplex.training.conversations.listener import load_listener
from duplex.training.conversations.preparing import is_of, prepare
from duplex.training.conversations.report import write_report
from duplex.training.evaluation.align import evaluate_align
from duplex.training.evaluation.behaviour import handled_scenes
from duplex.training.evaluation.own import measure, set_aside_questions
from duplex.training.scenes.aligner import OBJECTIVES, align
from duplex.training.scenes.example import Tokenizer
from duplex.training.scenes.own import OWN, write_dialogues
from duplex.training.scenes.setup import (
    add_data_arguments,
    add_model_arguments,
    build_lm,
    build_recognizer,
)
from duplex.training.scenes.source import SceneSource
from duplex.training.scenes.trainer import Trainer, train
from duplex.training.tuning.instructions import write_instructions
from duplex.training.tuning.report import sentences, tuning_report
from duplex.weights import DEFAULT_AGENT


def run(args: argparse.Namespace, build: Callable = build_lm, load: Callable = load_agent) -> None:
    """Tune as `tuning.options` says. SystemExit with a sentence where it cannot be.

    build: from arguments to the LM that training begins with; load: from a folder to its agent.
    """
    need_extra("accelerate", "scipy")
    unknown = set(args.align) - set(OBJECTIVES)
    if unknown:
        raise SystemExit(f"--align knows {', '.join(OBJECTIVES)}, not {', '.join(unknown)}.")
    check_device(args.compute)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SystemExit(
            "duplex tune is one process; its steps alone can be several, as training/RECIPE.md "
            "says under Elsewhere: accelerate launch -m duplex.training.duplex --recordings FOLDER."
        )
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    with in_a_sentence(args.out):
        tune(args, build, load)


def check_device(name: str) -> None:
    """SystemExit unless torch has this device here."""
    try:
        kind = torch.device(name).type
    except RuntimeError:
        raise SystemExit(
            f"--compute names a device of torch, as cpu or cuda, not {name}."
        ) from None
    found = torch.accelerator.current_accelerator(check_available=True)
    if kind != "cpu" and (found is None or found.type != kind):
        raise SystemExit(f"There is no {name} here: leave --compute out.")


def tune(args: argparse.Namespace, build: Callable, load: Callable) -> None:
    """See `run`."""
    work = args.out / "tuning"
    prepared = prepare_once(args, work)
    questions = set_aside_questions(prepared)
    found = {"before": once(work / "before.json", lambda: measured(args, None, questions, load))}
    start = []
    if args.align:
        found["align"] = once(work / "align.json", lambda: align_once(args, work, build))
        start = ["--start", str(work / "aligned")]
    if not train_once(args, work, start, build):
        print("stopped and saved; the same command goes on", file=sys.stderr)
        return
    best = work / "run" / "best"
    export_part(best if best.exists() else work / "run", args.out / "lm")
    if not args.backbone:
        # The LM goes on from the shipped one, in steps that are small to what it tells.
        copy_part(DEFAULT_AGENT / "turn_end", args.out / "turn_end")
    fill_up(args.out)
    write_instructions(args.out, prepared, args.facts)
    found["after"] = measured(args, args.out, questions, load)
    found["progress"] = json.loads((work / "run" / "progress.json").read_text())
    (work / "report.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    report = tuning_report(args.out, work, found)
    print(f"{sentences(found)}\nall of it: {report}\nnext: duplex talk --agent {args.out}")


def say(text: str) -> None:
    """What is being done."""
    print(text, file=sys.stderr, flush=True)


def once(path: Path, work: Callable[[], dict]) -> dict:
    """What the work gives; it is kept in a file, and not done again."""
    if not path.exists():
        found = json.dumps(work(), indent=1, ensure_ascii=False)
        part = path.with_suffix(".part")
        part.write_text(found + "\n", encoding="utf-8")
        part.replace(path)
    return json.loads(path.read_text(encoding="utf-8"))


def prepare_once(args: argparse.Namespace, work: Path) -> Path:
    """The prepared folder. SystemExit where no recording can be used."""
    prepared = work / "prepared"
    if (prepared / "READY").exists():
        if not is_of(prepared, args.data):
            raise SystemExit(
                f"{args.data} has changed since {args.out} was begun: name another --out, or "
                f"remove {work} to begin anew."
            )
    else:
        say("preparing the recordings …")
        found = prepare(args.data, prepared, load_listener(args))
        report = write_report(prepared)
        say(f"{found.taken} recordings, {found.minutes:.1f} minutes; {found.left_out} left out")
        if not found.taken:
            raise SystemExit(f"No recording can be used; {report} says why.")
    return prepared


def measured(args: argparse.Namespace, folder: Path | None, questions: list, load) -> dict:
    """What an agent does, see `evaluation.own`, and which scenes it handles."""
    say(f"measuring it {'after' if folder else 'before'} …")
    threads = {"threads": args.threads} if args.compute == "cpu" else {}
    agent = load(folder, slots=1, backbone=args.backbone, device=args.compute, **threads)
    return {**measure(agent, questions), "scenes": handled_scenes(agent)}


def train_once(args: argparse.Namespace, work: Path, start: list[str], build: Callable) -> bool:
    """Train, or what is left of it. Returns whether it is done."""
    own = write_dialogues(work / "prepared", work / "dialogues.jsonl")
    settings = train_arguments(args, work, own > 0, start)
    say("training; Ctrl-C stops it after a step, and the same command goes on")
    recognizer = build_recognizer(settings)
    tokenizer = Tokenizer(settings.tokenizer, recognizer)
    source, valid = (
        SceneSource(settings, split, tokenizer, recognizer) for split in ("train", "valid")
    )
    describe_run(settings, "duplex.training.duplex")
    together = join(args.compute)
    recognizer.encoder.to(together.device)
    trainer = Trainer(settings, build(settings), source, together)
    return train(trainer, valid, args.patience)


def common_options(args: argparse.Namespace) -> list[str]:
    """Options of both trainings, as their programs take them."""
    told = ["--encoder", args.encoder, "--lexicon", args.lexicon, "--lr", args.lr]
    told += ["--threads", args.threads, "--seed", args.seed]
    if args.backbone:
        told += ["--backbone", args.backbone]
    return [str(option) for option in told]


def train_arguments(
    args: argparse.Namespace, work: Path, has_own: bool, start: list[str]
) -> argparse.Namespace:
    """Arguments as those of duplex.training.duplex. has_own: whether there are own dialogues."""
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    add_data_arguments(parser)
    add_length(parser, minutes=args.minutes)
    add_run(parser, lr=args.lr)
    told = [*common_options(args), *start, "--out", work / "run", "--simulated", 1.0]
    told += ["--recordings", f"{work / 'prepared'}={args.recorded}", "--text", args.text]
    told += ["--corpus", work / "dialogues.jsonl"]
    told += ["--more", f"{OWN}={args.own}"] if has_own else []
    told += ["--steps", args.steps] if args.steps else []
    found = parser.parse_args([str(option) for option in told])
    found.compute = args.compute
    found.positions = args.positions or (600 if args.compute == "cpu" else 9600)
    return found


def align_once(args: argparse.Namespace, work: Path, build: Callable) -> dict:
    """Align first, and measure it before and after. SystemExit where it is stopped."""
    say("drawing speech and text together …")
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    add_noise(parser)
    add_length(parser, steps=args.align_steps)
    add_run(parser, lr=args.lr)
    folder = work / "aligned"
    settings = parser.parse_args([*common_options(args), "--out", str(folder)])
    settings.pool = [work / "prepared"]
    settings.objectives = [(name, 1.0) for name in args.align]
    settings.utterances = 8
    settings.compute = "cpu"  # A few hundred utterances are soon done.
    describe_run(settings, "duplex.training.align")
    recognizer = build_recognizer(settings)
    tokenizer = Tokenizer(settings.tokenizer, recognizer)
    if not align(settings, build(settings), recognizer, tokenizer):
        raise SystemExit("stopped and saved; the same command goes on")
    asked = argparse.Namespace(run=[folder], out=work, clips=24, seed=0, threads=args.threads)
    return evaluate_align(asked, build_lm=build)
