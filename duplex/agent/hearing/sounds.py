"""Which sounds are heard: the sound head's scores of one session, over the last two seconds.

A sound is told once, when it has sounded for some ticks; again only after it was gone for a while.
Functions of a state and a policy; nothing here knows of turns or words.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class SoundPolicy:
    """Every constant of naming sounds; TURN_TAKING.md says where each was measured."""

    window_ticks: int = 25
    least_ticks: int = 8
    margin: float = 5.0
    hold_ticks: int = 8
    repeat_ticks: int = 38
    min_level_db: float = -60.0


@dataclass
class Sounds:
    """What one session has heard last."""

    # Of the last ticks [T, K], oldest first; None: nothing was heard.
    scores: np.ndarray | None = None
    # The kind that it seems to be now, and for how many ticks.
    kind: int | None = None
    ticks: int = 0
    # In a row in which nothing could be heard.
    silent_ticks: int = 0
    # Kinds that were told, and the ticks since they were heard.
    told: dict[int, int] = field(default_factory=dict)


def hear(
    state: Sounds, scores: np.ndarray, level_db: float, names: int, policy: SoundPolicy
) -> int | None:
    """Take in a tick's scores [K], of which the first `names` have names, and its level.

    Returns the sound that is to be told now, if there is one. What the head says of silence, which
    it has never heard, counts for nothing once it has lasted for a whole window.
    """
    state.silent_ticks = state.silent_ticks + 1 if level_db < policy.min_level_db else 0
    before = [] if state.scores is None else [state.scores]
    state.scores = np.concatenate([*before, scores[None]])[-policy.window_ticks :]
    is_silent = state.silent_ticks >= policy.window_ticks
    kind = None if is_silent else loudest(state, names, policy)
    state.ticks = state.ticks + 1 if kind == state.kind else 1
    state.kind = kind
    state.told = {k: n + 1 for k, n in state.told.items() if n < policy.repeat_ticks}
    if kind is None or state.ticks < policy.hold_ticks:
        return None
    is_new = kind not in state.told
    state.told[kind] = 0
    return kind if is_new else None


def loudest(state: Sounds, names: int, policy: SoundPolicy) -> int | None:
    """The named sound that stands out from all others in the last ticks; None: there is none."""
    if len(state.scores) < policy.least_ticks:
        return None
    mean = np.add.reduce(state.scores) / len(state.scores)
    first = int(mean.argmax())
    highest = mean[first]
    if first >= names:
        return None
    mean[first] = -np.inf
    return None if highest - mean.max() < policy.margin else first
