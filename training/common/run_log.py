"""What a run tells: run.json says how it was made; while it goes on, a line of JSON on the screen and in log.jsonl, its numbers
on TensorBoard where that is installed (`tensorboard --logdir RUNS`)."""

import json
import platform
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torchaudio


def describe_run(args, program: str) -> None:
    """run.json beside the result: all that is needed to have it again, without the repository's history."""
    args.out.mkdir(parents=True, exist_ok=True)
    versions = {
        "python": platform.python_version(),
        **{m.__name__: m.__version__ for m in (torch, torchaudio, np)},
    }
    text = json.dumps(
        {"program": program, "arguments": vars(args), "versions": versions}, indent=1, default=str
    )
    (args.out / "run.json").write_text(text + "\n")


def log(out: Path, line: dict) -> None:
    """`line` has a "step" and numbers, in dicts and lists of any depth; texts are not for TensorBoard."""
    text = json.dumps(rounded(line))
    print(text, flush=True)
    with open(out / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(text + "\n")
    if writer := board(out):
        for name, number in numbers(
            {name: value for name, value in line.items() if name != "step"}
        ):
            writer.add_scalar(name, number, line["step"])
        writer.flush()


def rounded(value):
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value


def numbers(value, name: str = "") -> Iterator[tuple[str, float]]:
    """{"train": {"stop": [1.5, 0.8]}} -> ("train/stop/0", 1.5), ("train/stop/1", 0.8)"""
    if isinstance(value, dict | list | tuple):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from numbers(part, f"{name}/{key}" if name else str(key))
    elif isinstance(value, int | float):
        yield name, float(value)


@lru_cache
def board(out: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(out / "tensorboard")
