"""What a run tells: run.json says how it was made; while it goes on, a line of JSON a report.

The lines are on the screen and in log.jsonl, their numbers on TensorBoard where that is installed
(`tensorboard --logdir RUNS`).
"""

import argparse
import json
import platform
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torchaudio


def describe_run(args: argparse.Namespace, program: str) -> None:
    """Write run.json beside the result, in the folder `args.out`.

    It has all that is needed to make the result again, without the repository's history.
    """
    args.out.mkdir(parents=True, exist_ok=True)
    versions = {"python": platform.python_version()}
    versions |= {module.__name__: module.__version__ for module in (torch, torchaudio, np)}
    told = {"program": program, "arguments": vars(args), "versions": versions}
    (args.out / "run.json").write_text(json.dumps(told, indent=1, default=str) + "\n")


def log(out: Path, line: dict) -> None:
    """Report a line: a "step" and numbers, in dicts and lists of any depth.

    Texts among them are not for TensorBoard.
    """
    text = json.dumps(rounded(line))
    print(text, flush=True)
    with open(out / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(text + "\n")
    show_on_board(out, line)


def show_on_board(out: Path, line: dict) -> None:
    """The numbers of a line on TensorBoard alone."""
    writer = open_board(out)
    if writer:
        values = {name: value for name, value in line.items() if name != "step"}
        for name, number in named_numbers(values):
            writer.add_scalar(name, number, line["step"])
        writer.flush()


def rounded(value):
    """The value with all its floats to four digits."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value


def named_numbers(value, name: str = "") -> Iterator[tuple[str, float]]:
    """{"train": {"stop": [1.5, 0.8]}} -> ("train/stop/0", 1.5), ("train/stop/1", 0.8)"""
    if isinstance(value, dict | list | tuple):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from named_numbers(part, f"{name}/{key}" if name else str(key))
    elif isinstance(value, int | float):
        yield name, float(value)


@lru_cache
def open_board(out: Path):
    """TensorBoard's writer for a run, None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(out / "tensorboard")
