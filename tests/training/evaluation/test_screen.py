"""What is shown a second after each word: newer words do not count, missing ones do."""

import numpy as np
import pytest

from duplex.training.evaluation.hearing.clip_sets import LEAD_TICKS, Clip
from duplex.training.evaluation.hearing.screen import prefix_errors, score


@pytest.mark.parametrize(
    ("wanted", "shown", "errors"),
    [
        ("so we", "so we", 0),
        ("so we", "so we go on", 0),
        ("so we", "", 2),
        ("so we", "so he go", 1),
        ("so we", "well so we go", 1),
    ],
)
def test_errors_of_the_best_beginning(wanted, shown, errors):
    assert prefix_errors(wanted, shown) == errors


def test_each_word_is_looked_for_a_while_after_its_end():
    """Of "so we go" the first word is there in time, the others come too late, or wrong."""
    clip = Clip("so we go", np.zeros(0, np.float32))
    shown = [""] * (LEAD_TICKS + 9) + ["so"] * 10 + ["so he"] * 9
    assert score(clip, [0.0, 0.8, 1.6], shown, delay_s=0.8) == (0 + 1 + 2, 1 + 2 + 3)
