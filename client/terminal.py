"""Live conversation: microphone and loudspeaker through sounddevice, the text on the terminal."""

import asyncio
import contextlib
import queue

import numpy as np

from duplex.audio import SAMPLE_RATE, TICK_MS, TICK_SAMPLES
from duplex.client.display import Display
from duplex.client.jitter_buffer import BLOCK_SAMPLES, Playback
from duplex.client.recording import Recording
from duplex.echo import EchoCanceller
from duplex.errors import ClientError


def devices() -> str:
    """A table of the sound cards, as --list-devices prints it. Raises ClientError."""
    return str(_sounddevice().query_devices()) or "no sound devices"


def has_sound() -> bool:
    """Whether this machine has a microphone and a loudspeaker."""
    try:
        sounddevice = _sounddevice()
        sounddevice.query_devices(kind="input")
        sounddevice.query_devices(kind="output")
    except Exception:
        # No library, no device or no sound system: each has an exception of its own.
        return False
    return True


def _sounddevice():
    try:
        import sounddevice
    except OSError as error:
        raise ClientError(
            "no PortAudio library; on Debian: apt-get install libportaudio2"
        ) from error
    return sounddevice


class SoundCard:
    """Callback driven streams, four blocks a tick; `with` it is open.

    The callbacks run in PortAudio's thread and never wait.
    """

    def __init__(self, device: str | None = None, max_waiting_ticks: int = 8):
        """device: number or part of a name.

        max_waiting_ticks: ticks of the microphone that may wait to be sent; beyond, they are
        dropped and counted.

        Raises ClientError.
        """
        self.playback = Playback()
        # Whole ticks: of the microphone, and what was played meanwhile.
        self.heard: queue.Queue[tuple[np.ndarray, np.ndarray]] = queue.Queue(max_waiting_ticks)
        self.dropped_ticks = 0
        # Of the agent's voice, what has left the loudspeaker.
        self.played_ms = 0
        # Blocks of a tick that is not complete.
        self._blocks: list[tuple[np.ndarray, np.ndarray]] = []
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        sounddevice = _sounddevice()
        chosen = int(device) if device is not None and device.isdigit() else device
        try:
            self._stream = sounddevice.Stream(
                samplerate=SAMPLE_RATE,
                blocksize=BLOCK_SAMPLES,
                device=chosen,
                channels=1,
                dtype="float32",
                latency="low",
                callback=self._exchange,
            )
        except (sounddevice.PortAudioError, ValueError) as error:
            name = "the sound card" if device is None else f"the sound device {device!r}"
            reason = str(error).splitlines()[0].rstrip(".")
            raise ClientError(
                f"cannot use {name} ({reason}); see duplex talk --list-devices"
            ) from error

    def __enter__(self) -> "SoundCard":
        self._stream.start()
        return self

    def __exit__(self, *_) -> None:
        self._stream.close()

    async def listen(self) -> tuple[np.ndarray, np.ndarray]:
        """The next tick of the microphone and what was played meanwhile, float32 [1920] each."""
        while True:
            self._arrived.clear()
            with contextlib.suppress(queue.Empty):
                return self.heard.get_nowait()
            await self._arrived.wait()

    def _exchange(self, heard, played, frames, time, status) -> None:
        """One block of each: heard and played are float32 [BLOCK_SAMPLES, 1]."""
        # Milliseconds until what is pulled now can be heard.
        waiting_ms = 1000 * (time.outputBufferDacTime - time.currentTime)
        self.played_ms = max(self.played_ms, self.playback.passed_ms - round(max(0.0, waiting_ms)))
        played[:, 0] = self.playback.pull(frames)
        self._blocks.append((heard[:, 0].copy(), played[:, 0].copy()))
        if sum(len(block) for block, _ in self._blocks) < TICK_SAMPLES:
            return
        tick = tuple(np.concatenate(part) for part in zip(*self._blocks, strict=True))
        self._blocks = []
        try:
            self.heard.put_nowait(tick)
        except queue.Full:
            self.dropped_ticks += 1
        # The loop may have closed.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._arrived.set)


async def live(
    session,
    card: SoundCard,
    display: Display,
    stop: asyncio.Event,
    keep: bool,
    echo: EchoCanceller | None = None,
) -> Recording:
    """Talk until `stop` is set or the session ends.

    keep: whether the recording holds sound and events; it grows for ever. echo: takes the
    loudspeaker out of what is sent and kept of the microphone.
    """
    recording = Recording()
    kept = recording if keep else None
    async with asyncio.TaskGroup() as tasks:
        playing = tasks.create_task(_play(session, card, display, kept, stop), name="play")
        while not stop.is_set() and not playing.done():
            tick = await _listen_until(card, stop)
            if tick is None:
                break
            heard, played = tick
            if echo is not None:
                heard = without_echo(echo, heard, played)
            await session.push(heard)
            await session.played(card.played_ms)
            if keep:
                recording.add_tick(heard, played)
        await session.close()
    recording.gaps = card.playback.gaps
    recording.dropped_ms = card.playback.dropped_ms + card.dropped_ticks * TICK_MS
    return recording


async def _listen_until(
    card: SoundCard, stop: asyncio.Event
) -> tuple[np.ndarray, np.ndarray] | None:
    """The card's next tick; None where the conversation is stopped before it has come."""
    listening = asyncio.ensure_future(card.listen())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({listening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not listening.done():
        listening.cancel()
        return None
    return listening.result()


def without_echo(echo: EchoCanceller, heard: np.ndarray, played: np.ndarray) -> np.ndarray:
    """A tick [1920] of the microphone without the loudspeaker.

    A block is given out at the end of one and heard in the next.
    """
    blocks = []
    for at in range(0, len(heard), BLOCK_SAMPLES):
        blocks.append(echo.heard(heard[at : at + BLOCK_SAMPLES]))
        echo.played(played[at : at + BLOCK_SAMPLES])
    return np.concatenate(blocks)


async def _play(
    session, card: SoundCard, display: Display, recording: Recording | None, stop: asyncio.Event
) -> None:
    """What comes from the agent, into the loudspeaker's buffer, onto the screen and kept."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    # How far the session's own clock has come, and by how much the recording's is ahead of it.
    session_ms = 0
    ahead_ms = 0.0
    while (message := await session.get()) is not None:
        audio, events = message
        if len(audio):
            ahead_ms = card.playback.push(audio) - session_ms
            session_ms += len(audio) * TICK_MS // TICK_SAMPLES
        for event in events:
            display.show(event)
            if recording is not None:
                recording.note(loop.time() - started, event, ahead_ms)
    stop.set()
