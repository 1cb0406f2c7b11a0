"""The weighted mean of checkpoints of one kind: what went on training forgets less.

    python -m duplex.training.average runs/encoder=0.5 runs/encoder_more=0.5 --out runs/mean

Checkpoints that went on from common weights lie in one valley, and their mean is better than either
on what one of them forgot (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models",
section 3).
"""

import argparse
from pathlib import Path

from safetensors.torch import save_file

from duplex import checkpoint
from duplex.training.common.options import folder_share


def average(folders: list[tuple[Path, float]], out: Path) -> None:
    """Write the mean of the checkpoints in these folders, each in its share.

    Raises ValueError if they differ in anything but the values of their weights.
    """
    configs = {(folder / "config.json").read_text() for folder, _ in folders}
    found = [(checkpoint.load_tensors(folder), share) for folder, share in folders]
    shapes = {
        tuple(sorted((name, tuple(value.shape)) for name, value in tensors.items()))
        for tensors, _ in found
    }
    if len(configs) > 1 or len(shapes) > 1:
        names = ", ".join(str(folder) for folder, _ in folders)
        raise ValueError(f"these checkpoints are not of one model: {names}")
    total = sum(share for _, share in found)
    mean = {}
    for name, first in found[0][0].items():
        mean[name] = first
        if first.is_floating_point():
            weighted = sum(share * tensors[name].double() for tensors, share in found)
            mean[name] = (weighted / total).to(first.dtype)
    out.mkdir(parents=True, exist_ok=True)
    save_file(mean, out / "model.safetensors")
    (out / "config.json").write_text(configs.pop())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders",
        type=folder_share,
        nargs="+",
        metavar="FOLDER[=SHARE]",
        help="folder of a checkpoint and its share",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the mean")
    args = parser.parse_args()
    for folder, _ in args.folders:
        if not (folder / "model.safetensors").exists():
            parser.error(f"{folder} holds no checkpoint: it has no model.safetensors")
    try:
        average(args.folders, args.out)
    except ValueError as error:
        raise SystemExit(f"{error}.") from None


if __name__ == "__main__":
    main()
