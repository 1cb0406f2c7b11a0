"""Microphone and loudspeaker through sounddevice: any devices, at their own rate and channels."""

import asyncio
import contextlib
import itertools
import queue
import threading
import time
from dataclasses import dataclass

import numpy as np

from duplex.audio import SAMPLE_RATE, TICK_MS, TICK_SAMPLES
from duplex.client.sound.jitter_buffer import Playback
from duplex.client.terminal import console
from duplex.errors import ClientError
from duplex.resampling import Resampler
from duplex.serving.sound.sample_queue import SampleQueue


@dataclass(frozen=True)
class SoundDevices:
    """Which sound cards, each by number or part of its name; None: the system's choice."""

    input: str | None = None
    output: str | None = None


@dataclass(frozen=True)
class CardConfig:
    """How a sound card is opened and watched."""

    # Rates to be tried after the devices' own.
    rates: tuple[int, ...] = (48_000, 44_100, 24_000, 16_000)
    # Blocks a second that the card asks for.
    blocks_per_s: int = 50
    # Samples that are pulled for the loudspeaker at once: 2.5 ms.
    piece: int = TICK_SAMPLES // 32
    # Seconds without a block after which the device is gone, and from one look for it to the next.
    lost_s: float = 1.0
    retry_s: float = 1.0
    # Ticks that may wait to be taken: half a minute.
    max_waiting_ticks: int = 375


def devices() -> str:
    """The sound cards as --list-devices prints them. Raises ClientError."""
    library = _sounddevice()
    found = library.query_devices()
    if not found:
        return (
            "no sound devices; on Linux: is PulseAudio or PipeWire running, and may you use it?\n"
            "without one duplex talk plays its recorded questions, or: duplex talk --input FILE"
        )
    chosen = [_default(library, side) for side in ("input", "output")]
    lines = [f"{'':2}{'':>3}  {'in':>3} {'out':>3}  {'Hz':>6}  name"]
    for number, device in enumerate(found):
        sides = [side for side, it in zip(("in", "out"), chosen, strict=True) if it == number]
        mark = f"   (would be used: {', '.join(sides)})" if sides else ""
        lines.append(
            f"{'* ' if sides else '  '}{number:>3}  {device['max_input_channels']:>3} "
            f"{device['max_output_channels']:>3}  {device['default_samplerate']:>6.0f}  "
            f"{device['name']}{mark}"
        )
    return "\n".join(lines)


def _default(library, side: str) -> int | None:
    try:
        return library.query_devices(kind=side)["index"]
    except Exception:
        # There is none: each sound system says so in its own way.
        return None


def has_sound() -> bool:
    """Whether this machine has a microphone and a loudspeaker."""
    try:
        library = _sounddevice()
    except ClientError:
        return False
    return None not in [_default(library, side) for side in ("input", "output")]


def _sounddevice():
    try:
        # PortAudio looks for all sound systems and tells stderr which are not there.
        with console.without_chatter(True):
            import sounddevice
    except OSError as error:
        raise ClientError(
            "no PortAudio library; on Debian: apt-get install libportaudio2"
        ) from error
    return sounddevice


