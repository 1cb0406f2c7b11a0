"""The forms that audio has in the native dialect's binary messages, chosen in session.start.

Each form decodes a message to 24 kHz samples float32 [N], raising ProtocolError where it cannot,
and encodes a tick to the messages that carry it.
"""

from typing import Protocol

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.resampling import Resampler
from duplex.serving.native.messages import decode_audio, encode_audio
from duplex.serving.sound import opus


class AudioForm(Protocol):
    """One stream each way."""

    def decode(self, message: bytes) -> np.ndarray:
        """The samples that a message completes."""

    def encode(self, samples: np.ndarray) -> list[bytes]:
        """The messages for one tick."""


def make(name: str, rate: int = SAMPLE_RATE) -> AudioForm:
    """A form by its name in session.start. rate: of PCM16, samples a second."""
    if name == "opus":
        return OggOpus()
    if name == "opus_packets":
        return OpusPackets()
    return Pcm(rate)


class Pcm:
    """PCM16 little endian at a rate of the client's; half a sample waits for the rest of it."""

    def __init__(self, rate: int):
        self._half = b""
        self._heard = Resampler(rate, SAMPLE_RATE, is_even=True)
        self._spoken = Resampler(SAMPLE_RATE, rate, is_even=True)

    def decode(self, message: bytes) -> np.ndarray:
        """See AudioForm."""
        message = self._half + message
        whole = len(message) // 2 * 2
        self._half = message[whole:]
        return self._heard.process(decode_audio(message[:whole]))

    def encode(self, samples: np.ndarray) -> list[bytes]:
        """See AudioForm."""
        return [encode_audio(self._spoken.process(samples))]


class OggOpus:
    """Pages of an Ogg stream."""

    def __init__(self):
        self._decoder = opus.Decoder()
        self._encoder = opus.Encoder()

    def decode(self, message: bytes) -> np.ndarray:
        """See AudioForm."""
        return self._decoder.decode(message)

    def encode(self, samples: np.ndarray) -> list[bytes]:
        """See AudioForm."""
        return [self._encoder.encode(samples)]


class OpusPackets:
    """One packet of Opus a message, as small devices send them."""

    def __init__(self):
        self._wrap = opus.Wrapper()
        self._decoder = opus.Decoder()
        self._encoder = opus.Encoder()

    def decode(self, message: bytes) -> np.ndarray:
        """See AudioForm."""
        pages = self._wrap.wrap(message)
        try:
            return self._decoder.decode(pages)
        except ValueError:
            # The decoder begins anew, and so does the stream that it is given.
            self._wrap = opus.Wrapper()
            raise

    def encode(self, samples: np.ndarray) -> list[bytes]:
        """See AudioForm."""
        return opus.packets(self._encoder.encode(samples))
