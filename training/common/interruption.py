"""Ctrl-C lets a run finish its step and save itself; a second one ends it at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Interruption:
    """Whether somebody wants the run to end."""

    is_wanted: bool = False


@contextmanager
def finishing_steps() -> Iterator[Interruption]:
    """Inside, the first Ctrl-C is only noted; afterwards it means what it meant before."""
    found = Interruption()

    def note(*_) -> None:
        found.is_wanted = True
        signal.signal(signal.SIGINT, before)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # Another thread than the main one hears no signals.
        yield found
        return
    try:
        yield found
    finally:
        signal.signal(signal.SIGINT, before)
