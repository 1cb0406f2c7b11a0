"""A run's folder: the model at any time, the optimizer's moments and how far the run has come.

So a run goes on where it stopped, with the same numbers.
"""

import json
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from duplex import checkpoint


def save_run(
    out: Path,
    tensors: dict[str, torch.Tensor],
    config,
    optimizer: torch.optim.Optimizer,
    progress: dict,
) -> None:
    """Write all of a run; `tensors` and the dataclass `config` are its model.

    Each file is replaced in one move. Progress comes last: it says that the others are there.
    """
    checkpoint.save(tensors, config, out)
    moments = {
        f"{i}.{key}": value
        for i, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }
    save_file(moments, out / "optimizer.part")
    (out / "optimizer.part").replace(out / "optimizer.safetensors")
    (out / "progress.part").write_text(json.dumps(progress))
    (out / "progress.part").replace(out / "progress.json")


def has_run(out: Path) -> bool:
    """Whether a run has been saved in this folder."""
    return (out / "progress.json").exists()


def resume_run(
    out: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    fresh: dict,
    strict: bool = True,
) -> dict:
    """Fill model and optimizer as they were saved in `out`, if there is a run.

    Returns its progress, or `fresh` where none was saved. strict: the run's tensors are all of the
    model's.
    """
    if not has_run(out):
        return fresh
    model.load_state_dict(checkpoint.load_tensors(out), strict=strict)
    states: dict[int, dict] = {}
    for name, tensor in load_file(out / "optimizer.safetensors").items():
        i, key = name.split(".")
        states.setdefault(int(i), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    return json.loads((out / "progress.json").read_text())


class RunClock:
    """The time of a run, restarts together, and since it was saved."""

    def __init__(self, seconds: float):
        """seconds: of the run so far."""
        self.began = time.monotonic() - seconds
        self.saved = time.monotonic()

    def seconds(self) -> float:
        """Seconds of the whole run."""
        return time.monotonic() - self.began

    def minutes_unsaved(self) -> float:
        """Minutes since `mark_saved`, or since this start."""
        return (time.monotonic() - self.saved) / 60

    def mark_saved(self) -> None:
        """The run is saved now."""
        self.saved = time.monotonic()
