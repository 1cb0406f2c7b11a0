"""A checkpoint is a folder: config.json (one dataclass) and model.safetensors. Never a pickle."""

import dataclasses
import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def save(tensors: dict[str, torch.Tensor], config, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write both files; each is replaced in one move, so a reader or an interrupted run never sees half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: (v.to(dtype) if dtype and v.is_floating_point() else v).contiguous() for k, v in tensors.items()}
    save_file(tensors, folder / "model.safetensors.part")
    os.replace(folder / "model.safetensors.part", folder / "model.safetensors")
    (folder / "config.json.part").write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n")
    os.replace(folder / "config.json.part", folder / "config.json")


def load_config(config_class, folder: Path):
    """The dataclass in folder/config.json; lists become tuples, as frozen configs want them."""
    fields = json.loads((folder / "config.json").read_text())
    return config_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


def load_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of folder/model.safetensors, in float32 where they are floating point."""
    tensors = load_file(folder / "model.safetensors")
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
