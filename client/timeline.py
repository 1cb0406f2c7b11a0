"""The time line of a conversation as a picture: both voices over time, and the words of each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.client.recording import Recording
from duplex.events import Transcript

# Seconds in one row.
ROW_S = 12.0
# Drawn columns of a row.
BINS = 1200
COLORS = {"user": "#2166ac", "agent": "#b2182b", "grid": "#dddddd"}
# By kind of event: its sign, colour and name in the legend.
MARKS = {
    "user_started": (">", COLORS["user"], "user starts"),
    "user_ended": ("s", COLORS["user"], "user ends"),
    "agent_started": (">", COLORS["agent"], "agent starts"),
    "agent_ended": ("s", COLORS["agent"], "agent ends"),
    "agent_stopped": ("X", COLORS["agent"], "agent yields"),
    "lag": ("d", "#777777", "lag"),
}


@dataclass(frozen=True)
class Track:
    """One side of a conversation as it is drawn."""

    who: str
    # float32 [N] in [-1, 1].
    samples: np.ndarray
    # Each with its time in seconds.
    words: list[tuple[float, str]]
    # Height of its middle, of its first line of words, and from there to the next.
    middle: float
    words_at: float
    lane_step: float


def draw(recording: Recording, path: Path, max_rows: int = 40) -> None:
    """Write the picture; beyond max_rows, eight minutes, the rest is left out and it says so."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max(1, int(np.ceil(recording.seconds / ROW_S)))
    shown = min(rows, max_rows)
    figure = Figure(figsize=(16, 0.9 + 2.6 * shown), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(shown, 1, squeeze=False)[:, 0]
    tracks = _tracks(recording)
    for number, axis in enumerate(axes):
        _draw_row(axis, number * ROW_S, tracks, recording.events)
    title = (
        f"{recording.seconds:.0f} s; words heard are placed when they were written down, "
        "words said when they sound"
    )
    if shown < rows:
        title += f"; only the first {shown * ROW_S:.0f} s are shown"
    figure.suptitle(title, fontsize=11)
    axes[-1].set_xlabel("seconds")
    _draw_legend(figure, recording.events)
    figure.savefig(path)


def words(transcript: Transcript, who: str) -> list[tuple[float, str]]:
    """All words of one side, each at the time at which it was written down."""
    return [word for turn in transcript.turns(who) for word in turn.words()]


def _tracks(recording: Recording) -> list[Track]:
    stereo = recording.stereo().astype(np.float32) / 32768.0  # [N, 2]
    transcript = recording.transcript()
    heard = words(transcript, "user")
    # Where only the decision is known, words stand where they were decided.
    spoken = transcript.spoken or words(transcript, "agent")
    return [
        Track("user", stereo[:, 0], heard, middle=1.0, words_at=2.2, lane_step=0.5),
        Track("agent", stereo[:, 1], spoken, middle=-1.0, words_at=-2.5, lane_step=-0.5),
    ]


def _draw_row(axis, start_s: float, tracks: list[Track], events: list[dict]) -> None:
    end_s = start_s + ROW_S
    times = start_s + (np.arange(BINS) + 0.5) * ROW_S / BINS
    for track in tracks:
        color = COLORS[track.who]
        low, high = _envelope(track.samples, start_s)
        axis.fill_between(
            times,
            track.middle + low,
            track.middle + high,
            color=color,
            linewidth=0.3,
            alpha=0.75,
        )
        for time_s, lane, word in _place(track.words, start_s, end_s):
            height = track.words_at + lane * track.lane_step
            axis.text(time_s, height, word, fontsize=9, color=color, clip_on=True)
    for event in events:
        if event["type"] in MARKS and start_s <= event["time_s"] < end_s:
            _draw_mark(axis, event["type"], event["time_s"])
    axis.set_xlim(start_s, end_s)
    axis.set_ylim(-4.0, 3.8)
    axis.set_yticks([track.middle for track in tracks], [track.who for track in tracks])
    axis.set_xticks(np.arange(start_s, end_s + 0.5, 1.0))
    axis.grid(axis="x", color=COLORS["grid"], linewidth=0.5)
    axis.set_axisbelow(True)


def _draw_mark(axis, kind: str, time_s: float) -> None:
    """An event's sign on its side's track, or between them."""
    sign, color, _ = MARKS[kind]
    height = {"user": 1.0, "agent": -1.0}.get(kind.split("_")[0], 0.0)
    axis.axvline(time_s, color=color, linewidth=0.6, alpha=0.4)
    axis.plot(time_s, height, sign, color=color, markersize=7, markeredgecolor="black", zorder=5)


def _envelope(samples: np.ndarray, start_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest sample of each of the row's columns, [BINS] each.

    They are scaled so that the loudest sample of all fills the track.
    """
    width = int(ROW_S * SAMPLE_RATE / BINS)
    first = int(start_s * SAMPLE_RATE)
    row = np.zeros(BINS * width, np.float32)
    part = samples[first : first + len(row)]
    row[: len(part)] = part
    columns = row.reshape(BINS, width) / max(0.05, float(np.abs(samples).max(initial=0.0)))
    return columns.min(axis=1) * 0.9, columns.max(axis=1) * 0.9


def _place(
    words: list[tuple[float, str]],
    start_s: float,
    end_s: float,
    lanes: int = 3,
    letter_s: float = 0.07,
) -> list[tuple[float, int, str]]:
    """A time and a lane for each word of the row, so that neighbours do not cover each other.

    letter_s: width of a letter.
    """
    free_at = [start_s] * lanes
    placed = []
    for time_s, word in words:
        if not start_s <= time_s < end_s:
            continue
        free = [lane for lane in range(lanes) if free_at[lane] <= time_s]
        lane = free[0] if free else int(np.argmin(free_at))
        time_s = min(max(time_s, free_at[lane]), end_s)
        free_at[lane] = time_s + letter_s * (len(word) + 1)
        placed.append((time_s, lane, word))
    return placed


def _draw_legend(figure, events: list[dict]) -> None:
    from matplotlib.lines import Line2D

    present = {event["type"] for event in events}
    marks = [mark for kind, mark in MARKS.items() if kind in present]
    handles = [
        Line2D([], [], color=color, marker=sign, linestyle="", label=name)
        for sign, color, name in marks
    ]
    if handles:
        columns = len(handles)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
