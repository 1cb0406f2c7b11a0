"""`duplex talk` in tmux through the real PortAudio, on a PulseAudio of null sinks."""

import shutil
import sys

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


def test_a_call_through_portaudio(server_url, tmp_path):
    """It hears and is heard, at the devices' own rate, and all is kept."""
    folder = tmp_path / "pulse"
    folder.mkdir()
    pieces = [np.zeros(SAMPLE_RATE // 2), tone(10), np.zeros(2 * SAMPLE_RATE)]
    said = folder / "said.wav"
    soundfile.write(said, np.tile(np.concatenate(pieces), 60), SAMPLE_RATE)
    with pulse.pulse(folder) as environment, pulse.sound_in_the_room(environment, said):
        names = ("HOME", "XDG_RUNTIME_DIR", "PULSE_SERVER")
        command = ["env", *(f"{name}={environment[name]}" for name in names), sys.executable]
        command += ["-m", "duplex", "talk", "--server", server_url]
        terminal = Terminal(tmp_path, command)
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
