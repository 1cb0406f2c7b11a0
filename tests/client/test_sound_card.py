"""Sound cards of any rate and channels, lost and found, behind a stub of PortAudio."""

import asyncio

import numpy as np
import pytest

from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.client.sound.sound_card import CardConfig, SoundCard, SoundDevices
from duplex.errors import ClientError
from tests.client.port_audio import PortAudio
from tests.helpers import MS, tone, until

PATIENCE_S = 20_000 * MS


async def ticks(card: SoundCard, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            if tick := card.take():
                found.append(tick)
            else:
                await card.wait()
    return found


def hertz(sound: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(spectrum.argmax() * rate / len(sound))


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("default_rate", [44_100, 48_000])
def test_any_rate_is_opened_and_keeps_the_pitch(rate, default_rate):
    times = np.arange(2 * rate) / rate
    sound = (0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
    library = PortAudio(rate=rate, default_rate=default_rate, sound=sound, speed=8)

    async def run():
        with SoundCard(library=library) as card:
            for piece in tone(20, 600).reshape(20, -1)[:6]:
                card.playback.push(piece)
            return await ticks(card, 12)

    heard, played = (np.concatenate(side) for side in zip(*asyncio.run(run()), strict=True))
    assert hertz(heard[2 * TICK_SAMPLES :], SAMPLE_RATE) == pytest.approx(440, abs=3)
    given = np.concatenate(library.played)[:, 0]
    assert np.isfinite(given).all()
    loud = np.flatnonzero(np.abs(given) > 0.2)
    part = given[loud[0] : loud[0] + rate // 4]
    assert hertz(part, rate) == pytest.approx(600, abs=6)
    # What is kept is what was given out.
    assert np.abs(played).max() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("channels", [(1, 2), (2, 1), (2, 2), (1, 8)])
def test_any_channels_are_opened(channels):
    library = PortAudio(channels=channels, most=(max(1, channels[0]), channels[1]), speed=8)

    async def run():
        with SoundCard(SoundDevices("3", "loud"), library=library) as card:
            card.playback.push(tone(2))
            await ticks(card, 4)

    asyncio.run(run())
    [options] = library.opened
    assert options["device"] == (3, "loud") and options["channels"] == channels
    given = np.concatenate(library.played)
    assert np.abs(given[:, 0]).max() > 0.2 and not given[:, 2:].any()


def test_a_card_that_cannot_be_opened_is_one_sentence():
    async def run():
        SoundCard(SoundDevices("USB"), library=PortAudio(is_there=False))

    with pytest.raises(ClientError, match="cannot use the sound device 'USB' .*--list-devices"):
        asyncio.run(run())


def test_a_lost_card_is_known_and_opened_again():
    library = PortAudio()
    config = CardConfig(lost_s=100 * MS, retry_s=20 * MS)

    async def run():
        with SoundCard(config=config, library=library) as card:
            await ticks(card, 1)
            mending = asyncio.create_task(card.mend())
            library.is_there = False
            await until(lambda: card.take() is None and card.is_lost)
            library.is_there = True
            await until(lambda: not card.is_lost)
            await ticks(card, 2)
            mending.cancel()

    asyncio.run(run())
    assert len(library.opened) == 2


def test_ticks_that_nobody_takes_are_counted():
    library = PortAudio(speed=50)

    async def run():
        with SoundCard(config=CardConfig(max_waiting_ticks=3), library=library) as card:
            await until(lambda: card.dropped_ticks > 0)
            return card.dropped_ticks, card.waiting_ticks

    dropped, waiting = asyncio.run(run())
    assert dropped > 0 and waiting == 3
