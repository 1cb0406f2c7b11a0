"""What a client may ask for, in whichever dialect: plain records that a dialect makes and the server carries out."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Audio:
    samples: np.ndarray  # float32 [N] in [-1, 1), 24 kHz


@dataclass(frozen=True)
class Start:
    """Opens the session; only as the first message."""

    instructions: str | None = None
    seed: int | None = None
    temperature: float | None = None
    voice: str | None = None
    speed: float | None = None
    audio: str = "pcm16"  # or "opus": the form of binary messages, both ways


@dataclass(frozen=True)
class Resume:
    """Goes on with a session whose connection was lost."""

    token: str
    received: int  # events the client has got so far


@dataclass(frozen=True)
class Configure:
    """New instructions: from the beginning when nothing was heard yet, otherwise as a note to the model."""

    instructions: str


@dataclass(frozen=True)
class SpeakAs:
    """Another voice of duplex.voices, and how fast it speaks."""

    voice: str
    speed: float


@dataclass(frozen=True)
class Write:
    """A text becomes part of the conversation, as if it had been said by `role`: user, assistant or system."""

    role: str
    text: str


@dataclass(frozen=True)
class Stop:
    """The agent shall fall silent."""


@dataclass(frozen=True)
class Answer:
    """The agent shall speak now."""


@dataclass(frozen=True)
class Played:
    """The user has heard the agent's voice up to this time on the session's clock."""

    ms: int


@dataclass(frozen=True)
class Truncate:
    """Of the agent's last turn nothing after this time was heard; the model forgets it."""

    ms: int


@dataclass(frozen=True)
class Clear:
    """User audio that still waits shall not be heard."""


@dataclass(frozen=True)
class End:
    """The client has finished."""
