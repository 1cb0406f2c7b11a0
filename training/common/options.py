"""Options that several training programs have, and what they default to: the shipped agent's parts.

A file or folder that is given and cannot be what it should is told in one sentence when the command
line is read.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

from duplex import weights
from duplex.errors import WeightsError
from duplex.weights import DEFAULT_AGENT


def folder_share(text: str) -> tuple[Path, float]:
    """FOLDER or FOLDER=SHARE -> the folder and its share, 1 if none is given."""
    folder, separator, share = text.rpartition("=")
    if not separator or Path(text).exists():
        return Path(text), 1.0
    try:
        return Path(folder), float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"FOLDER or FOLDER=SHARE, not {text!r}") from None


def pool_share(text: str) -> tuple[Path, float]:
    """FOLDER or FOLDER=SHARE, as `folder_share`, of a speech pool."""
    folder, share = folder_share(text)
    return pool_folder(str(folder)), share


def pool_folder(text: str) -> Path:
    """The folder of a speech pool."""
    if not (Path(text) / "index.jsonl").exists():
        raise argparse.ArgumentTypeError(f"{text} is not a speech pool: it has no index.jsonl")
    return Path(text)


def recordings_share(text: str) -> tuple[Path, float]:
    """FOLDER or FOLDER=SHARE, as `folder_share`, of a folder that duplex.training.prepare made."""
    folder, share = pool_share(text)
    if not (folder / "READY").exists():
        raise argparse.ArgumentTypeError(
            f"{folder} was not prepared to its end: give the command of duplex.training.prepare "
            "again, it goes on where it stopped"
        )
    return folder, share


def number_above_zero(text: str) -> float:
    """A number above zero."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def count_above_zero(text: str) -> int:
    """1, 2, ..."""
    count = int(text)
    number_above_zero(text)
    return count


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share from 0 to 1")
    return value


def folder_to_make(text: str) -> Path:
    """A folder, or nothing yet."""
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file; name a folder")
    return Path(text)


def existing_file(text: str) -> Path:
    """A file that is there."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return Path(text)


def corpus_path(text: str) -> Path:
    """A file that is there, or a folder with .jsonl files."""
    path = Path(text)
    return path if path.is_dir() and any(path.glob("*.jsonl")) else existing_file(text)


def file_share(text: str) -> tuple[Path, float]:
    """FILE=SHARE -> both."""
    path, share = kind_share(text)
    return existing_file(path), share


def kind_share(text: str) -> tuple[str, float]:
    """KIND=SHARE -> both."""
    kind, _, share = text.rpartition("=")
    try:
        return kind, float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"KIND=SHARE, not {text!r}") from None


def part_folder(text: str) -> Path:
    """The folder of a trained part."""
    if not (Path(text) / "model.safetensors").exists():
        raise argparse.ArgumentTypeError(
            f"{text} holds no trained part: it has no model.safetensors"
        )
    return Path(text)


def folder_of(name: str) -> Callable[[str], Path]:
    """`part_folder` that takes no other part than the one of this name."""
    keys = config_keys(DEFAULT_AGENT / name)
    is_shipped = (DEFAULT_AGENT / name).exists()

    def check(text: str) -> Path:
        found = config_keys(part_folder(text))
        # Runs of other days may lack a field of today's, or have one more.
        is_other = 2 * len(found & keys) < len(found) or bool(found) != bool(keys)
        if is_shipped and is_other:
            raise argparse.ArgumentTypeError(f"{text} is no {name}: it holds another part")
        return Path(text)

    return check


def config_keys(folder: Path) -> set[str]:
    """The fields in a part's config.json; the lexicon has none."""
    try:
        return set(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError):
        return set()


def add_part(parser, name: str, help: str = "") -> None:
    """`--NAME FOLDER`: a trained part of the agent, by default that of the shipped agent."""
    parser.add_argument(
        f"--{name}",
        type=folder_of(name),
        default=DEFAULT_AGENT / name,
        metavar="FOLDER",
        help=f"{help or f'folder of the {name}'} (default: the shipped agent's)",
    )


