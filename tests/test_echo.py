"""The echo of the loudspeaker in the microphone, made of recorded questions and a small room."""

import asyncio
import io
import sys

import numpy as np
import pytest

from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.client.local import LockstepSession
from duplex.client.recording import Recording
from duplex.client.sound.jitter_buffer import Playback
from duplex.client.sound.sound_file import read_wave
from duplex.client.talk import make_echo_canceller, recorded_questions
from duplex.client.terminal.display import Display
from duplex.client.terminal.live import Live, live
from duplex.echo import FRAME_SAMPLES, LAG_SAMPLES, EchoCanceller
from duplex.errors import EchoUnavailable
from tests.tiny_agent import TinyAgent

# Samples after which the room must be known.
LEARNED = 3 * SAMPLE_RATE


def voice(*numbers: int) -> np.ndarray:
    """Recorded questions one after the other, float32 [N], N whole ticks."""
    paths = recorded_questions()
    samples = np.concatenate([read_wave(paths[number - 1]).samples for number in numbers])
    return samples[: len(samples) // TICK_SAMPLES * TICK_SAMPLES]


def echo_of(played: np.ndarray, delay_ms: int, level_db: float) -> np.ndarray:
    """What the microphone gets of it: late, softer, and with 100 ms of a room.

    Its sound falls by 60 dB in 250 ms.
    """
    times = np.arange(SAMPLE_RATE // 10) / SAMPLE_RATE
    room = 0.02 * np.random.default_rng(0).standard_normal(len(times)) * 10 ** (-3 * times / 0.25)
    room[0] = 1.0
    echo = np.convolve(played, room)[: len(played)]
    echo *= 10 ** (level_db / 20) * rms(played) / rms(echo)
    delay = np.zeros(SAMPLE_RATE * delay_ms // 1000)
    return np.concatenate([delay, echo])[: len(played)].astype(np.float32)


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def weaker_db(before: np.ndarray, after: np.ndarray) -> float:
    return 20 * np.log10(rms(before) / rms(after))


def converse(heard: np.ndarray, played: np.ndarray, block: int = TICK_SAMPLES) -> np.ndarray:
    """As a live session does it: [N] of the microphone, and [N] given out at each block's end."""
    echo = EchoCanceller()
    clean = []
    for start in range(0, len(heard), block):
        clean.append(echo.heard(heard[start : start + block]))
        echo.played(played[start : start + block])
    return np.concatenate(clean)


# Delays between the same sample of both streams: a tick from pulling to playing, the sound card,
# the air.
@pytest.mark.parametrize(("delay_ms", "level_db"), [(140, -6), (200, -12), (280, -20)])
def test_echo_is_taken_out(delay_ms, level_db):
    played = voice(1, 2, 3, 4, 5, 6)
    heard = echo_of(played, delay_ms, level_db)
    noise = np.random.default_rng(1).normal(0, 10 ** (-70 / 20), len(heard)).astype(np.float32)
    clean = converse(heard + noise, played)
    unhelped = converse(heard + noise, np.zeros_like(played))
    assert weaker_db(heard[LEARNED:], clean[LEARNED:]) > 20
    # It is what was played that makes the difference.
    assert abs(weaker_db(heard[LEARNED:], unhelped[LEARNED:])) < 1


def test_loud_echo_is_not_the_users_before_the_room_is_known():
    """Somebody as loud as the agent passes even then."""
    played = voice(2)
    first = slice(SAMPLE_RATE // 2, SAMPLE_RATE * 3 // 2)
    echo = echo_of(played, 140, -7)
    user = played[::-1] * 1.2
    assert weaker_db(echo[first], converse(echo, played)[first]) > 12
    assert weaker_db(user[first], converse(user + echo, played)[first]) < 3


def test_user_alone_passes():
    user = voice(1, 2, 3, 4, 5, 6)
    clean = converse(user, np.zeros_like(user))
    assert clean.dtype == np.float32 and clean.shape == user.shape
    np.testing.assert_array_equal(clean[LAG_SAMPLES:], user[:-LAG_SAMPLES])


def test_user_survives_the_agent():
    """Both speak, equally loud: the user is hardly weakened, the agent is."""
    played = voice(1, 2, 3, 1, 2, 3)
    words = voice(4, 5, 6)
    both = slice(len(played) - len(words), len(played) - LAG_SAMPLES)
    user = np.zeros_like(played)
    user[-len(words) :] = words
    echo = echo_of(played, 140, 0)
    echo *= rms(words) / rms(echo[-len(words) :])

    def shares(given: np.ndarray) -> np.ndarray:
        """How much of the user and of the echo is in the cleaned sound [2], 1 for all of it."""
        clean = np.roll(converse(user + echo, given), -LAG_SAMPLES)
        sources = np.stack([user[both], echo[both]], axis=1)
        found, *_ = np.linalg.lstsq(sources, clean[both], rcond=None)
        return found

    of_user, of_echo = shares(played)
    assert of_user > 0.6 and abs(of_echo) < 0.5
    # Without what was played both stay.
    assert shares(np.zeros_like(played)).min() > 0.8


def test_blocks_of_any_size_are_the_same_sound():
    """Parts of a frame are refused."""
    played = voice(1)
    echo = EchoCanceller()
    heard = echo_of(played, 60, -6)
    echo.played(played)
    whole = echo.heard(heard)
    for block in (FRAME_SAMPLES, TICK_SAMPLES, 5 * TICK_SAMPLES):
        echo = EchoCanceller()
        parts = []
        for start in range(0, len(heard), block):
            echo.played(played[start : start + block])
            parts.append(echo.heard(heard[start : start + block]))
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    with pytest.raises(AssertionError, match="whole frames"):
        echo.heard(heard[: FRAME_SAMPLES + 1])


class Room:
    """A sound card whose loudspeaker is heard by its microphone, a tick later."""

    name = "room"
    dropped_ticks = 0
    dropped_ms = 0
    played_ms = 0
    waiting_ticks = 0
    is_lost = False

    def __init__(self, user: np.ndarray, stop: asyncio.Event):
        self.playback = Playback()
        self.user = list(user.reshape(-1, TICK_SAMPLES))
        self.stop = stop
        self.air = [np.zeros(TICK_SAMPLES, np.float32)]

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.user:
            self.stop.set()
        played = self.playback.pull(TICK_SAMPLES)
        self.air.append(0.25 * played)
        heard = self.user.pop(0) if self.user else np.zeros(TICK_SAMPLES, np.float32)
        return heard + self.air.pop(0), played

    async def mend(self) -> None:
        pass


class Paced(LockstepSession):
    """Takes its time, as a clock does."""

    async def push(self, samples: np.ndarray) -> None:
        await super().push(samples)
        await asyncio.sleep(0.02)


def turns_of(echo: EchoCanceller | None) -> int:
    """How often the user seems to speak, who does so once, while the loudspeaker is heard."""

    async def run() -> list[dict]:
        stop = asyncio.Event()
        room = Room(np.concatenate([voice(1), np.zeros(50 * TICK_SAMPLES, np.float32)]), stop)
        async with asyncio.timeout(30):
            state = Live(Recording(), stop, echo=echo)
            await live(Paced(TinyAgent(1)), room, Display(io.StringIO()), state)
        return state.recording.events

    kinds = [event["type"] for event in asyncio.run(run())]
    assert "agent_started" in kinds
    return kinds.count("user_started")


@pytest.mark.slow
def test_live_session_does_not_hear_itself():
    assert turns_of(EchoCanceller()) == 1
    assert turns_of(None) > 1


def test_without_the_library_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    with pytest.raises(EchoUnavailable, match="pip install pywebrtc-audio"):
        EchoCanceller()
    assert make_echo_canceller() is None
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("note: ") and "not cancelled" in line
    assert capsys.readouterr().err == ""
