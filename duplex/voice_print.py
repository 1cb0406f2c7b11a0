"""A voice print: the vector of somebody's voice as a short text, which a client may keep.

It is base64 of numbers from -127 to 127, and fits the agent whose speaker head made it.
"""

import base64
import binascii

import numpy as np

# Numbers of a vector at most; that of the shipped agent has 128.
MAX_NUMBERS = 512


def encode(voice: np.ndarray) -> str:
    """The print of a voice [V]."""
    scaled = np.rint(voice * (127 / np.abs(voice).max())).astype(np.int8)
    return base64.b64encode(scaled.tobytes()).decode()


def decode(text: str) -> np.ndarray:
    """The voice [V] of a print, of length 1. Raises ValueError with a sentence for the client."""
    try:
        numbers = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        numbers = b""
    voice = np.frombuffer(numbers[: MAX_NUMBERS + 1], np.int8).astype(np.float32)
    if not 0 < len(voice) <= MAX_NUMBERS or not voice.any():
        raise ValueError(
            "this is no voice print; take the text of a speaker_enrolled event as it is"
        )
    return voice / np.linalg.norm(voice)
