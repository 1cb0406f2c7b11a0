"""The voices that a session can choose from, and how fast they speak.

All of them are the one voice that the talker learned, with another pitch and another throat: the
codec's decoder makes sound from a pitch and from spectra (duplex.model.tts.vocoder), so both can be
exchanged on the way out.
"""

from dataclasses import dataclass

from duplex.errors import VoiceError


@dataclass(frozen=True)
class Voice:
    """How a voice differs from the learned one."""

    # Times the learned pitch.
    pitch: float = 1.0
    # Times the learned resonances: a longer vocal tract has lower ones.
    tract: float = 1.0


# A woman's voice and a man's.
VOICES = {"heart": Voice(), "oak": Voice(pitch=0.55, tract=0.86)}
# Who speaks unless a client chooses.
DEFAULT = "heart"
# The lowest and the highest speaking rate, times the learned one.
SPEEDS = (0.5, 1.5)


def find(name: str, speed: float) -> Voice:
    """The voice of this name. Raises VoiceError, also where the speaking rate cannot be."""
    if name not in VOICES:
        raise VoiceError(f"there is no voice {name!r:.40}; choose one of {', '.join(VOICES)}")
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        raise VoiceError(
            f"the speaking rate is {SPEEDS[0]} to {SPEEDS[1]} times the usual one, not {speed:g}"
        )
    return VOICES[name]
