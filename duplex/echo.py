"""Acoustic echo cancellation (AEC): takes what the loudspeaker played out of what was heard.

WebRTC's canceller (AEC3) alone weakens the user as well while both speak. So its output is taken
only where it says that the user is silent: it is very much softer than what was heard, or hardly
above the noise. Elsewhere, once the room is known, and where nothing was played lately, the
microphone passes as it is. A user who talks over the agent is recognised with half as many wrong
words as with the canceller alone.
"""

import math
from dataclasses import dataclass

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.errors import EchoUnavailable

# Samples of the canceller's step, a frame: 10 ms.
FRAME_SAMPLES = SAMPLE_RATE // 100
# Samples by which the canceller's output is later than its input.
LAG_SAMPLES = 223


@dataclass(frozen=True)
class EchoConfig:
    """When the canceller's output is taken. Powers are mean squares, by frame of 10 ms."""

    # Power of what is played from which on it teaches the canceller the room.
    voice_power: float = 1e-6
    # Frames of that in which the canceller's output is taken alone, but for a loud user.
    learn_frames: int = 150
    # Meanwhile sound of more than this share of the power played lately is the user, not an echo.
    user_share: float = 0.3
    # What is left a frame later of the power "played lately": a ninth after half a second.
    played_decay: float = 0.96
    # The output begins to be taken where it is softer than what was heard by so many dB ...
    echo_db: float = 16.0
    # ... or less than so many dB above its own noise, and softer by at least min_softer_db.
    noise_db: float = 14.0
    min_softer_db: float = 3.0
    # It is taken alone so many dB further on.
    certain_db: float = 4.0
    # Share of a new frame in the smoothed powers.
    smoothing: float = 0.3
    # Added to powers, so that silence has a logarithm.
    min_power: float = 1e-9
    # Width of the noise added, two steps of 16 bits: the canceller's filters take six times as
    # long once what dies away in them is denormal.
    hiss: float = 6e-5
    # Factor a frame by which the noise rises, 3 dB a second; it falls at once.
    noise_rise: float = 10**0.003


class EchoCanceller:
    """One microphone and one loudspeaker on one clock.

    It knows the room after a second of the agent's voice, and two seconds after a jump of the delay
    (a lost block); half a second of delay is the most that it finds.
    """

    def __init__(self, config: EchoConfig | None = None):
        """Raises EchoUnavailable."""
        try:
            from pywebrtc_audio import AudioProcessor
        except ImportError as error:
            raise EchoUnavailable(
                "the echo of the agent's voice is not cancelled, "
                "use headphones or: pip install pywebrtc-audio"
            ) from error
        self.config = config or EchoConfig()
        # No hint of the delay: it finds up to half a second by itself, and a hint that is too long
        # costs it the first second. No noise suppression and no gain control: the agent's encoder
        # was trained without them.
        self._canceller = AudioProcessor(sample_rate=SAMPLE_RATE, echo_cancellation=True)
        self._hiss = np.random.default_rng(0)
        # Played, and its echo not yet heard.
        self._played = np.zeros(0, np.float32)
        # Heard and not yet given out.
        self._last = np.zeros(LAG_SAMPLES, np.float32)
        # Frames that the room is still to be learned from.
        self._unknown = self.config.learn_frames
        # Power of what was played lately.
        self._loudest = 0.0
        # Powers of what was heard and of the canceller's output, smoothed.
        self._heard = self.config.min_power
        self._left = self.config.min_power
        # Power of the canceller's output when all are silent.
        self._noise = 1e-3
        # Share of the canceller's output in what is given out.
        self._share = 0.0

    def played(self, samples: np.ndarray) -> None:
        """Sound given to the loudspeaker: float32 [N] in [-1, 1], N whole frames of 10 ms."""
        _check_frames(samples)
        self._played = np.concatenate([self._played, samples], dtype=np.float32)

    def heard(self, samples: np.ndarray) -> np.ndarray:
        """Sound of the microphone without that of the loudspeaker, LAG_SAMPLES later.

        samples and result: float32 [N], N whole frames. The next N samples `played` belong to it,
        silence if there are none. They must not be later than their echo: what is played from this
        tick on comes back in the next one, so `heard` may go first.
        """
        _check_frames(samples)
        count = len(samples)
        samples = np.ascontiguousarray(samples, np.float32)
        played = self._played[:count]
        self._played = self._played[count:]
        played = np.concatenate([played, np.zeros(count - len(played), np.float32)])
        late = np.concatenate([self._last, samples])
        self._last = late[count:]
        late = late[:count]

        # 1. The canceller, fed with a hiss.
        noise = self._hiss.random((count, 2), np.float32).T - np.float32(0.5)
        hiss = self.config.hiss * noise
        clean = self._canceller.process(samples + hiss[0], played + hiss[1])

        # 2. Its share at the end of each frame, and from there to each sample.
        powers = np.square(np.stack([late, clean, played]).reshape(3, -1, FRAME_SAMPLES)).mean(-1)
        shares = [self._share, *(self._frame_share(*frame) for frame in powers.T.tolist())]
        frames = np.arange(1, count + 1) / FRAME_SAMPLES
        share = np.interp(frames, np.arange(len(shares)), shares).astype(np.float32)
        return late + share * (clean - late)

    def _frame_share(self, heard: float, left: float, played: float) -> float:
        """The canceller's share at the end of a frame.

        heard, left, played: powers of the microphone, the canceller's output and the loudspeaker.
        """
        config = self.config
        self._unknown -= played > config.voice_power
        self._loudest = max(played, config.played_decay * self._loudest)
        self._heard += config.smoothing * (heard + config.min_power - self._heard)
        self._left += config.smoothing * (left + config.min_power - self._left)
        self._noise = min(self._left, self._noise * config.noise_rise)
        softer_db = 10 * math.log10(self._heard / self._left)
        above_db = 10 * math.log10(self._left / self._noise)

        # By how many dB it is certain that the user is silent.
        by_noise = config.noise_db - above_db if softer_db > config.min_softer_db else 0.0
        certain = max(softer_db - config.echo_db, by_noise)
        if 0 < self._unknown < config.learn_frames:
            # Until it knows the room the canceller may take all for echo.
            is_user = self._heard >= config.user_share * self._loudest
            certain = 0.0 if is_user else config.certain_db
        if self._loudest < config.voice_power:
            # Nothing was played for two seconds: there is no echo.
            certain = 0.0
        self._share = min(max(certain / config.certain_db, 0.0), 1.0)
        return self._share


def _check_frames(samples: np.ndarray) -> None:
    assert len(samples) % FRAME_SAMPLES == 0, (
        f"{len(samples)} samples are not whole frames of {FRAME_SAMPLES}"
    )
