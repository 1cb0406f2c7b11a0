"""`duplex talk` in a real terminal: tmux, with a stub of PortAudio and a tiny agent's server."""

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import soundfile

from tests.client.proxy import Proxy
from tests.helpers import MS

ROOT = Path(__file__).parents[2]
TMUX = shutil.which("tmux")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(TMUX is None, reason="there is no tmux here"),
]


class Terminal:
    """One window of a tmux server of its own."""

    def __init__(self, folder: Path, command: list[str]):
        self._tmux = [TMUX, "-S", str(folder / "tmux")]
        program = f"PYTHONPATH={ROOT} {shlex.join(command)}; echo ended $?; sleep 60"
        self._run("new-session", "-d", "-x", "100", "-y", "30", "-c", str(folder), program)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run([*self._tmux, *arguments], capture_output=True, text=True)
        return done.stdout

    def screen(self) -> str:
        """All lines, also those that were scrolled away."""
        return self._run("capture-pane", "-p", "-S", "-200")

    def keys(self, *names: str) -> None:
        self._run("send-keys", *names)

    def wait(self, pattern: str | Callable[[str], bool], patience_s: float = 60_000 * MS) -> str:
        """The screen as soon as something is on it."""
        is_so = pattern if callable(pattern) else lambda text: re.search(pattern, text)
        until = time.monotonic() + patience_s
        while not is_so(text := self.screen()):
            assert time.monotonic() < until, text
            time.sleep(0.05)
        return text

    def close(self) -> None:
        self._run("kill-server")


@pytest.fixture
def proxy(server_url) -> Iterator[Proxy]:
    with Proxy(int(server_url.split(":")[2].split("/")[0])) as proxy:
        yield proxy


@pytest.fixture
def terminal(proxy, tmp_path) -> Iterator[Terminal]:
    program = str(ROOT / "tests" / "client" / "stub_talk.py")
    terminal = Terminal(tmp_path, [sys.executable, program, f"127.0.0.1:{proxy.port}"])
    yield terminal
    terminal.close()


def test_a_call_in_a_terminal(terminal, proxy, tmp_path):
    """Whole turns scroll, keys work, a cut is told, and Ctrl-C keeps all of it."""
    terminal.wait(r"agent  Echo0 echo1.*  \d\.\d\d s\n")
    shown = terminal.wait(r"you    Word0 word1.*\n.*\n[^\n]*you    Word0")
    # No turn is torn, and none is written twice.
    turns = [line for line in shown.splitlines() if re.match(r"\d\d:\d\d  ", line)]
    assert all(re.search(r"  (you    Word0|agent  Echo0)", line) for line in turns)
    assert len(turns) == len(set(turns))
    assert re.search(r"answer \d\.\d\d s · buffer \d+/\d+ ms · \d+ gap", shown)

    terminal.keys("m")
    terminal.wait("you are muted")
    terminal.keys("m", "Enter", "hello there")
    terminal.wait("type: hello there")
    terminal.keys("Enter")
    terminal.wait(r"you    Hello there\n")

    proxy.is_closed = True
    proxy.cut()
    terminal.wait("connection lost; trying again")
    began = time.monotonic()
    terminal.keys("C-c")
    terminal.wait("ended 0")
    assert time.monotonic() - began < 30
    [folder] = (tmp_path / "talk").iterdir()
    text = (folder / "transcript.txt").read_text()
    assert "you: Word0 word1" in text and "agent: Echo0 echo1" in text and "Hello there" in text
    stereo, _ = soundfile.read(folder / "conversation.wav")
    assert len(stereo) > 24_000 * 4
    assert "turns · answers" in terminal.screen()
