"""Raw sound on standard input and output in place of a sound card: PCM16, 24 kHz, mono.

arecord -t raw -f S16_LE -r 24000 | duplex talk --input - --output - | aplay -f S16_LE -r 24000
"""

import asyncio
import contextlib
import os
import sys
import threading
from typing import BinaryIO

import numpy as np

from duplex.audio import AUDIBLE, TICK_S, TICK_SAMPLES
from duplex.client.sound.jitter_buffer import Playback
from duplex.serving.native import messages as native
from duplex.serving.sound.sample_queue import SampleQueue


class PipeCard:
    """Has the methods of a SoundCard. Time goes by the clock, whatever comes and when."""

    name = "standard input"
    is_lost = False
    dropped_ticks = 0

    def __init__(
        self,
        stop: asyncio.Event,
        source: BinaryIO | None = None,
        sink: BinaryIO | None = None,
        patience_s: float = 6.0,
    ):
        """stop: is set when the input is over and the agent silent for `patience_s` since.

        sink: None: what the agent says is not written anywhere.
        """
        self._stop = stop
        self._patience_s = patience_s
        self.playback = Playback()
        self._source = source or sys.stdin.buffer
        self._sink = sink
        self._heard = SampleQueue()
        self._has_ended = False
        # Seconds of silence that were heard since the input's end.
        self._quiet_s = 0.0
        self._due: float | None = None
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> "PipeCard":
        threading.Thread(target=self._read, name="stdin", daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        pass

    @property
    def played_ms(self) -> int:
        """Of the agent's voice, what was written."""
        return self.playback.passed_ms

    @property
    def dropped_ms(self) -> int:
        """What was thrown away."""
        return self.playback.dropped_ms

    @property
    def waiting_ticks(self) -> int:
        """A pipe is read no faster than it is heard."""
        return 0

    def take(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The tick that is due, float32 [1920] of each side; None before its time."""
        now = self._loop.time()
        if self._due is None:
            self._due = now + TICK_S
        if now < self._due:
            return None
        self._due += TICK_S
        heard = self._heard.take(TICK_SAMPLES)
        played = self.playback.pull(TICK_SAMPLES)
        is_quiet = self._has_ended and not len(heard) and np.abs(played).max() < AUDIBLE
        self._quiet_s = self._quiet_s + TICK_S if is_quiet else 0.0
        if self._quiet_s > self._patience_s:
            self._stop.set()
        self._write(played)
        return np.pad(heard, (0, TICK_SAMPLES - len(heard))), played

    async def wait(self) -> None:
        """Until a tick is due."""
        await asyncio.sleep(max(0.0, (self._due or 0.0) - self._loop.time()))

    async def mend(self) -> None:
        """Nothing breaks here."""

    def listed(self) -> tuple[tuple, tuple]:
        """There are no devices."""
        return (), ()

    def _write(self, played: np.ndarray) -> None:
        if self._sink is None:
            return
        try:
            self._sink.write(native.encode_audio(played))
            self._sink.flush()
        except BrokenPipeError:
            # Whoever read it has gone.
            self._sink = None

    def _read(self, ahead: int = 100 * TICK_SAMPLES) -> None:
        """In a thread: what comes, in whole samples, so much ahead of its time at most."""
        half = b""
        with contextlib.suppress(OSError, ValueError):
            while piece := os.read(self._source.fileno(), 2 * TICK_SAMPLES):
                piece = half + piece
                half = piece[len(piece) // 2 * 2 :]
                self._loop.call_soon_threadsafe(
                    self._heard.push, native.decode_audio(piece[: len(piece) // 2 * 2])
                )
                while len(self._heard) > ahead:
                    threading.Event().wait(TICK_S)
        self._has_ended = True
