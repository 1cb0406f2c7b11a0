"""`duplex talk` in tmux through the real PortAudio, on a PulseAudio of null sinks."""

import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duplex.audio import SAMPLE_RATE
from tests.client import pulse
from tests.client.test_talk_tmux import Terminal
from tests.helpers import tone

sounddevice = pytest.importorskip("sounddevice", reason="there is no PortAudio")
pytestmark = [
    # A PulseAudio of its own may stand still on a busy machine.
    pytest.mark.clients,
    pytest.mark.skipif(
        not (pulse.is_there() and shutil.which("tmux")), reason="PulseAudio or tmux is not here"
    ),
]


@pytest.fixture
def said(tmp_path) -> Path:
    """What the microphone hears, in the folder of the PulseAudio."""
    folder = tmp_path / "pulse"
    folder.mkdir()
    pieces = [np.zeros(SAMPLE_RATE // 2), tone(10), np.zeros(2 * SAMPLE_RATE)]
    path = folder / "said.wav"
    soundfile.write(path, np.tile(np.concatenate(pieces), 60), SAMPLE_RATE)
    return path


def talk(folder: Path, environment: dict, server_url: str) -> Terminal:
    """`duplex talk` in a terminal, with the devices of a PulseAudio."""
    names = ("HOME", "XDG_RUNTIME_DIR", "PULSE_SERVER")
    command = ["env", *(f"{name}={environment[name]}" for name in names), sys.executable]
    return Terminal(folder, [*command, "-m", "duplex", "talk", "--server", server_url])


def test_a_call_through_portaudio(server_url, tmp_path, said):
    """It hears and is heard, at the devices' own rate, and all is kept."""
    with pulse.pulse(said.parent) as environment, pulse.sound_in_the_room(environment, said):
        terminal = talk(tmp_path, environment, server_url)
        try:
            terminal.wait(r"agent  Echo0.*  \d\.\d\d s\n")
            terminal.keys("C-c")
            terminal.wait("ended 0")
            assert "Expression" not in terminal.screen()
        finally:
            terminal.close()
    [kept] = (tmp_path / "talk").iterdir()
    stereo, _ = soundfile.read(kept / "conversation.wav")
    assert np.abs(stereo).max(axis=0).min() > 0.05


def test_a_killed_sound_server_is_told_and_taken_back(server_url, tmp_path, said):
    """Ctrl-C, while PortAudio may hang in a device that is gone, keeps what there is at once."""
    with pulse.pulse(said.parent) as environment:
        terminal = talk(tmp_path, environment, server_url)
        try:
            terminal.wait("listening")
            pulse.kill(said.parent)
            terminal.wait("the sound device is gone")
            with pulse.pulse(said.parent):
                terminal.wait(lambda text: "the sound device is gone" not in text)
                pulse.kill(said.parent)
            terminal.wait("the sound device is gone")
            asked_at = time.time()
            terminal.keys("C-c")
            terminal.wait("ended 0")
        finally:
            terminal.close()
    [kept] = (tmp_path / "talk").iterdir()
    # At once: the picture after it takes seconds, and PortAudio may hang for ever.
    assert (kept / "transcript.vtt").stat().st_mtime - asked_at < 5
    assert soundfile.info(kept / "conversation.wav").duration > 1
