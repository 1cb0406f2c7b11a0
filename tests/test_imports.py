"""Which layer may import which: the drawing of the tree in README, held against the code."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("agent", "bench", "client", "cpu", "device", "mind", "model", "serving", "training")
NEVER = {
    "root": {*LAYERS},
    "model": {"agent", "bench", "client", "cpu", "device", "mind", "serving", "training"},
    "mind": {"agent", "bench", "client", "cpu", "device", "model", "serving", "training"},
    "cpu": {"agent", "bench", "client", "device", "mind", "serving", "training"},
    "device": {"bench", "client", "cpu", "serving", "training"},
    "agent": {"bench", "client", "device", "serving", "training"},
    "serving": {"agent", "bench", "client", "cpu", "device", "mind", "model", "training"},
    "client": {"agent", "bench", "cpu", "device", "mind", "model", "training"},
    "bench": {"training"},
    "training": {"device", "serving"},
}
FREE = ("duplex/cli.py",)  # the command line brings the layers together, each inside a function
# A layer that these modules alone may import.
ONLY = {"cpu": {"duplex/agent/loader.py", "training/scenes/recognition.py"}}


def sources() -> list[Path]:
    return [path for top in ("duplex", "client", "training") for path in (ROOT / top).rglob("*.py")]


def layer(name: str) -> str:
    """duplex.model.lm -> model; duplex.audio -> root."""
    part = name.split(".")[1] if "." in name else ""
    return part if part in LAYERS else "root"


def module(path: Path) -> str:
    """The name by which a file of the clone is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "duplex" else ("duplex", *parts))


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_layers(path):
    """No layer imports one above it, and the parts of duplex go by one name each."""
    here = str(path.relative_to(ROOT))
    for name in imports(path):
        assert name.split(".")[0] not in ("client", "training"), (
            f"{here} imports {name}: it is duplex.{name}"
        )
        if not name.startswith("duplex.") or here in FREE:
            continue
        assert layer(name) not in NEVER[layer(module(path))], f"{here} imports {name}"
        if layer(name) in ONLY and layer(name) != layer(module(path)):
            assert here in ONLY[layer(name)], f"{here} imports {name}"


def test_a_training_program_imports_no_program():
    """Programs stand at the top of training/; what two of them share is in a folder."""
    programs = {module(path) for path in (ROOT / "training").glob("*.py")}
    for path in (ROOT / "training").rglob("*.py"):
        found = imports(path)
        shared = {p for p in programs for name in found if f"{name}.".startswith(f"{p}.")}
        evaluation = "evaluation" in path.parts or path.stem == "evaluate"
        assert evaluation or not shared, f"{path.relative_to(ROOT)} imports {shared}"


@pytest.mark.parametrize("name", ["duplex.client", "duplex.training"])
def test_parts_are_those_of_this_clone(name):
    """Though the virtual environment may know another one."""
    assert Path(importlib.import_module(name).__file__).is_relative_to(ROOT)