class SoundCard:
    """Callback driven, in PortAudio's thread, which never waits; `with` it is open.

    Where the device is lost it is opened again as soon as it is there: see `mend`.
    """

    def __init__(
        self,
        chosen: SoundDevices | None = None,
        config: CardConfig | None = None,
        library=None,
    ):
        """library: sounddevice, or what stands for it. Raises ClientError."""
        self.chosen = chosen or SoundDevices()
        self.config = config or CardConfig()
        self.playback = Playback()
        # Ticks of the microphone that nobody took in time.
        self.dropped_ticks = 0
        # Of the agent's voice, what has left the loudspeaker.
        self.played_ms = 0
        # Devices by name and their rate, for people; and by number.
        self.name = ""
        self.in_use = self.chosen
        # Whole ticks: of the microphone, and what was played meanwhile.
        self._ticks: queue.Queue = queue.Queue(self.config.max_waiting_ticks)
        self._heard = SampleQueue()
        self._played = SampleQueue()
        self._ready = SampleQueue()
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._library = library or _sounddevice()
        self._stream = None
        # Held while it is opened: by `mend` and by `choose`.
        self._opening = threading.Lock()
        self._alive_at = time.monotonic()
        self._open()

    def __enter__(self) -> "SoundCard":
        self._start()
        return self

    def __exit__(self, *_) -> None:
        # A device that is gone may never answer.
        if not self.is_lost:
            self._stream.close()

    @property
    def is_lost(self) -> bool:
        """Whether the device gives nothing any more."""
        return time.monotonic() - self._alive_at > self.config.lost_s

    def take(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The next tick of the microphone and what was played meanwhile, float32 [1920] each.

        None where there is none yet.
        """
        self._arrived.clear()
        with contextlib.suppress(queue.Empty):
            return self._ticks.get_nowait()
        return None

    async def wait(self) -> None:
        """Until there may be a tick to take."""
        await self._arrived.wait()

    @property
    def waiting_ticks(self) -> int:
        """Ticks that wait to be taken."""
        return self._ticks.qsize()

    async def mend(self) -> None:
        """Look after the device for ever: open it again where it was lost."""
        while True:
            await asyncio.sleep(self.config.retry_s)
            if self.is_lost and not self._opening.locked():
                # A daemon: PortAudio may hang in it for ever, and the end must not wait for that.
                threading.Thread(target=self._try_again, name="reopen", daemon=True).start()

    def _try_again(self) -> None:
        with contextlib.suppress(ClientError, self._library.PortAudioError):
            self._open_again()

    def listed(self) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
        """(what SoundDevices takes, name) of each microphone, and of each loudspeaker."""
        found = list(enumerate(self._library.query_devices()))
        sides = [
            tuple((str(n), it["name"]) for n, it in found if it[f"max_{side}_channels"])
            for side in ("input", "output")
        ]
        return sides[0], sides[1]

    async def choose(self, chosen: SoundDevices) -> None:
        """Use other devices from now on. Raises ClientError, and the ones before go on."""
        before = self.chosen
        self.chosen = chosen
        try:
            await asyncio.to_thread(self._open_again)
        except (ClientError, self._library.PortAudioError) as error:
            self.chosen = before
            with contextlib.suppress(ClientError, self._library.PortAudioError):
                await asyncio.to_thread(self._open_again)
            raise ClientError(str(error)) from error

    def _open_again(self) -> None:
        with self._opening:
            self._close_and_open()

    def _close_and_open(self) -> None:
        with contextlib.suppress(self._library.PortAudioError):
            self._stream.close()
        # PortAudio lists devices once, when it begins.
        self._library._terminate()
        self._library._initialize()
        self._open()
        self._start()

    def _start(self) -> None:
        self._stream.start()
        self._alive_at = time.monotonic()

    def _open(self) -> None:
        """One stream for both devices, at the first rate and channels that they take."""
        pair = [self._find(name) for name in (self.chosen.input, self.chosen.output)]
        sides = [self._describe(*side) for side in zip(pair, ("input", "output"), strict=True)]
        own = [round(side["default_samplerate"]) for side in sides]
        rates = list(dict.fromkeys([*own, *self.config.rates]))
        most = [sides[0]["max_input_channels"], sides[1]["max_output_channels"]]
        channels = [list(dict.fromkeys([1, min(2, count), count])) for count in most]
        error = None
        for rate, *counts in itertools.product(rates, *channels):
            try:
                self._stream = self._library.Stream(
                    samplerate=rate,
                    blocksize=rate // self.config.blocks_per_s,
                    device=tuple(pair),
                    channels=tuple(counts),
                    dtype="float32",
                    latency="low",
                    callback=self._exchange,
                    extra_settings=self._settings(sides),
                )
            except (self._library.PortAudioError, ValueError) as reason:
                error = error or reason
                continue
            self._in = Resampler(rate, SAMPLE_RATE)
            self._out = Resampler(SAMPLE_RATE, rate)
            self.name = f"{sides[0]['name']} / {sides[1]['name']}, {rate} Hz"
            self.in_use = SoundDevices(*(str(side["index"]) for side in sides))
            return
        raise self._unusable(error) from error

    def _find(self, name: str | None) -> int | str | None:
        return int(name) if name is not None and name.isdigit() else name

    def _describe(self, device: int | str | None, side: str) -> dict:
        try:
            return self._library.query_devices(device, side)
        except (self._library.PortAudioError, ValueError) as error:
            raise self._unusable(error) from error

    def _settings(self, sides: list[dict]):
        """Windows' WASAPI takes other rates only where it is asked to."""
        if "WASAPI" not in self._library.query_hostapis(sides[0]["hostapi"])["name"]:
            return None
        return self._library.WasapiSettings(auto_convert=True)

    def _unusable(self, error: Exception) -> ClientError:
        names = [name for name in (self.chosen.input, self.chosen.output) if name is not None]
        what = f"the sound device {names[0]!r}" if names else "the sound card"
        reason = str(error).splitlines()[0].rstrip(".")
        return ClientError(f"cannot use {what} ({reason}); see duplex talk --list-devices")

    def _exchange(self, heard, played, frames, times, status) -> None:
        """One block of each: heard and played are float32 [frames, channels]."""
        self._alive_at = time.monotonic()
        # Milliseconds until what is pulled now can be heard.
        waiting_ms = 1000 * max(0.0, times.outputBufferDacTime - times.currentTime)
        waiting_ms += 1000 * len(self._ready) / self._stream.samplerate
        self.played_ms = max(self.played_ms, self.playback.passed_ms - round(waiting_ms))
        while len(self._ready) < frames:
            piece = self.playback.pull(self.config.piece)
            self._played.push(piece)
            self._ready.push(self._out.process(piece))
        # A voice is one channel: the first two loudspeakers have it, others stay silent.
        played[:] = 0.0
        played[:, :2] = self._ready.take(frames)[:, None]
        self._heard.push(self._in.process(heard[:, 0].copy()))
        if min(len(self._heard), len(self._played)) >= TICK_SAMPLES:
            self._hand_over(self._heard.take(TICK_SAMPLES), self._played.take(TICK_SAMPLES))

    def _hand_over(self, heard: np.ndarray, played: np.ndarray) -> None:
        try:
            self._ticks.put_nowait((heard, played))
        except queue.Full:
            self.dropped_ticks += 1
        # The loop may have closed.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._arrived.set)

    @property
    def dropped_ms(self) -> int:
        """Of both directions, what nobody took or played in time."""
        return self.playback.dropped_ms + self.dropped_ticks * TICK_MS
