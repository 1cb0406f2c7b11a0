"""A conversation as a picture: both channels over time, with the words where they were found."""

from html import escape

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.training.conversations.conversation import Conversation

COLORS = {"agent": "#b2182b", "user": "#2166ac"}
# Pixels a second, of a row, and of a letter.
SCALE = 48
ROW = 176
LETTER = 6.2


def draw(name: str, found: Conversation, max_s: float = 60.0, row_s: float = 20.0) -> str:
    """The first seconds of a conversation as SVG."""
    seconds = min(max_s, len(found.samples) / SAMPLE_RATE)
    rows = int(np.ceil(seconds / row_s))
    width = int(row_s * SCALE)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {20 + ROW * rows}' "
        "font-family='sans-serif' font-size='11'>",
        f"<text x='2' y='13'>{escape(name)}</text>",
    ]
    for row in range(rows):
        parts += draw_row(found, row * row_s, row_s, 20 + ROW * row)
    return "\n".join(parts) + "\n</svg>\n"


def draw_row(found: Conversation, start: float, row_s: float, top: float) -> list[str]:
    """One row from second `start` on."""
    parts = []
    for side, name in enumerate(("agent", "user")):
        middle = top + 30 + 80 * side
        words = {"agent": found.agent, "user": found.user}[name]
        begin = int(start * SAMPLE_RATE)
        wave = found.samples[begin : begin + int(row_s * SAMPLE_RATE), side]
        parts.append(f"<path d='{outline(wave, middle)}' fill='{COLORS[name]}' opacity='.45'/>")
        parts += draw_words(words.words if words else [], start, row_s, middle, COLORS[name])
    for second in range(int(row_s) + 1):
        x = second * SCALE
        parts.append(f"<path d='M{x} {top}v158' stroke='#ddd'/>")
        if second % 5 == 0:
            at = f"x='{x + 2}' y='{top + 168}' fill='#888'"
            parts.append(f"<text {at}>{start + second:.0f} s</text>")
    return parts


def outline(wave: np.ndarray, middle: float, height: float = 24.0) -> str:
    """The path around a wave, int16 [N]: its peak in every two pixels."""
    step = 2 * SAMPLE_RATE // SCALE
    peaks = np.abs(wave[: len(wave) // step * step].astype(np.int32)).reshape(-1, step).max(1)
    tops = [f"{2 * n} {middle - 0.5 - height * peak / 32768:.1f}" for n, peak in enumerate(peaks)]
    lows = [f"{2 * n} {middle + 0.5 + height * peak / 32768:.1f}" for n, peak in enumerate(peaks)]
    return "M" + "L".join([*tops, *reversed(lows)]) + "Z" if tops else "M0 0"


def draw_words(words: list, start: float, row_s: float, middle: float, color: str) -> list[str]:
    """The words of a row under their sound, in lanes so that none covers another."""
    parts = []
    free = [0.0, 0.0, 0.0]
    for word, begin, end in words:
        if not start <= begin < start + row_s:
            continue
        x = (begin - start) * SCALE
        lane = next((n for n, end in enumerate(free) if x >= end), int(np.argmin(free)))
        free[lane] = x + LETTER * (len(word) + 1)
        width = max(1.0, (end - begin) * SCALE)
        parts.append(
            f"<path d='M{x:.1f} {middle + 18}h{width:.1f}' stroke='{color}' stroke-width='2'/>"
            f"<text x='{x:.1f}' y='{middle + 30 + 11 * lane}' fill='{color}'>{escape(word)}</text>"
        )
    return parts
