"""Trained parts in 8 bits, and an agent's folder that lacks none."""

import json
import shutil
from pathlib import Path

from torch import Tensor

from duplex.checkpoint import SCALE, quantize, read, write_compressed
from duplex.model.tokens import COMPRESSED_TOKENIZER
from duplex.weights import DEFAULT_AGENT


def write_part(tensors: dict[str, Tensor], config: dict, folder: Path) -> None:
    """Write a part's config.json and its compressed tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    write_compressed(tensors, folder / "model.safetensors")


def export_part(
    run: Path, folder: Path, window: int | None = None, strength: float | None = None
) -> None:
    """Write a run's part in 8 bits.

    window: frames of the encoder's past to keep, if fewer than it was trained with. strength: of
    the LM's adapters, as a share of what they were trained with. Weights between the base LM's and
    the trained ones know more of what the base LM knew (Wortsman et al., 2022, arXiv 2109.01903).
    """
    config = json.loads((run / "config.json").read_text())
    tensors = read(run / "model.safetensors")
    if any(name.endswith(SCALE) for name in tensors):
        raise SystemExit(f"{run} is in 8 bits already: export reads the folder of a run.")
    if window:
        config["window"] = window
        for name, bias in tensors.items():
            if name.endswith("distance_bias"):
                tensors[name] = bias[:, :window].clone()
    if strength:
        config["lora_scale"] *= strength
    write_part(quantize(tensors), config, folder)


def fill_up(out: Path) -> None:
    """Copy what an agent needs and `out` lacks from the shipped agent.

    Heads for speakers and sounds know one encoder only, that for the ends of turns one LM: the
    shipped ones go with the shipped one.
    """
    names = ["encoder", "lexicon", "lm", "draft", "talker", "codec"]
    if not (out / "lm" / "model.safetensors").exists():
        names.append("turn_end")
    if not (out / "encoder" / "model.safetensors").exists():
        names += ["speaker", "sounds"]
    for name in names:
        if not (out / name / "model.safetensors").exists():
            copy_part(DEFAULT_AGENT / name, out / name)
    if not (out / COMPRESSED_TOKENIZER).exists():
        copy_whole(DEFAULT_AGENT / COMPRESSED_TOKENIZER, out / COMPRESSED_TOKENIZER)


def copy_part(source: Path, folder: Path) -> None:
    """Copy a part, its weights last: they say that the rest is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir(), key=lambda file: file.name == "model.safetensors"):
        copy_whole(file, folder / file.name)


def copy_whole(source: Path, path: Path) -> None:
    """Copy a file, which is there as a whole or not at all."""
    part = path.with_name(path.name + ".part")
    shutil.copy(source, part)
    part.replace(path)
