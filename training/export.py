"""Put trained parts together into an agent folder that ships.

    python -m duplex.training.export --encoder runs/encoder --lexicon runs/lexicon --lm runs/lm --draft runs/draft \\
        --talker runs/talker --codec runs/codec --tokenizer TOKENIZER_FOLDER --out duplex/pretrained

Large matrices are stored in 8 bits with a scale a row, but for the codec: its codebooks decide codes, so it is kept in float16.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from duplex.checkpoint import SCALE, pack
from duplex.model.codec import load_codec, save_codec


def export_part(
    name: str, run: Path, out: Path, window: int | None = None, strength: float | None = None
) -> None:
    """window: frames of the encoder's past to keep, if fewer than it was trained with (duplex.training.evaluate ears --probe).
    strength: of the LM's adapters, as a share of what they were trained with: weights between the base LM's and the trained ones
    know more of what the base LM knew (Wortsman et al., 2022, arXiv 2109.01903)."""
    from safetensors.torch import save_file

    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    config, tensors = (
        json.loads((run / "config.json").read_text()),
        load_file(run / "model.safetensors"),
    )
    if window:
        config["window"] = window
        tensors |= {
            key: bias[:, :window].clone()
            for key, bias in tensors.items()
            if key.endswith("distance_bias")
        }
    if strength:
        config["lora_scale"] *= strength
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    assert not any(key.endswith(SCALE) for key in tensors), f"{run} is packed already"
    save_file(pack(tensors), folder / "model.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for part in ("encoder", "lexicon", "lm", "draft", "talker", "codec"):
        parser.add_argument(
            f"--{part}", type=Path, help=f"run folder of the {part}; left as it is if not given"
        )
    parser.add_argument("--tokenizer", type=Path, help="folder with the LM's tokenizer.json")
    parser.add_argument(
        "--window",
        type=int,
        help="frames of 20 ms that the encoder remembers, if fewer than trained",
    )
    parser.add_argument(
        "--strength",
        type=float,
        help="of the LM's adapters, as a share of what they were trained with",
    )
    parser.add_argument("--out", type=Path, required=True, help="agent folder")
    args = parser.parse_args()
    for part in ("encoder", "lm", "draft", "talker"):
        if run := getattr(args, part):
            export_part(
                part,
                run,
                args.out,
                args.window if part == "encoder" else None,
                args.strength if part == "lm" else None,
            )
    if args.lexicon:
        (args.out / "lexicon").mkdir(parents=True, exist_ok=True)
        shutil.copy(args.lexicon / "model.safetensors", args.out / "lexicon" / "model.safetensors")
    if args.codec:
        save_codec(load_codec(args.codec), args.out / "codec", torch.float16)
    if args.tokenizer:
        shutil.copy(args.tokenizer / "tokenizer.json", args.out / "tokenizer.json")
    sizes = {
        str(p.relative_to(args.out)): p.stat().st_size for p in args.out.rglob("*") if p.is_file()
    }
    print(json.dumps(sizes, indent=1), f"\n{sum(sizes.values()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
