"""The sound card and a live conversation, without a sound card."""

import asyncio
import io
import queue

import numpy as np

from duplex.audio import TICK_S, TICK_SAMPLES
from duplex.client.display import Display
from duplex.client.jitter_buffer import (
    Playback,
)
from duplex.client.local import LockstepSession
from duplex.client.recording import Recording
from duplex.client.terminal import SoundCard, live
from tests.helpers import tone
from tests.tiny_agent import TinyAgent


def test_sound_card_has_played_what_has_left_the_loudspeaker():
    class Time:
        # PortAudio's names.
        currentTime = 10.0  # noqa: N815
        outputBufferDacTime = 10.1  # noqa: N815

    async def run():
        # Without PortAudio.
        card = SoundCard.__new__(SoundCard)
        card.playback = Playback()
        card.heard = queue.Queue(8)
        card.played_ms = 0
        card.dropped_ticks = 0
        card._blocks = []
        card._arrived = asyncio.Event()
        card._loop = asyncio.get_running_loop()
        card.playback.push(tone(4))
        played = []
        silence = np.zeros((TICK_SAMPLES, 1))
        for _ in range(4):
            card._exchange(silence, silence.copy(), TICK_SAMPLES, Time, None)
            played.append(card.played_ms)
        return played

    # 100 ms lie between the callback and the ear.
    assert asyncio.run(run()) == [0, 0, 60, 140]


class Room:
    """Stands for a sound card: a microphone that hears a sound, a loudspeaker that plays."""

    dropped_ticks = 0
    played_ms = 0

    def __init__(self, sound: np.ndarray, stop: asyncio.Event):
        self.playback = Playback()
        self.ticks = list(sound.reshape(-1, TICK_SAMPLES))
        self.stop = stop

    async def listen(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.ticks:
            self.stop.set()
        await asyncio.sleep(TICK_S / 4)
        heard = self.ticks.pop(0) if self.ticks else np.zeros(TICK_SAMPLES, np.float32)
        return heard, self.playback.pull(TICK_SAMPLES)


def test_live_conversation():
    async def run() -> Recording:
        stop = asyncio.Event()
        room = Room(np.concatenate([tone(6), np.zeros(20 * TICK_SAMPLES, np.float32)]), stop)
        async with asyncio.timeout(20):
            return await live(
                LockstepSession(TinyAgent(1)), room, Display(io.StringIO()), stop, keep=True
            )

    recording = asyncio.run(run())
    kinds = [event["type"] for event in recording.events]
    assert kinds[:2] == ["user_started", "heard"] and kinds[-1] == "agent_ended"
    stereo = recording.stereo()
    assert 26 <= len(stereo) / TICK_SAMPLES <= 27 and np.abs(stereo).max(axis=0).min() > 4000
