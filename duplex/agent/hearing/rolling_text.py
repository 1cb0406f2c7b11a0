"""What a turn is while it goes on, from readings of it that are each a little longer.

The end of a reading may be wrong: its last word was perhaps cut in two. What two readings in a row
begin with is right, as a rule (LocalAgreement-2, Machacek et al., 2023, arXiv 2307.14743).
"""

import re

from duplex.agent.session import SecondPassState


def take_reading(turn: SecondPassState, text: str, is_whole: bool = False) -> bool:
    """Take in one more reading of the turn; is_whole: nobody speaks any more, so all of it counts.

    Returns whether more words are agreed on than before. No word is taken back unless as many
    others are agreed on.
    """
    words = text.split()
    common = words if is_whole else words[: _common_length(turn.latest, words)]
    turn.latest = words
    grows = len(common) > len(turn.agreed)
    if is_whole or len(common) >= len(turn.agreed):
        turn.agreed = common
    return grows


def _common_length(before: list[str], now: list[str]) -> int:
    """Words that both begin with, whatever signs and capitals they are written with."""
    length = 0
    for old, new in zip(before, now, strict=False):
        if _letters(old) != _letters(new):
            break
        length += 1
    return length


def _letters(word: str) -> str:
    return re.sub(r"\W", "", word.lower()) or word
