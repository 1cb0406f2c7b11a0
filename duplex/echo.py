"""Echo cancellation: takes what the loudspeaker played out of what the microphone heard, with WebRTC's canceller (AEC3)."""

import numpy as np

from client import ClientError
from duplex.audio import SAMPLE_RATE

FRAME_SAMPLES = SAMPLE_RATE // 100  # 10 ms, the canceller's step


class EchoCanceller:
    """One microphone and one loudspeaker on one clock. It knows the room after a second of the agent's voice, and two
    seconds after a jump of the delay (a lost block). While both speak the user's voice is weakened too."""

    def __init__(self):
        try:
            from pywebrtc_audio import AudioProcessor
        except ImportError as error:  # not installed, or not made for this system
            raise ClientError(
                "the echo of the agent's voice is not cancelled, use headphones or: pip install pywebrtc-audio"
            ) from error
        # No hint of the delay: it finds up to half a second by itself, and a hint that is too long costs it the first
        # second. No noise suppression and no gain control: the agent's encoder was trained without them.
        self._canceller = AudioProcessor(sample_rate=SAMPLE_RATE, echo_cancellation=True)
        self._played = np.zeros(0, np.float32)

    def played(self, samples: np.ndarray) -> None:
        """Sound given to the loudspeaker: float32 [N] in [-1, 1], N whole frames of 10 ms."""
        assert len(samples) % FRAME_SAMPLES == 0, f"{len(samples)} samples are not whole frames of {FRAME_SAMPLES}"
        self._played = np.concatenate([self._played, samples], dtype=np.float32)

    def heard(self, samples: np.ndarray) -> np.ndarray:
        """Sound of the microphone without that of the loudspeaker, both float32 [N], N whole frames; 9 ms later.

        The next N samples `played` belong to it, silence if there are none. They must not be later than their echo:
        what is played from this tick on comes back in the next one, so `heard` may go first."""
        count = len(samples)
        assert count % FRAME_SAMPLES == 0, f"{count} samples are not whole frames of {FRAME_SAMPLES}"
        played, self._played = self._played[:count], self._played[count:]
        silence = np.zeros(count - len(played), np.float32)
        return self._canceller.process(np.ascontiguousarray(samples, np.float32), np.concatenate([played, silence]))
