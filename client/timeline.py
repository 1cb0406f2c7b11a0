"""The time line of a conversation as a picture: who speaks when, the words, and how soon answers
come. Overlaps are shaded, a voice that yields ends at a red edge."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.client import sounding
from duplex.client.recording import Recording
from duplex.client.sounding import Stretch
from duplex.transcript import Transcript


@dataclass(frozen=True)
class PictureConfig:
    """How it is drawn."""

    # Seconds in one row, at most and at least, and drawn columns of one: rows are equally long.
    row_s: float = 12.0
    least_row_s: float = 6.0
    bins: int = 1200
    # Beyond so many rows, eight minutes, the rest is left out.
    max_rows: int = 40
    user: str = "#2166ac"
    agent: str = "#b34b16"
    both: str = "#e9dfc4"
    stop: str = "#b3261e"
    soft: str = "#777777"
    grid: str = "#e4e4e4"
    # Seconds after which a voice is no answer to the one before.
    longest_answer_s: float = 6.0
    # Width of a letter in seconds, and lanes of words on each side.
    letter_s: float = 0.075
    lanes: int = 2


@dataclass(frozen=True)
class Scene:
    """All that is drawn, on the clock of the tracks."""

    seconds: float
    # float32 [N] in [-1, 1], the user's and the agent's.
    tracks: tuple[np.ndarray, np.ndarray]
    voices: tuple[list[Stretch], list[Stretch]]
    # Each word with its time.
    words: tuple[list[tuple[float, str]], list[tuple[float, str]]]
    # (time, what was not said) where the agent yielded.
    stops: list[tuple[float, str]]
    # From the end of the user's voice to the agent's first sound.
    answers: list[Stretch]


def draw(recording: Recording, path: Path, config: PictureConfig | None = None) -> None:
    """Write the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    config = config or PictureConfig()
    scene = scene_of(recording, config)
    rows = max(1, int(np.ceil(scene.seconds / config.row_s)))
    config = _with_rows(config, scene.seconds / rows)
    shown = min(rows, config.max_rows)
    figure = Figure(figsize=(16, 0.8 + 2.1 * shown), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    for number, axis in enumerate(figure.subplots(shown, 1, squeeze=False)[:, 0]):
        _draw_row(axis, number * config.row_s, scene, config)
    title = _title(scene)
    if shown < rows:
        title += f"; only the first {shown * config.row_s:.0f} s are shown"
    figure.suptitle(title, fontsize=11)
    figure.savefig(path)


def _with_rows(config: PictureConfig, seconds: float) -> PictureConfig:
    """Rows of whole seconds, so that the last one is not nearly empty."""
    row_s = max(config.least_row_s, float(np.ceil(seconds)))
    return replace(config, row_s=row_s, letter_s=config.letter_s * row_s / config.row_s)


def scene_of(recording: Recording, config: PictureConfig | None = None) -> Scene:
    """What there is to draw of a recording."""
    config = config or PictureConfig()
    stereo = recording.stereo().astype(np.float32) / 32768.0  # [N, 2]
    transcript = recording.transcript()
    voices = sounding.stretches(recording.user), sounding.stretches(recording.agent)
    # Where only the decision is known, words stand where they were decided.
    spoken = transcript.spoken or words(transcript, "agent")
    stops = [
        (event.get("end_s", event["time_s"]), event.get("text", "").strip())
        for event in recording.events
        if event["type"] == "agent_stopped"
    ]
    return Scene(
        recording.seconds,
        (stereo[:, 0], stereo[:, 1]),
        voices,
        (words(transcript, "user"), spoken),
        stops,
        answers(transcript, *voices, config.longest_answer_s),
    )


def words(transcript: Transcript, who: str) -> list[tuple[float, str]]:
    """All words of one side with their times."""
    return [word for turn in transcript.turns(who) for word in turn.words()]


def answers(
    transcript: Transcript, user: list[Stretch], agent: list[Stretch], longest_s: float
) -> list[Stretch]:
    """The silences between the user's voice and the first sound of each of the agent's turns.

    Where a turn goes on after a pause, that is no answer.
    """
    found = []
    for turn in transcript.turns("agent"):
        begins = [it.start_s for it in agent if it.start_s >= turn.start_s - 0.1]
        before = [it.end_s for it in user if begins and it.end_s <= begins[0]]
        if before and before[-1] > begins[0] - longest_s:
            if not found or found[-1].end_s < begins[0]:
                found.append(Stretch(before[-1], begins[0]))
    return found


def overlaps(user: list[Stretch], agent: list[Stretch]) -> list[Stretch]:
    """Where both can be heard."""
    found = []
    for one in user:
        for other in agent:
            start_s = max(one.start_s, other.start_s)
            end_s = min(one.end_s, other.end_s)
            if start_s < end_s:
                found.append(Stretch(start_s, end_s))
    return found


def _title(scene: Scene) -> str:
    parts = [f"{scene.seconds:.0f} s"]
    if scene.answers:
        seconds = sorted(it.end_s - it.start_s for it in scene.answers)
        median_s = seconds[len(seconds) // 2]
        noun = "an answer" if len(seconds) == 1 else f"{len(seconds)} answers, the median"
        parts.append(f"{noun} after {median_s:.2f} s")
    if scene.stops:
        parts.append(f"{len(scene.stops)} interruption{'s' if len(scene.stops) > 1 else ''}")
    if overlaps(*scene.voices):
        parts.append("shaded: both speak")
    return " · ".join(parts)


def _draw_row(axis, start_s: float, scene: Scene, config: PictureConfig) -> None:
    end_s = start_s + config.row_s
    last_s = min(end_s, scene.seconds)
    for both in overlaps(*scene.voices):
        axis.axvspan(both.start_s, both.end_s, color=config.both, linewidth=0, zorder=0)
    times = start_s + (np.arange(config.bins) + 0.5) * config.row_s / config.bins
    colors = config.user, config.agent
    for side, (samples, color) in enumerate(zip(scene.tracks, colors, strict=True)):
        height = _envelope(samples, start_s, config) * (1 if side == 0 else -1)
        axis.fill_between(times, 0.0, height, color=color, linewidth=0.0)
        for time_s, lane, word, align in _place(scene.words[side], start_s, end_s, config):
            y = (1.25 + 0.42 * lane) if side == 0 else -(1.5 + 0.42 * lane)
            axis.text(time_s, y, word, fontsize=9, color=color, ha=align, clip_on=True)
    for answer in scene.answers:
        if start_s <= answer.end_s < end_s:
            _draw_answer(axis, answer, config)
    for time_s, unsaid in scene.stops:
        if start_s <= time_s < end_s:
            _draw_stop(axis, time_s, unsaid, config)
    axis.plot([start_s, last_s], [0.0, 0.0], color=config.soft, linewidth=0.6)
    axis.set_xlim(start_s, end_s)
    axis.set_ylim(-2.3, 2.2)
    axis.set_yticks([0.6, -0.6], ["you", "agent"])
    ticks = np.arange(start_s, last_s + 0.01, 1.0)
    axis.set_xticks(ticks, [f"{int(at) // 60}:{int(at) % 60:02d}" for at in ticks])
    axis.tick_params(length=0)
    axis.grid(axis="x", color=config.grid, linewidth=0.5)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axis.spines[side].set_visible(False)


def _draw_answer(axis, answer: Stretch, config: PictureConfig) -> None:
    """A bracket over the silence, with its length."""
    xs = [answer.start_s, answer.start_s, answer.end_s, answer.end_s]
    axis.plot(xs, [0.15, 0.3, 0.3, 0.0], color=config.soft, linewidth=0.9)
    seconds = answer.end_s - answer.start_s
    middle_s = (answer.start_s + answer.end_s) / 2
    axis.text(
        middle_s, 0.4, f"{seconds:.2f} s", fontsize=8, color=config.soft, ha="center", clip_on=True
    )


def _draw_stop(axis, time_s: float, unsaid: str, config: PictureConfig) -> None:
    """The edge where the agent broke off, and what it did not say, struck through."""
    axis.plot([time_s, time_s], [0.0, -1.2], color=config.stop, linewidth=2.0)
    struck = "".join(f"{letter}\u0336" for letter in unsaid[:60])
    axis.text(
        time_s + 0.05, -1.15, struck, fontsize=8, color=config.stop, va="bottom", clip_on=True
    )


def _envelope(samples: np.ndarray, start_s: float, config: PictureConfig) -> np.ndarray:
    """Loudness of each of the row's columns, [bins], as is seen best: 0 to 1, the root of it.

    It is scaled so that the loudest sample of all fills the track.
    """
    width = int(config.row_s * SAMPLE_RATE / config.bins)
    first = int(start_s * SAMPLE_RATE)
    row = np.zeros(config.bins * width, np.float32)
    part = samples[first : first + len(row)]
    row[: len(part)] = part
    loudest = max(0.05, float(np.abs(samples).max(initial=0.0)))
    return np.abs(row).reshape(config.bins, width).max(axis=1) / loudest


def _place(
    words: list[tuple[float, str]], start_s: float, end_s: float, config: PictureConfig
) -> list[tuple[float, int, str, str]]:
    """Time, lane, word and alignment of each word of the row: neighbours do not cover each other,
    and none is cut at the row's end."""
    free_at = [start_s] * config.lanes
    placed = []
    for time_s, word in words:
        if not start_s <= time_s < end_s:
            continue
        free = [lane for lane in range(config.lanes) if free_at[lane] <= time_s + 0.02]
        lane = free[0] if free else int(np.argmin(free_at))
        begin_s = max(time_s, free_at[lane])
        width_s = config.letter_s * (len(word) + 1)
        free_at[lane] = begin_s + width_s
        if begin_s + width_s > end_s:
            placed.append((end_s, lane, word, "right"))
        else:
            placed.append((begin_s, lane, word, "left"))
    return placed
