"""A checkpoint is a folder: config.json (one dataclass) and model.safetensors. Never a pickle."""

import dataclasses
import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

# Ends the name of what the rows of a tensor in 8 bits are to be multiplied with.
SCALE = ".scale"


def save(
    tensors: dict[str, torch.Tensor], config, folder: Path, dtype: torch.dtype | None = None
) -> None:
    """Write both files, floating point tensors as `dtype` where it is given.

    Each file is replaced in one move, so nobody ever reads half of one, even after a crash.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = {
        name: (value.to(dtype) if dtype and value.is_floating_point() else value).contiguous()
        for name, value in tensors.items()
    }
    save_file(stored, folder / "model.safetensors.part")
    os.replace(folder / "model.safetensors.part", folder / "model.safetensors")
    fields = json.dumps(dataclasses.asdict(config), indent=1)
    (folder / "config.json.part").write_text(fields + "\n")
    os.replace(folder / "config.json.part", folder / "config.json")


def pack(tensors: dict[str, torch.Tensor], min_elements: int = 1 << 14) -> dict[str, torch.Tensor]:
    """Matrices of at least min_elements in 8 bits with one scale a row, the rest in float16.

    That is about a quarter of float32.
    """
    packed = {}
    for name, value in tensors.items():
        if value.is_floating_point() and value.dim() >= 2 and value.numel() >= min_elements:
            rows = value.float().flatten(0, -2)  # one scale for each run along the last axis
            scale = (rows.abs().amax(1, keepdim=True) / 127).clamp(min=1e-8)
            packed[name] = (rows / scale).round().to(torch.int8).view(value.shape)
            packed[name + SCALE] = scale.view(*value.shape[:-1], 1)
        else:
            packed[name] = value.half() if value.is_floating_point() else value
    return packed


def load_config(config_class: type, folder: Path):
    """The dataclass in folder/config.json; lists become tuples, as frozen configs want them."""
    fields = json.loads((folder / "config.json").read_text())
    return config_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


def load_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of folder/model.safetensors, unpacked; floating point ones in float32."""
    stored = load_file(folder / "model.safetensors")
    tensors = {}
    for name, value in stored.items():
        if name.endswith(SCALE):
            continue
        scale = stored.get(name + SCALE)
        if scale is not None:
            value = value.float() * scale
        tensors[name] = value.float() if value.is_floating_point() else value
    return tensors
