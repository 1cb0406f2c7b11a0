"""A PulseAudio of a test's own: null sinks for a loudspeaker and for the room of a microphone."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("pulseaudio", "pactl", "paplay")
SETTINGS = "pcm.!default { type pulse }\nctl.!default { type pulse }\n"


def is_there() -> bool:
    """Whether this machine has it."""
    return all(shutil.which(program) for program in PROGRAMS)


@contextlib.contextmanager
def running(command: list[str], environment: dict, log: Path) -> Iterator[subprocess.Popen]:
    """A program beside the test; what it writes goes to the log."""
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@contextlib.contextmanager
def pulse(folder: Path) -> Iterator[dict]:
    """One that runs; gives the environment in which it is the one that is used, by ALSA as well."""
    (folder / ".asoundrc").write_text(SETTINGS)
    environment = {**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    socket = folder / "pulse.sock"
    socket.unlink(missing_ok=True)
    modules = [
        "module-null-sink sink_name=loudspeaker",
        "module-null-sink sink_name=room",
        "module-remap-source master=room.monitor source_name=microphone",
        f"module-native-protocol-unix socket={socket} auth-anonymous=1",
    ]
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"]
    command += [word for module in modules for word in ("-L", module)]
    log = folder / "pulse.log"
    with running(command, environment, log) as process:
        while not socket.exists():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        environment["PULSE_SERVER"] = f"unix:{socket}"
        for side, name in (("sink", "loudspeaker"), ("source", "microphone")):
            subprocess.run(["pactl", f"set-default-{side}", name], env=environment, check=True)
        yield environment


def kill(folder: Path) -> None:
    """End the one of this folder as a crash would; another may be started in its place."""
    number = folder / "pulse" / "pid"
    os.kill(int(number.read_text()), signal.SIGKILL)
    number.unlink()


@contextlib.contextmanager
def sound_in_the_room(environment: dict, path: Path) -> Iterator[None]:
    """A sound file that the microphone hears."""
    command = ["paplay", "--device=room", str(path)]
    with running(command, environment, path.with_suffix(".log")):
        yield
