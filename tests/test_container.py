"""The container's recipe against the tree: what it copies is there, and its command is one of ours.

No builder is needed; whoever has one builds it as the recipe's first lines say.
"""

import json
import re
import tomllib
from pathlib import Path

from duplex import cli

ROOT = Path(__file__).parents[1]
RECIPE = (ROOT / ".ci/Dockerfile").read_text(encoding="utf-8")


def test_all_parts_of_the_package_are_copied():
    copied = {
        name for line in re.findall(r"^COPY (.+) \S+$", RECIPE, re.M) for name in line.split()
    }
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = set(project["tool"]["setuptools"]["package-dir"].values())
    assert folders | {"pyproject.toml", project["project"]["readme"]} <= copied
    sent = (ROOT / ".ci/Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{name}" for name in copied} <= set(sent)


def test_its_commands_are_ours():
    """The default command, and the one for a GPU, as the recipe's comment gives it."""
    command = json.loads(re.search(r"^CMD (\[.*\])$", RECIPE, re.M).group(1))
    on_gpu = re.search(r"^#\s+(serve .*--compute cuda)$", RECIPE, re.M).group(1)
    for words in (command, on_gpu.split()):
        assert words[0] == "serve"
        assert cli._parser().parse_args(words).host == "0.0.0.0"
