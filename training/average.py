"""The weighted mean of checkpoints of one kind: what went on training forgets less.

    python -m duplex.training.average runs/encoder=0.5 runs/encoder_more=0.5 --out runs/mean

Checkpoints that went on from common weights lie in one valley, and their mean is better than either on what one of them forgot
(Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", section 3).
"""

import argparse
from pathlib import Path

from safetensors.torch import save_file

from duplex import checkpoint


def folder_share(text: str) -> tuple[Path, float]:
    folder, _, share = text.rpartition("=")
    try:
        return Path(folder), float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"FOLDER=SHARE, not {text!r}") from None


def average(folders: list[tuple[Path, float]], out: Path) -> None:
    """Raises ValueError if they differ in anything but the values of their weights."""
    configs = {(folder / "config.json").read_text() for folder, _ in folders}
    found = [(checkpoint.load_tensors(folder), share) for folder, share in folders]
    shapes = {
        tuple(sorted((name, tuple(value.shape)) for name, value in tensors.items()))
        for tensors, _ in found
    }
    if len(configs) > 1 or len(shapes) > 1:
        raise ValueError(
            "these checkpoints are not of one model: "
            + ", ".join(str(folder) for folder, _ in folders)
        )
    total, mean = sum(share for _, share in found), {}
    for name, first in found[0][0].items():
        whole = not first.is_floating_point()
        mean[name] = (
            first
            if whole
            else (sum(share * t[name].double() for t, share in found) / total).to(first.dtype)
        )
    out.mkdir(parents=True, exist_ok=True)
    save_file(mean, out / "model.safetensors")
    (out / "config.json").write_text(configs.pop())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=folder_share, nargs="+", help="FOLDER=SHARE")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    average(args.folders, args.out)


if __name__ == "__main__":
    main()
