"""The bench's results as one HTML page that needs nothing else."""

from html import escape
from pathlib import Path
from urllib.parse import quote

from duplex.bench.report import published
from duplex.bench.report.figures import FIGURES
from duplex.bench.report.pictures import histogram, time_line
from duplex.bench.report.report import (
    figure_rows,
    level_rows,
    memory,
    number,
    spread_rows,
    title,
)
from duplex.bench.report.tiles import failures, strip, tiles


def html(report: dict) -> str:
    """The whole page, a pure function of the report."""
    style = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
    parts = [
        "<!doctype html><meta charset=utf-8><title>duplex bench</title>",
        f"<style>\n{style}</style><h1>duplex bench</h1>",
        _head(report),
    ]
    if report.get("behaviour"):
        parts += [tiles(report["behaviour"]), _speed(report["behaviour"])]
        parts += [_behaviour(report["behaviour"]), _published(report["behaviour"])]
    if report.get("latency"):
        parts.append(_latency(report["latency"]))
    if report.get("load"):
        parts.append(_load(report["load"]))
    if report.get("behaviour"):
        parts.append(_scenes(report["behaviour"]))
    return "\n".join(parts) + "\n"


def _head(report: dict) -> str:
    """What was measured, and on which machine."""
    machine = report["machine"]
    what = f"duplex {escape(report['version'])}, seed {report['seed']}, {report['scenes']} scenes"
    where = f", agent behind {escape(report['url'])}" if report["url"] else ""
    return f"<p>{what}{where}; {escape(machine['processor'])}, {machine['cores']} cores.</p>"


def _note(text: str) -> str:
    return f"<p class=note>{' '.join(text.split())}</p>"


def _table(rows: list[list], left: int = 1) -> str:
    """Rows of cells, the first as heads, the first `left` columns to the left."""
    parts = []
    for place, row in enumerate(rows):
        tag = "td" if place else "th"
        cells = [
            f"<{tag}{' class=l' if column < left else ''}>{escape(str(cell))}</{tag}>"
            for column, cell in enumerate(row)
        ]
        parts.append(f"<tr>{''.join(cells)}</tr>")
    return f"<div class=wide><table>{''.join(parts)}</table></div>"


def _behaviour(behaviour: dict) -> str:
    """The figures by kind of scene, a column for each agent."""
    heads = "".join(f"<th>{escape(agent)}</th>" for agent in behaviour)
    parts = [
        "<h2>Behaviour</h2><div class=wide><table><tr>",
        f"<th class=l>scenes</th><th class=l>figure</th><th class=l>by</th>{heads}</tr>",
    ]
    last = None
    for kind, name, cells in figure_rows(behaviour):
        styles = ["first"] * (kind != last) + ["handled"] * (name == "handled")
        shown = kind.replace("_", " ") if kind != last else ""
        texts = [shown, escape(title(FIGURES[name])), FIGURES[name].by]
        row = "".join(f"<td class=l>{text}</td>" for text in texts)
        row += "".join(f"<td>{cell}</td>" for cell in cells)
        parts.append(f"<tr class='{' '.join(styles)}'>{row}</tr>")
        last = kind
    values = "".join(f"<td>{number(found['discernment'])}</td>" for found in behaviour.values())
    row = f"<td></td><td class=l>discernment ↑</td><td class=l>mended</td>{values}"
    parts.append(f"<tr class=first>{row}</tr></table></div>")
    note = (
        "In brackets: the scenes that could tell. Silence and continuous talk score well by "
        "some of FDB's rules; “handled” asks for all a scene wants at once. Discernment is "
        "the yield rate at interruptions minus the share of back-channels that stop the "
        "agent: 0 for one that always stops and for one that never does. Words are Whisper "
        "base's, voice is silero-vad's. Relevance is a local stand-in for a judge: the share "
        "of the other questions after which SmolLM2-135M finds the answer less likely (0.5 is "
        "chance); it knows little, and agents made from it may please it more than they "
        "should. The reference timing of back-channels is the first second of every pause, "
        "unless a scene brings a recorded person. The cascade is charged a fixed time for "
        "thinking, see duplex/bench/cascade.py."
    )
    return "".join(parts) + _note(note)


def _speed(behaviour: dict) -> str:
    """The strip of response times."""
    picture = strip(behaviour)
    note = "A dot for each question; the published ones are means of other data and machines."
    return picture and "<h2>How soon it answers</h2>" + _note(note) + picture


