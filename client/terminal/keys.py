"""Keys pressed in a conversation, read without waiting and without an echo on the terminal."""

import asyncio
import codecs
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from duplex.serving.native.commands import MAX_TEXT

# By key: what is wanted.
KEYS = {
    "m": "mute",
    " ": "talk",
    "p": "push",
    "\r": "type",
    "\n": "type",
    "\x1b": "interrupt",
    "d": "devices",
    "r": "restart",
    "q": "quit",
    "\x04": "quit",
    "\x03": "quit",
}


@dataclass(frozen=True)
class Typing:
    """A line that is being typed; None: keys are commands."""

    line: str | None = None

    def press(self, key: str) -> tuple["Typing", tuple[str, str] | None]:
        """After a key: what is typed then, and what is wanted, ("write", the line) for example."""
        if self.line is None:
            wanted = KEYS.get(key)
            if wanted == "type":
                return Typing(""), None
            return self, (wanted, "") if wanted else None
        match key:
            case "\r" | "\n":
                text = self.line.strip()
                return Typing(), ("write", text) if text else None
            case "\x1b":
                return Typing(), None
            case "\x03" | "\x04":
                return Typing(), ("quit", "")
            case "\x7f" | "\b":
                return replace(self, line=self.line[:-1]), None
        fits = key.isprintable() and len(self.line) < MAX_TEXT
        return (replace(self, line=self.line + key) if fits else self), None


@contextlib.contextmanager
def pressed(on_key: Callable[[str], None]) -> Iterator[bool]:
    """Call `on_key` for each key while the block goes on; gives whether there is a keyboard.

    Special keys, which begin with Escape and go on at once, are left out.
    """
    try:
        import termios
        import tty

        number = sys.stdin.fileno()
        before = termios.tcgetattr(number)
    except (ImportError, OSError, ValueError, termios.error):
        # Windows, or no terminal.
        yield False
        return

    # What is pasted comes in pieces, which may end within a letter.
    decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")

    def read() -> None:
        text = decoder.decode(os.read(number, 1024))
        if text.startswith("\x1b") and len(text) > 1:
            return
        for key in text:
            on_key(key)

    loop = asyncio.get_running_loop()
    tty.setcbreak(number)
    loop.add_reader(number, read)
    try:
        yield True
    finally:
        loop.remove_reader(number)
        termios.tcsetattr(number, termios.TCSADRAIN, before)
