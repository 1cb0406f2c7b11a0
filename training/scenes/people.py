"""Who speaks in each tick of a scene, as the agent will know it: late, and sometimes wrong.

The agent tells voices apart while it runs; its labels come a while after a voice has begun. Scenes
are made with labels of the same kind, so the LM learns how far it can trust them.
"""

import numpy as np

from duplex.audio import TICK_S
from duplex.training.scenes.scene import Scene

# Ticks after which a voice is known, at least and at most.
LABEL_DELAY_TICKS = (5, 20)
# Share of the scenes in which nobody is told apart, and of the turns that are taken for another's.
UNLABELLED_SHARE = 0.3
WRONG_SHARE = 0.04


def label_speakers(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """int64 [ticks]: who is heard, 1 for who spoke first; 0 while it is not known, and in silence.

    To be called while the words still have the times at which they are said.
    """
    labels = np.zeros(int(scene.seconds / TICK_S), np.int64)
    if rng.uniform() < UNLABELLED_SHARE:
        return labels
    # Labels are numbered by who was heard first.
    order = list(dict.fromkeys(turn.speaker for turn in scene.user))
    for turn in scene.user:
        label = order.index(turn.speaker) + 1
        if len(order) > 1 and rng.uniform() < WRONG_SHARE:
            label = int(rng.integers(1, len(order) + 1))
        first = int(turn.words[0].start / TICK_S) + int(rng.integers(*LABEL_DELAY_TICKS))
        last = int(turn.words[-1].end / TICK_S) + 1
        # A short turn is known at its end.
        labels[min(first, last - 1) : last] = label
    return labels
