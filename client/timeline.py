"""The time line of a conversation as a picture: both voices over time, what was heard above, what was said below."""

from pathlib import Path

import numpy as np
from duplex.client.recording import Recording

from duplex.audio import SAMPLE_RATE
from duplex.events import Transcript

ROW_S = 12.0  # seconds in one row
MAX_ROWS = 40  # eight minutes; the rest is left out and the title says so
LANES = 3  # words that would overlap go to the next lane
LETTER_S = 0.07  # width of a letter at this font size
BINS = 1200  # drawn columns of a row
COLORS = {"user": "#2166ac", "agent": "#b2182b", "grid": "#dddddd"}
MARKS = {  # event -> (sign, colour, name in the legend)
    "user_started": (">", COLORS["user"], "user starts"),
    "user_ended": ("s", COLORS["user"], "user ends"),
    "agent_started": (">", COLORS["agent"], "agent starts"),
    "agent_ended": ("s", COLORS["agent"], "agent ends"),
    "agent_stopped": ("X", COLORS["agent"], "agent yields"),
    "lag": ("d", "#777777", "lag"),
}


def draw(recording: Recording, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max(1, int(np.ceil(recording.seconds / ROW_S)))
    shown = min(rows, MAX_ROWS)
    figure = Figure(figsize=(16, 0.9 + 2.6 * shown), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(shown, 1, squeeze=False)[:, 0]
    stereo = recording.stereo().astype(np.float32) / 32768.0  # [N, 2]
    transcript = recording.transcript()
    heard = words(transcript, "user")
    spoken = transcript.spoken or words(transcript, "agent")
    for number, axis in enumerate(axes):
        _row(axis, number * ROW_S, stereo, heard, spoken, recording.events)
    title = f"{recording.seconds:.0f} s; words heard are placed when they were written down, words said when they sound"
    if shown < rows:
        title += f"; only the first {shown * ROW_S:.0f} s are shown"
    figure.suptitle(title, fontsize=11)
    axes[-1].set_xlabel("seconds")
    _legend(figure, recording.events)
    figure.savefig(path)


def words(transcript: Transcript, who: str) -> list[tuple[float, str]]:
    """All words of one side, each at the time at which it was written down."""
    return [word for turn in transcript.turns(who) for word in turn.words()]


def _row(
    axis, start_s: float, stereo: np.ndarray, heard: list, spoken: list, events: list[dict]
) -> None:
    end_s = start_s + ROW_S
    for channel, middle, color in ((0, 1.0, COLORS["user"]), (1, -1.0, COLORS["agent"])):
        low, high = _envelope(stereo[:, channel], start_s)
        times = start_s + (np.arange(BINS) + 0.5) * ROW_S / BINS
        axis.fill_between(
            times, middle + low, middle + high, color=color, linewidth=0.3, alpha=0.75
        )
    for words, base, step, color in (
        (heard, 2.2, 0.5, COLORS["user"]),
        (spoken, -2.5, -0.5, COLORS["agent"]),
    ):
        for time_s, lane, word in _place(words, start_s, end_s):
            axis.text(time_s, base + lane * step, word, fontsize=9, color=color, clip_on=True)
    for event in events:
        if event["type"] in MARKS and start_s <= event["time_s"] < end_s:
            sign, color, _ = MARKS[event["type"]]
            level = (
                1.0
                if event["type"].startswith("user")
                else -1.0
                if event["type"].startswith("agent")
                else 0.0
            )
            axis.axvline(event["time_s"], color=color, linewidth=0.6, alpha=0.4)
            axis.plot(
                event["time_s"],
                level,
                sign,
                color=color,
                markersize=7,
                markeredgecolor="black",
                zorder=5,
            )
    axis.set_xlim(start_s, end_s)
    axis.set_ylim(-4.0, 3.8)
    axis.set_yticks([1.0, -1.0], ["user", "agent"])
    axis.set_xticks(np.arange(start_s, end_s + 0.5, 1.0))
    axis.grid(axis="x", color=COLORS["grid"], linewidth=0.5)
    axis.set_axisbelow(True)


def _envelope(samples: np.ndarray, start_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest sample of each of the row's columns, [BINS] each, scaled to fill the track."""
    width = int(ROW_S * SAMPLE_RATE / BINS)
    first = int(start_s * SAMPLE_RATE)
    row = np.zeros(BINS * width, np.float32)
    part = samples[first : first + len(row)]
    row[: len(part)] = part
    columns = row.reshape(BINS, width) / max(0.05, float(np.abs(samples).max(initial=0.0)))
    return columns.min(axis=1) * 0.9, columns.max(axis=1) * 0.9


def _place(
    words: list[tuple[float, str]], start_s: float, end_s: float
) -> list[tuple[float, int, str]]:
    """A lane for each word of the row, so that neighbours do not cover each other."""
    free_at = [start_s] * LANES
    placed = []
    for time_s, word in words:
        if not start_s <= time_s < end_s:
            continue
        lane = next(
            (lane for lane in range(LANES) if free_at[lane] <= time_s), int(np.argmin(free_at))
        )
        time_s = min(max(time_s, free_at[lane]), end_s)
        free_at[lane] = time_s + LETTER_S * (len(word) + 1)
        placed.append((time_s, lane, word))
    return placed


def _legend(figure, events: list[dict]) -> None:
    from matplotlib.lines import Line2D

    present = {event["type"] for event in events}
    marks = [mark for kind, mark in MARKS.items() if kind in present]
    handles = [
        Line2D([], [], color=color, marker=sign, linestyle="", label=name)
        for sign, color, name in marks
    ]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=len(handles), frameon=False
        )
