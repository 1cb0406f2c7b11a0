"""The bench's report at a glance: six tiles, how soon it answered, and what a scene failed by."""

from html import escape

from duplex.bench.report import published
from duplex.bench.report.figures import FIGURES
from duplex.bench.report.report import number

# By tile: the kinds of scene in it, and the time that belongs to them.
TILES = {
    "Turns": (("turn",), "latency_s", "answers after"),
    "Pauses": (("pause",), "latency_s", "answers after"),
    "Interruptions": (("interruption",), "stop_s", "is silent after"),
    "Back-channels": (("back_channel",), None, ""),
    "Side talk, television": (("side_talk", "background"), None, ""),
    "Echo, noise, silence": (("echo", "noise", "silence", "listening"), None, ""),
}
# Pixels of the strip and of a letter in it, and the seconds that it shows.
WIDTH = 1080
LEFT = 190
SECONDS = 2.0
LETTER = 5.4


def tiles(behaviour: dict) -> str:
    """How many scenes of each sort were handled by each agent."""
    parts = []
    for title, (kinds, key, words) in TILES.items():
        rows = []
        for agent, found in behaviour.items():
            scenes = [row for row in found["scenes"] if row["kind"] in kinds]
            if scenes:
                rows.append(_tile_row(agent, scenes, key, words))
        if rows:
            parts.append(f"<div class=tile><h3>{title}</h3>{''.join(rows)}</div>")
    return f"<div class=tiles>{''.join(parts)}</div>"


def _tile_row(agent: str, scenes: list[dict], key: str | None, words: str) -> str:
    done = sum(row["figures"].get("handled") == 1 for row in scenes)
    times = sorted(row["figures"][key] for row in scenes if key and row["figures"].get(key))
    told = f"{words} {times[len(times) // 2]:.2f} s" if times else ""
    state = "whole" if done == len(scenes) else "part"
    bar = (
        f"<div class=bar><i class={state} style='width:{100 * done / len(scenes):.0f}%'></i></div>"
    )
    head = f"<b>{done} of {len(scenes)}</b> <span>{escape(agent)}</span>"
    return f"<p>{head}</p>{bar}<small>{told}</small>"


def failures(row: dict) -> list[str]:
    """What a scene that was not handled failed by, in the figures' own words."""
    figures = row["figures"]
    if figures.get("handled") in (None, 1):
        return []
    found = []
    for name, value in figures.items():
        rule = FIGURES[name]
        if name == "handled" or rule.unit or value is None:
            continue
        if rule.better == "low" and value == 1:
            found.append(rule.title)
        elif rule.better == "high" and value == 0:
            found.append(f"not: {rule.title}")
    if "latency_s" in figures and figures["latency_s"] is None:
        found.append("no answer")
    return found or ["handled otherwise than it should be"]


def strip(behaviour: dict) -> str:
    """How soon each question was answered, beside published means of the same rule, as SVG."""
    rows = []
    for agent, found in behaviour.items():
        for key, rule in (("latency_s", "to its first sound"), ("latency_clipped_s", "FDB's rule")):
            times = [row["figures"].get(key) for row in found["scenes"] if row["kind"] == "turn"]
            dots = [(value, "") for value in times if value is not None]
            if dots:
                rows.append((f"{agent}, {rule}", "agent", dots))
    column = [title for title, _ in published.COLUMNS].index("turn: latency s ↓")
    means = sorted((values[column], name) for name, values in published.MODELS.items())
    if not rows:
        return ""
    rows.append(("published means, FDB's rule", "user", means))
    return _strip_picture(rows)


def _strip_picture(rows: list[tuple[str, str, list[tuple[float, str]]]]) -> str:
    """Rows of (name, class, dots); a dot is (seconds, its own name)."""
    height = 34 * len(rows) + 40

    def place(seconds: float) -> float:
        return LEFT + min(seconds, SECONDS) * (WIDTH - LEFT - 40) / SECONDS

    parts = [f"<svg viewBox='0 0 {WIDTH} {height}' width={WIDTH}>"]
    for tenths in range(0, int(SECONDS * 10) + 1, 5):
        x = place(tenths / 10)
        parts.append(f"<path d='M{x:.1f} 6V{height - 26}' class=beat />")
        parts.append(f"<text x={x - 10:.1f} y={height - 8} class=pale>{tenths / 10:.1f} s</text>")
    for number_, (name, style, dots) in enumerate(rows):
        y = 20 + 34 * number_
        parts.append(f"<text x=4 y={y + 4}>{escape(name)}</text>")
        free = 0.0
        for seconds, label in dots:
            x = place(seconds)
            title = escape(f"{label} {number(seconds)} s".strip())
            circle = f"<circle cx={x:.1f} cy={y} r=5 class={style} opacity=.75>"
            parts.append(f"{circle}<title>{title}</title></circle>")
            if label:
                at = max(x - 10, free)
                free = at + LETTER * (len(title) + 2)
                parts.append(f"<text x={at:.1f} y={y + 18} class=pale>{title}</text>")
    return f"<div class=wide>{''.join(parts)}</svg></div>"