def tokenizer_folder(text: str) -> Path:
    """A folder with a tokenizer."""
    if not any(Path(text).glob("tokenizer.json*")):
        raise argparse.ArgumentTypeError(f"{text} is no folder with a tokenizer.json")
    return Path(text)


def add_tokenizer(parser) -> None:
    """`--tokenizer FOLDER`."""
    parser.add_argument(
        "--tokenizer",
        type=tokenizer_folder,
        default=DEFAULT_AGENT,
        metavar="FOLDER",
        help="folder with the LM's tokenizer.json (default: the shipped agent's)",
    )


def add_backbone(parser) -> None:
    """`--backbone PATH`, see `backbone_path`."""
    parser.add_argument(
        "--backbone",
        type=Path,
        help="GGUF file of a Llama-family LM, or a folder of transformers "
        "(default: SmolLM2-135M-Instruct, fetched once)",
    )


def backbone_path(given: Path | None) -> Path:
    """What --backbone says, or the file of SmolLM2. SystemExit where it cannot be fetched.

    A folder may hold nothing but a GGUF file, as those of duplex.weights do.
    """
    if given:
        files = list(given.glob("*.gguf")) if given.is_dir() else []
        return files[0] if len(files) == 1 else given
    try:
        return next(weights.smollm2().glob("*.gguf"))
    except WeightsError as error:
        raise SystemExit(f"{error}.") from error


def whisper_path(given: Path) -> Path:
    """What --whisper says; "fetched" stands for Whisper tiny.en, fetched once.

    SystemExit where it cannot be, or is no file.
    """
    if str(given) == "fetched":
        try:
            return weights.whisper_tiny() / "model.bin"
        except WeightsError as error:
            raise SystemExit(f"{error}.") from error
    if not given.is_file():
        raise SystemExit(f"There is no file {given}.")
    return given


def add_noise(parser) -> None:
    """`--noise FOLDER`."""
    parser.add_argument(
        "--noise",
        type=noise_folder,
        metavar="FOLDER",
        help="data folder whose audio.jsonl lists noises; without it none are added",
    )


def noise_folder(text: str) -> Path:
    """A folder that lists sounds."""
    if not (Path(text) / "audio.jsonl").is_file():
        raise argparse.ArgumentTypeError(f"{text} holds no audio.jsonl, which lists its sounds")
    return Path(text)


def add_length(parser, minutes: float | None = None, steps: int | None = None) -> None:
    """`--minutes M` or `--steps N`: how long a run is; one of the two has a default."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes",
        type=number_above_zero,
        default=minutes,
        help="length of the whole run, all restarts together" + told(minutes),
    )
    length.add_argument(
        "--steps",
        type=count_above_zero,
        default=steps,
        help="the same in steps: the same run, however fast the machine" + told(steps),
    )


def told(default) -> str:
    """The default in an option's help."""
    return f" (default {default:g})" if default else ""


def add_run(parser, lr: float) -> None:
    """Where a run is written, how fast it learns, and how it can be repeated."""
    parser.add_argument(
        "--out", type=folder_to_make, required=True, help="folder of the run; a run resumes there"
    )
    parser.add_argument(
        "--lr", type=number_above_zero, default=lr, help="highest learning rate" + told(lr)
    )
    parser.add_argument(
        "--save-minutes",
        type=float,
        default=3.0,
        help="minutes from one save of the run to the next (default 3)",
    )
    parser.add_argument(
        "--threads", type=count_above_zero, default=1, help="of the processor (default 1)"
    )
    parser.add_argument("--seed", type=int, default=1, help="(default 1)")


def add_minutes(parser, minutes: float) -> None:
    """`--minutes M` alone."""
    parser.add_argument(
        "--minutes",
        type=number_above_zero,
        default=minutes,
        help="length of the whole run, all restarts together" + told(minutes),
    )