def _published(behaviour: dict) -> str:
    """Our figures beside published ones."""

    def digits(value: float | None) -> str:
        return "–" if value is None else f"{value:.3g}"

    rows = [["", "source", *(title for title, _ in published.COLUMNS)]]
    for agent, found in behaviour.items():
        row = [agent, "measured here"]
        for _, ours in published.COLUMNS:
            value = found["summary"].get(ours[0], {}).get(ours[1]) if ours else None
            row.append(digits(value and value["mean"]))
        rows.append(row)
    for name, values in published.MODELS.items():
        row = [name, "published (other data, other machine)"]
        rows.append(row + [digits(value) for value in values])
    note = (
        "FDB v1's own rules on both sides, so the weaknesses above are in both; our scenes "
        "are few, synthetic and not theirs, and their judge is a paid one. Read it for orders "
        "of magnitude."
    )
    return "<h2>Beside published numbers</h2>" + _table(rows, 2) + _note(note)


def _latency(latency: dict) -> str:
    """The times of every agent, as a table and as histograms."""
    parts = ["<h2>Latency</h2>" + _note("Real time, on the wall's clock; milliseconds.")]
    for agent, found in latency.items():
        parts.append(f"<h3>{escape(agent)}</h3>" + _table(spread_rows(found)))
        engine = found["engine"] or {}
        if "tick_ms" in engine and "step_ms" in engine:
            rows = [["engine", "p50", "p99", "max"]]
            for label, key in (("due to done", "tick_ms"), ("of it the step", "step_ms")):
                rows.append([label, *(engine[key][name] for name in ("p50", "p99", "max"))])
            parts.append(_table(rows))
        answered = (found["first_sample"] or {}).get("count", 0)
        yielded = (found["silence"] or {}).get("count", 0)
        answers = f"{answered} of {found['asked']} questions answered in time"
        stops = f"{yielded} of {found['interrupted']} interruptions found it speaking"
        parts.append(f"<p>{answers}, {stops} and saw it stop.</p>")
        named = {
            "end of speech to first sample": found["first_sample"],
            "interruption to silence": found["silence"],
            "tick": found["per_tick"].get("tick"),
        }
        parts += [histogram(name, spread) for name, spread in named.items() if spread]
    return "".join(parts)


def _load(load: dict) -> str:
    """The steps of the load on every agent."""
    rule = "Held: 99 % of a session's ticks came less than one tick (80 ms) after their beat."
    parts = ["<h2>Load</h2>" + _note(rule)]
    for agent, found in load.items():
        held = f"{found['held']} sessions held, memory per session {memory(found)}"
        parts.append(f"<h3>{escape(agent)}: {held}</h3>" + _table(level_rows(found)))
        if found.get("full"):
            parts.append(f"<p>{escape(found['full'])}</p>")
    return "".join(parts)


def _scenes(behaviour: dict) -> str:
    """The time line of every scene, of all agents one below the other; failed ones first."""
    note = (
        "Those that an agent failed come first, the others open with a click. The user above, the "
        "agent below; grey: voice as silero-vad finds it; words as Whisper heard them; small "
        "marks: when the agent says that it or the user began or ended (point at one to read it). "
        "The sound plays where the folder recordings is beside this page: user left, agent right."
    )
    parts = ["<h2>Scenes</h2>" + _note(note)]
    scenes: dict[str, list[tuple[str, dict]]] = {}
    for agent, found in behaviour.items():
        for row in found["scenes"]:
            scenes.setdefault(row["name"], []).append((agent, row))
    for name, rows in sorted(scenes.items(), key=lambda scene: not _has_failed(scene[1])):
        parts.append(_scene(name, rows))
    return "".join(parts)


def _has_failed(rows: list[tuple[str, dict]]) -> bool:
    return any(failures(row) for _, row in rows)


def _scene(name: str, rows: list[tuple[str, dict]]) -> str:
    """One scene, with what each agent made of it."""
    has_failed = _has_failed(rows)
    state = " open class=failed" if has_failed else ""
    mark = " <em>failed</em>" if has_failed else ""
    parts = [f"<details{state}><summary><b>{escape(name)}</b>{mark}</summary>"]
    for agent, row in rows:
        texts = [f"{FIGURES[key].title}: {number(value)}" for key, value in row["figures"].items()]
        figures = escape(" · ".join(texts))
        parts.append(f"<h3>{escape(agent)} <small>{figures}</small></h3>")
        if wrong := failures(row):
            parts.append(f"<p class=wrong>failed: {escape(', '.join(wrong))}</p>")
        sound = quote(f"recordings/{agent}/{name}.flac")
        parts.append(f"<audio controls preload=none src='{sound}'></audio>")
        parts.append(f"<div class=wide>{time_line(row)}</div>")
    return "".join([*parts, "</details>"])
