"""Audio of the OpenAI Realtime API: base64 of PCM16 at 24 kHz or of G.711 at 8 kHz, piece by piece.

A piece may be of any length: the half of a sample at its end waits for the next one.
"""

import base64
import binascii

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.resampling import Resampler
from duplex.serving.native.messages import decode_audio, encode_audio
from duplex.serving.openai.events import Refused
from duplex.serving.sound import g711

PCM = "audio/pcm"
KINDS = (PCM, *g711.LEVELS)


def form(kind: str) -> dict:
    """A format as the API writes it."""
    return {"type": kind, "rate": SAMPLE_RATE} if kind == PCM else {"type": kind}


def from_base64(text, kind: str, param: str) -> bytes:
    """The bytes of a client's audio; line ends in it mean nothing. Raises Refused."""
    if not isinstance(text, str):
        raise Refused("invalid_value", f"{param} is a text: base64 of {kind}", param)
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (ValueError, binascii.Error) as error:
        raise Refused(
            "invalid_value", f"{param} is base64 of {kind} ({error})"[:200], param
        ) from None


class Decoder:
    """What a client appends to samples."""

    def __init__(self, kind: str, rate: int = SAMPLE_RATE):
        """rate: samples a second of PCM."""
        self._kind = kind
        self._telephone = g711.Decoder(kind) if kind in g711.LEVELS else None
        self._resampler = Resampler(rate, SAMPLE_RATE, is_even=True)
        # The first byte of a sample whose second one is still to come.
        self._half = b""

    def decode(self, text, param: str) -> np.ndarray:
        """float32 [N] of one more piece, base64. Raises Refused."""
        data = from_base64(text, self._kind, param)
        if self._telephone:
            return self._telephone.decode(data)
        data = self._half + data
        whole = len(data) // 2 * 2
        self._half = data[whole:]
        return self._resampler.process(decode_audio(data[:whole]))


def decode_whole(text, kind: str, param: str) -> np.ndarray:
    """float32 [N] of a recording that is complete. Raises Refused."""
    return Decoder(kind).decode(text, param)


class Encoder:
    """The agent's voice to what a client plays."""

    def __init__(self, kind: str, rate: int = SAMPLE_RATE):
        """rate: samples a second of PCM."""
        self._telephone = g711.Encoder(kind) if kind in g711.LEVELS else None
        self._resampler = Resampler(SAMPLE_RATE, rate, is_even=True)

    def encode(self, samples: np.ndarray) -> str:
        """Base64 of the bytes that one more piece, float [N], completes."""
        if self._telephone:
            data = self._telephone.encode(samples)
        else:
            data = encode_audio(self._resampler.process(samples))
        return base64.b64encode(data).decode()
