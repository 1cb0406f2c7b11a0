"""What a conversation does with its process: Ctrl-C, stderr, progress, raw sound on stdout."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator

import numpy as np

from duplex.agent_interface import AgentInterface
from duplex.serving.native import messages as native


def stop_by_ctrl_c(stop: asyncio.Event) -> None:
    """Have the first Ctrl-C set `stop`; the second, or one after the talk, ends the program."""
    loop = asyncio.get_running_loop()

    def interrupt(*_) -> None:
        if stop.is_set() or loop.is_closed():
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(stop.set)

    # loop.add_signal_handler would use the pipe through which the sound card's thread wakes the
    # loop.
    signal.signal(signal.SIGINT, interrupt)


@contextlib.contextmanager
def without_chatter(is_hidden: bool) -> Iterator[None]:
    """What PortAudio and ALSA write to stderr tears the screen; our own notes stay."""
    if not is_hidden:
        yield
        return
    kept = os.dup(2)
    before = sys.stderr
    with open(os.devnull, "w") as nowhere, os.fdopen(os.dup(kept), "w", buffering=1) as ours:
        os.dup2(nowhere.fileno(), 2)
        sys.stderr = ours
        try:
            yield
        finally:
            sys.stderr = before
            os.dup2(kept, 2)
            os.close(kept)


def with_clock(load: Callable[[], AgentInterface]) -> Callable[[], AgentInterface]:
    """The same, and a terminal shows how long it takes."""

    def loading() -> AgentInterface:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = SpinnerColumn(), TextColumn("the agent is being loaded"), TimeElapsedColumn()
        console = Console(stderr=True)
        if not console.is_terminal:
            return load()
        with Progress(*columns, console=console, transient=True) as progress:
            progress.add_task("", total=None)
            return load()

    return loading


def write_raw(played: np.ndarray) -> None:
    """A tick of the agent's voice, as PCM16 to standard output."""
    sys.stdout.buffer.write(native.encode_audio(played))
    sys.stdout.buffer.flush()
