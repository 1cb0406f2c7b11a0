"""Which sounds are heard: the sound head's scores of all slots, over the last two seconds.

A sound is told once, when it has sounded for some ticks; again only after it was gone for a while.
Functions of a state and a policy; nothing here knows of turns or words. Letters in shapes: B slots,
T ticks, K kinds.
"""

from dataclasses import dataclass

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


class Sounds:
    """What all slots have heard last."""

    def __init__(self, slots: int):
        # [T, B, K] of the last ticks, oldest first, zeros where there was none; of no kind yet.
        self.scores = np.zeros((0, slots, 0))
        # [B] how many of these ticks there were.
        self.heard = np.zeros(slots, np.int64)
        # [B] the kind that it seems to be now, -1: none, and for how many ticks.
        self.kind = np.full(slots, -1)
        self.ticks = np.zeros(slots, np.int64)
        # [B] in a row in which nothing could be heard.
        self.silent_ticks = np.zeros(slots, np.int64)
        # Of each slot kinds that were told, and the ticks since they were heard.
        self.told: dict[int, dict[int, int]] = {}

    def reset(self, slot: int) -> None:
        """The slot has heard nothing."""
        self.scores[:, slot] = 0
        for ticks in (self.heard, self.ticks, self.silent_ticks):
            ticks[slot] = 0
        self.kind[slot] = -1
        self.told.pop(slot, None)


def hear(
    state: Sounds, scores: np.ndarray, levels_db: np.ndarray, names: int, policy: SoundPolicy
) -> dict[int, int]:
    """Take in a tick's scores [B, K], of which the first `names` have names, and levels [B].

    Returns the sounds that are to be told now, by slot. What the head says of silence, which it has
    never heard, counts for nothing once it has lasted for a whole window.
    """
    state.silent_ticks = np.where(levels_db < policy.min_level_db, state.silent_ticks + 1, 0)
    if not len(state.scores):
        state.scores = np.zeros((policy.window_ticks, *scores.shape), scores.dtype)
    state.scores[:-1] = state.scores[1:]
    state.scores[-1] = scores
    state.heard = np.minimum(state.heard + 1, policy.window_ticks)
    kind = loudest(state, names, policy)
    kind[state.silent_ticks >= policy.window_ticks] = -1
    state.ticks = np.where(kind == state.kind, state.ticks + 1, 1)
    state.kind = kind
    for slot, told in state.told.items():
        state.told[slot] = {k: n + 1 for k, n in told.items() if n < policy.repeat_ticks}
    found = {}
    for slot in np.flatnonzero((kind >= 0) & (state.ticks >= policy.hold_ticks)).tolist():
        told = state.told.setdefault(slot, {})
        if int(kind[slot]) not in told:
            found[slot] = int(kind[slot])
        told[int(kind[slot])] = 0
    return found


def loudest(state: Sounds, names: int, policy: SoundPolicy) -> np.ndarray:
    """The named sound of each slot [B] that stands out from all others in the last ticks; -1: there
    is none."""
    mean = np.add.reduce(state.scores) / state.heard[:, None].astype(state.scores.dtype)
    slots = np.arange(len(mean))
    first = mean.argmax(1)
    highest = mean[slots, first]
    mean[slots, first] = -np.inf
    is_clear = highest - mean.max(1) >= policy.margin
    is_named = (state.heard >= policy.least_ticks) & (first < names)
    return np.where(is_clear & is_named, first, -1)
