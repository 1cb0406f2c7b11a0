"""Raw sound on standard input and output in place of a sound card."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from duplex.serving.native import messages as native
from tests.helpers import tone

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_what_is_piped_in_is_answered_on_the_pipe(server_url, tmp_path):
    """Only sound comes out of it; the words go to stderr."""
    command = [sys.executable, "-m", "duplex", "talk", "--server", server_url]
    done = subprocess.run(
        [*command, "--input", "-", "--output", "-"],
        input=native.encode_audio(np.concatenate([np.zeros(9600), tone(8), np.zeros(9600)])),
        capture_output=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    sound = native.decode_audio(done.stdout)
    loud = np.flatnonzero(np.abs(sound) > 0.05)
    assert len(loud) > 10_000 and loud[0] > 9600
    assert "agent> Echo0 echo1" in done.stderr.decode()
    assert not (tmp_path / "talk").exists()
