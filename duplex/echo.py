"""Echo cancellation: takes what the loudspeaker played out of what the microphone heard, with WebRTC's canceller (AEC3).

The canceller alone weakens the user as well while both speak. So its output is taken only where it says that the user is
silent: it is very much softer than what was heard, or hardly above the noise. Elsewhere, once the room is known, and where
nothing was played lately, the microphone passes as it is. Who talks over the agent is heard with half as many wrong words as
with the canceller alone.
"""

import math

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.errors import EchoUnavailable

FRAME_SAMPLES = SAMPLE_RATE // 100  # 10 ms, the canceller's step
LAG_SAMPLES = 223  # by which the canceller's output is later than its input
VOICE_POWER = 1e-6  # mean square of what is played, from which on it teaches the room
LEARN_FRAMES = 150  # of that, in which the canceller's output is taken alone, but for
USER_SHARE = 0.3  # of the power that is played, or was lately: louder than that is the user, not his loudspeaker
PLAYED_FALLS = 0.96  # what counts as lately: half a second later a ninth of it does
ECHO_DB = 16.0  # softer by so much, the canceller's output begins to be taken;
NOISE_DB, LEAST_DB = (
    14.0,
    3.0,
)  # or less than so much above its noise, and softer than what was heard at all;
CERTAIN_DB = 4.0  # by so much more, or less, it is taken alone
SMOOTHING = 0.3  # of the two powers, a frame
LEAST_POWER = 1e-9
HISS = 6e-5  # in all, two steps of 16 bits; what dies away in the canceller's filters takes six times as long once it is denormal
NOISE_RISES = 10**0.003  # a frame, so 3 dB a second; it falls at once


class EchoCanceller:
    """One microphone and one loudspeaker on one clock. It knows the room after a second of the agent's voice, and two
    seconds after a jump of the delay (a lost block); half a second of delay is the most that it finds."""

    def __init__(self):
        try:
            from pywebrtc_audio import AudioProcessor
        except ImportError as error:
            raise EchoUnavailable(
                "the echo of the agent's voice is not cancelled, use headphones or: pip install pywebrtc-audio"
            ) from error
        # No hint of the delay: it finds up to half a second by itself, and a hint that is too long costs it the first
        # second. No noise suppression and no gain control: the agent's encoder was trained without them.
        self._canceller = AudioProcessor(sample_rate=SAMPLE_RATE, echo_cancellation=True)
        self._played = np.zeros(0, np.float32)
        self._hiss = np.random.default_rng(0)
        self._unknown = LEARN_FRAMES  # frames still
        self._loudest = 0.0  # power of what was played lately
        self._last = np.zeros(LAG_SAMPLES, np.float32)  # heard and not yet given out
        self._heard = self._left = (
            LEAST_POWER  # powers of what was heard and of the canceller's output
        )
        self._noise = 1e-3  # power of the canceller's output when all are silent
        self._share = 0.0  # of the canceller in what is given out

    def played(self, samples: np.ndarray) -> None:
        """Sound given to the loudspeaker: float32 [N] in [-1, 1], N whole frames of 10 ms."""
        assert len(samples) % FRAME_SAMPLES == 0, (
            f"{len(samples)} samples are not whole frames of {FRAME_SAMPLES}"
        )
        self._played = np.concatenate([self._played, samples], dtype=np.float32)

    def heard(self, samples: np.ndarray) -> np.ndarray:
        """Sound of the microphone without that of the loudspeaker, both float32 [N], N whole frames; LAG_SAMPLES later.

        The next N samples `played` belong to it, silence if there are none. They must not be later than their echo:
        what is played from this tick on comes back in the next one, so `heard` may go first."""
        count = len(samples)
        assert count % FRAME_SAMPLES == 0, (
            f"{count} samples are not whole frames of {FRAME_SAMPLES}"
        )
        samples = np.ascontiguousarray(samples, np.float32)
        played, self._played = self._played[:count], self._played[count:]
        played = np.concatenate([played, np.zeros(count - len(played), np.float32)])
        late = np.concatenate([self._last, samples])
        late, self._last = late[:count], late[count:]
        hiss = HISS * (self._hiss.random((count, 2), np.float32).T - np.float32(0.5))
        clean = self._canceller.process(samples + hiss[0], played + hiss[1])
        powers = np.stack([late, clean, played]).reshape(3, -1, FRAME_SAMPLES)
        shares = [
            self._share,
            *(self._weigh(*frame) for frame in np.square(powers).mean(-1).T.tolist()),
        ]
        share = np.interp(
            np.arange(1, count + 1) / FRAME_SAMPLES, np.arange(len(shares)), shares
        ).astype(np.float32)
        return late + share * (clean - late)

    def _weigh(self, heard: float, left: float, played: float) -> float:
        """The powers of a frame of the three sounds, the second the canceller's output -> its share at the frame's end."""
        self._unknown -= played > VOICE_POWER
        self._loudest = max(played, PLAYED_FALLS * self._loudest)
        self._heard += SMOOTHING * (heard + LEAST_POWER - self._heard)
        self._left += SMOOTHING * (left + LEAST_POWER - self._left)
        self._noise = min(self._left, self._noise * NOISE_RISES)
        softer_db, above_db = (
            10 * math.log10(self._heard / self._left),
            10 * math.log10(self._left / self._noise),
        )
        certain = max(softer_db - ECHO_DB, NOISE_DB - above_db if softer_db > LEAST_DB else 0.0)
        if (
            0 < self._unknown < LEARN_FRAMES
        ):  # until it knows the room the canceller may take all for echo
            certain = CERTAIN_DB if self._heard < USER_SHARE * self._loudest else 0.0
        if self._loudest < VOICE_POWER:  # nothing was played for two seconds: there is no echo
            certain = 0.0
        self._share = min(max(certain / CERTAIN_DB, 0.0), 1.0)
        return self._share
