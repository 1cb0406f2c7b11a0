"""The wheel: one import package that holds all code and data, and works away from the clone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Where each folder of the clone is in the wheel.
FOLDERS = {"duplex": "duplex", "client": "duplex/client", "training": "duplex/training"}
# The page, the questions, the scenes, the texts and the agent are among the data.
DATA = (
    "duplex/client/web/index.html",
    "duplex/client/questions/",
    "duplex/bench/scene_set/scenes.json",
    "duplex/training/texts/",
    "duplex/pretrained/tokenizer.json",
    "duplex/pretrained/lm/model.safetensors",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built once, without the network, from a copy: a build leaves its own files in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / "tree" / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "tree")
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    command = [sys.executable, "-m", "pip", *build, folder / "tree"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [found] = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel's content, as installed."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(site: Path, where: Path, *arguments: str) -> str:
    """What Python prints with the wheel in its path, started in another folder."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_has_one_top_level_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"duplex"}


def test_wheel_has_all_code_and_data_of_the_tree(wheel):
    """Documents beside the code stay out, with their pictures, but for the agent's card."""
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, package in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
        and not {"__pycache__", "pictures"} & {*path.parts}
        and path.suffix != ".md"
    }
    assert not expected - in_wheel
    for data in DATA:
        assert any(name.startswith(data) for name in in_wheel), data


def test_wheel_is_imported_from_another_folder(site, tmp_path):
    program = (
        "import duplex.client.recorded, duplex.training.prepare;"
        "from duplex.weights import DEFAULT_AGENT;"
        "print(duplex.__file__, DEFAULT_AGENT.is_dir())"
    )
    assert run(site, tmp_path, "-c", program).split() == [f"{site}/duplex/__init__.py", "True"]
    assert run(site, tmp_path, "-m", "duplex", "--version").startswith("duplex ")
    [entry_points] = site.glob("*.dist-info/entry_points.txt")
    assert "duplex = duplex.cli:main" in entry_points.read_text()


def test_a_users_own_modules_hide_nothing(site, tmp_path):
    for name in ("client", "training"):
        (tmp_path / f"{name}.py").write_text("MINE = True\n")
    program = (
        "import client, training, duplex.client.recorded, duplex.training.prepare;"
        "assert client.MINE and training.MINE"
    )
    run(site, tmp_path, "-c", program)
