"""The voices a session can choose from: all of them are the one voice the talker learned, with another pitch and another throat.

The codec's decoder makes sound from a pitch and from spectra (duplex.model.vocoder), so both can be exchanged on the way out.
"""

from dataclasses import dataclass

from duplex.errors import VoiceError


@dataclass(frozen=True)
class Voice:
    pitch: float = 1.0  # of the learned voice's
    tract: float = 1.0  # resonances are so many times as high; a longer vocal tract has lower ones


VOICES = {"heart": Voice(), "oak": Voice(pitch=0.55, tract=0.86)}  # a woman's and a man's
DEFAULT = "heart"
SPEEDS = (0.5, 1.5)  # lowest and highest speaking rate, of the learned one


def find(name: str, speed: float) -> Voice:
    """Raises VoiceError, with a sentence for the client."""
    if name not in VOICES:
        raise VoiceError(f"there is no voice {name!r:.40}; choose one of {', '.join(VOICES)}")
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        raise VoiceError(
            f"the speaking rate is {SPEEDS[0]} to {SPEEDS[1]} times the usual one, not {speed:g}"
        )
    return VOICES[name]
