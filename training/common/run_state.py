"""A run's folder: the model at any time, the optimizer's moments and how far it has come, so that it goes on where it stopped."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from duplex import checkpoint

PROGRESS = "progress.json"


def save_run(
    out: Path,
    tensors: dict[str, torch.Tensor],
    config,
    optimizer: torch.optim.Optimizer,
    progress: dict,
) -> None:
    """Each file is replaced in one move; progress comes last, it says that the others are there."""
    checkpoint.save(tensors, config, out)
    moments = {
        f"{i}.{key}": t
        for i, state in optimizer.state_dict()["state"].items()
        for key, t in state.items()
    }
    save_file(moments, out / "optimizer.part")
    (out / "optimizer.part").replace(out / "optimizer.safetensors")
    (out / "progress.part").write_text(json.dumps(progress))
    (out / "progress.part").replace(out / PROGRESS)


def has_run(out: Path) -> bool:
    return (out / PROGRESS).exists()


def resume_run(
    out: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, strict: bool = True
) -> dict:
    """Model and optimizer as they were saved -> the progress. strict: the run's tensors are all of the model's."""
    model.load_state_dict(checkpoint.load_tensors(out), strict=strict)
    states: dict[int, dict] = {}
    for name, tensor in load_file(out / "optimizer.safetensors").items():
        i, key = name.split(".")
        states.setdefault(int(i), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    return json.loads((out / PROGRESS).read_text())
