"""Runs the page's modules under node, where there is one."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")


def run(what: str, given):
    """What a function of page.mjs answers."""
    command = ["node", str(Path(__file__).parent / "page.mjs")]
    asked = json.dumps({"what": what, "input": given})
    done = subprocess.run(command, input=asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
