"""Stands for sounddevice: devices of one rate and number of channels, which may be lost."""

import threading
import time
from dataclasses import dataclass, field

import numpy as np


class PortAudioError(Exception):
    """As sounddevice raises it."""


class Times:
    """When a block was heard and will be played."""

    # PortAudio's names.
    currentTime = 10.0  # noqa: N815
    outputBufferDacTime = 10.1  # noqa: N815


@dataclass
class PortAudio:
    """One microphone and one loudspeaker; `sound` gives what is heard, [N] at the card's rate."""

    rate: int = 48_000
    channels: tuple[int, int] = (1, 1)
    default_rate: int = 48_000
    most: tuple[int, int] = (2, 2)
    sound: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    # Whether it gives blocks, and whether it can be opened.
    is_there: bool = True
    # Devices that cannot be opened.
    broken: tuple = ()
    # Runs so many times faster than real time.
    speed: float = 1.0
    opened: list[dict] = field(default_factory=list)
    played: list[np.ndarray] = field(default_factory=list)
    PortAudioError = PortAudioError

    def query_devices(self, device=None, kind=None):
        """One device, whatever it is called; without a name the list of all."""
        found = {
            "index": 0,
            "name": "stub",
            "default_samplerate": float(self.default_rate),
            "max_input_channels": self.most[0],
            "max_output_channels": self.most[1],
            "hostapi": 0,
        }
        return [found] if device is None and kind is None else found

    def query_hostapis(self, number):
        return {"name": "ALSA"}

    def _initialize(self):
        pass

    _terminate = _initialize

    def Stream(self, **options):  # noqa: N802
        """Opens it where rate and channels are right."""
        if not self.is_there:
            raise PortAudioError("Device unavailable [PaErrorCode -9985]")
        if set(options["device"]) & set(self.broken):
            raise PortAudioError("Device unavailable [PaErrorCode -9985]")
        if options["samplerate"] != self.rate:
            raise PortAudioError("Invalid sample rate [PaErrorCode -9997]")
        if options["channels"] != self.channels:
            raise PortAudioError("Invalid number of channels [PaErrorCode -9998]")
        self.opened.append(options)
        return Stream(self, options)


class Stream:
    """Calls back from a thread of its own."""

    def __init__(self, card: PortAudio, options: dict):
        self.samplerate = options["samplerate"]
        self._card = card
        self._options = options
        self._ended = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="stub", daemon=True).start()

    def close(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        frames = self._options["blocksize"]
        sides = self._options["channels"]
        due = time.monotonic()
        while not self._ended.is_set() and self._card.is_there:
            heard = self._card.sound[:frames]
            self._card.sound = self._card.sound[frames:]
            block = np.zeros((frames, sides[0]), np.float32)
            block[: len(heard), 0] = heard
            played = np.full((frames, sides[1]), np.nan, np.float32)
            self._options["callback"](block, played, frames, Times, None)
            self._card.played.append(played)
            due += frames / self.samplerate / self._card.speed
            time.sleep(max(0.0, due - time.monotonic()))
