"""The bench's results to look at: a table for the terminal, and one HTML page that needs nothing else."""

from html import escape

from duplex.bench.figures import FIGURES

ARROWS = {"high": "↑", "low": "↓", "": ""}
HERE, THERE = "measured here", "published (other data, other machine)"
# tables of Full-Duplex-Bench v1 (arXiv 2503.04721, leaderboard of its repository)
PUBLISHED_COLUMNS = (
    "pause, synthetic: take-over ↓", "pause, Candor: take-over ↓", "listening: take-over ↓", "listening: back-channels /s ↑",
    "listening: JS distance ↓", "turn: take-over ↑", "turn: latency s ↓", "interruption: take-over ↑", "interruption: GPT-4 0-5 ↑",
    "interruption: latency s ↓",
)  # fmt: skip
PUBLISHED = {
    "PersonaPlex": (0.584, 0.662, 0.327, 0.025, 0.649, 0.992, 0.070, 1.00, 4.21, 0.400),
    "Moshi": (0.985, 0.980, 1.00, 0.001, 0.957, 0.941, 0.265, 1.00, 0.77, 0.257),
    "Freeze-Omni": (0.642, 0.481, 0.636, 0.001, 0.997, 0.336, 0.953, 0.867, 3.62, 1.41),
    "Gemini Live 2.0": (0.255, 0.310, 0.091, 0.012, 0.896, 0.655, 1.30, 0.891, 3.38, 1.18),
    "GPT-Realtime": (0.010, 0.120, 0.000, 0.007, 0.980, 1.00, 1.47, 0.970, 3.85, 1.50),
}
SAME_RULES = (  # our figure for each of those columns, by the same rule; Candor's people and the judge are theirs alone
    ("pause", "take_over"), None, ("listening", "take_over"), ("listening", "back_channels_per_s"),
    ("listening", "js_distance"), ("turn", "take_over"), ("turn", "latency_clipped_s"), ("interruption", "take_over"), None,
    ("interruption", "latency_clipped_s"),
)  # fmt: skip
STYLE = """
:root{color-scheme:light dark;--page:#fff;--text:#222;--pale:#666;--line:#ddd;--head:#f4f4f4;--user:#2166ac;--agent:#b2182b}
@media(prefers-color-scheme:dark){:root{--page:#16181b;--text:#ddd;--pale:#999;--line:#3a3d42;--head:#24272b;--user:#74b3e8;
--agent:#f08a80}}
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1160px;padding:0 1em;color:var(--text);background:var(--page)}
h1{font-size:22px}h2{font-size:18px;margin-top:2em}h3{font-size:14px;margin:1.4em 0 .2em}h3 small{font-weight:400}
table{border-collapse:collapse;margin:.6em 0;font-size:12px}td,th{border:1px solid var(--line);padding:2px 6px;text-align:right}
th{background:var(--head)}td.l,th.l{text-align:left}td{white-space:nowrap}
@media(max-width:700px){td.l{white-space:normal}}
tr.first td{border-top:2px solid var(--pale)}tr.handled td{font-weight:600}small,.note{color:var(--pale)}
.wide{overflow-x:auto}svg{display:block;font:12px sans-serif}summary{cursor:pointer;margin:.6em 0;font-size:15px}
.user{fill:var(--user)}.agent{fill:var(--agent)}.beat{stroke:var(--line)}.pale{fill:var(--pale);font-size:10px}
path.mark{stroke-width:2}path.mark.user{stroke:var(--user)}path.mark.agent{stroke:var(--agent)}
"""
WIDTH, LEFT = 1080, 48  # px of a picture, and of its labels
LETTER = 6.6  # px, about
MARKED = (
    "agent_started",
    "agent_ended",
    "agent_stopped",
    "user_started",
    "user_ended",
)  # events drawn in a time line


def table(report: dict) -> str:
    """The figures as text."""
    lines = []
    agents = list(report.get("behaviour", {}))
    if agents:
        rows = [["kind", "figure", "by", *agents]]
        for kind, name, cells in _figures(report["behaviour"]):
            figure = FIGURES[name]
            rows.append(
                [
                    kind,
                    f"{figure.title} {ARROWS[figure.better]}{_unit(figure.unit)}",
                    figure.by,
                    *cells,
                ]
            )
        rows.append(
            [
                "",
                "discernment (see report) ↑",
                "mended",
                *(_number(report["behaviour"][a]["discernment"]) for a in agents),
            ]
        )
        lines += _columns(rows)
    for agent, found in report.get("latency", {}).items():
        lines += ["", f"latency of {agent}, ms"]
        lines += _columns([["", "count", "p50", "p95", "p99", "max"], *_spreads(found)])
    for agent, found in report.get("load", {}).items():
        lines += [
            "",
            f"load on {agent}: {found['held']} sessions held; memory per session {_memory(found)}",
        ]
        lines += _columns(_levels(found))
    return "\n".join(lines)


def html(report: dict) -> str:
    """The whole page, a pure function of the report."""
    machine = report["machine"]
    parts = [
        "<!doctype html><meta charset=utf-8><title>duplex bench</title>",
        f"<style>{STYLE}</style><h1>duplex bench</h1>",
        f"<p>duplex {escape(report['version'])}, seed {report['seed']}, {report['scenes']} scenes"
        + (f", agent behind {escape(report['url'])}" if report["url"] else "")
        + f"; {escape(machine['processor'])}, {machine['cores']} cores.</p>",
    ]
    if report.get("behaviour"):
        parts += [_behaviour(report["behaviour"]), _published(report["behaviour"])]
    if report.get("latency"):
        parts.append(_latency(report["latency"]))
    if report.get("load"):
        parts.append(_load(report["load"]))
    if report.get("behaviour"):
        parts.append(_scenes(report["behaviour"]))
    return "\n".join(parts) + "\n"


def _figures(behaviour: dict) -> list[tuple[str, str, list[str]]]:
    """(kind, figure, a cell for each agent), in the order of the scenes and of FIGURES."""
    kinds = list(dict.fromkeys(kind for found in behaviour.values() for kind in found["summary"]))
    rows = []
    for kind in kinds:
        tables = [found["summary"].get(kind, {}) for found in behaviour.values()]
        for name in FIGURES:
            if any(name in one for one in tables):
                rows.append((kind, name, [_cell(one.get(name)) for one in tables]))
    return rows


def _cell(value: dict | None) -> str:
    return "–" if value is None or value["mean"] is None else f"{value['mean']:.2f} ({value['of']})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _unit(unit: str) -> str:
    return f" [{unit}]" if unit else ""


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def _spreads(found: dict) -> list[list]:
    named = {
        "end of speech to first sample": found["first_sample"],
        "interruption to silence": found["silence"],
    }
    named |= {f"a tick: {name}": value for name, value in found["per_tick"].items()}
    named |= {f"an answer: {name}": value for name, value in found["per_answer"].items()}
    return [
        [name, *(value[k] for k in ("count", "p50", "p95", "p99", "max"))]
        for name, value in named.items()
        if value
    ]


def _levels(found: dict) -> list[list]:
    rows = [
        [
            "users",
            "held",
            "late p50 ms",
            "late p99 ms",
            "answers",
            "first sample p50 ms",
            "p99 ms",
            "resident MB",
        ]
    ]
    for one in found["levels"]:
        late, first = one["lateness"] or {}, one["first_sample"] or {}
        answers = f"{first.get('count', 0)} of {one['asked']}"
        times = [first.get("p50", "–"), first.get("p99", "–")]
        beat = [late.get("p50", "–"), late.get("p99", "–")]
        rows.append(
            [one["users"], one["held"], *beat, answers, *times, one.get("resident_mb", "–")]
        )
    return rows


def _memory(found: dict) -> str:
    return (
        "not visible from here"
        if found["memory_per_session_mb"] is None
        else f"{found['memory_per_session_mb']} MB"
    )


def _table(rows: list[list], left: int = 1) -> str:
    """Rows of cells, the first as heads, the first `left` columns to the left."""
    out = []
    for number, row in enumerate(rows):
        tag = "td" if number else "th"
        cells = [
            f"<{tag}{' class=l' if i < left else ''}>{escape(str(cell))}</{tag}>"
            for i, cell in enumerate(row)
        ]
        out.append(f"<tr>{''.join(cells)}</tr>")
    return f"<div class=wide><table>{''.join(out)}</table></div>"


def _behaviour(behaviour: dict) -> str:
    heads = "".join(f"<th>{escape(agent)}</th>" for agent in behaviour)
    out = ["<h2>Behaviour</h2><div class=wide><table><tr>"]
    out.append(f"<th class=l>scenes</th><th class=l>figure</th><th class=l>by</th>{heads}</tr>")
    last = None
    for kind, name, cells in _figures(behaviour):
        figure = FIGURES[name]
        style = " ".join(["first"] * (kind != last) + ["handled"] * (name == "handled"))
        title = escape(f"{figure.title} {ARROWS[figure.better]}{_unit(figure.unit)}")
        values = "".join(f"<td>{cell}</td>" for cell in cells)
        shown = kind.replace("_", " ") if kind != last else ""
        out.append(
            f"<tr class='{style}'><td class=l>{shown}</td><td class=l>{title}</td><td class=l>{figure.by}</td>{values}</tr>"
        )
        last = kind
    values = "".join(f"<td>{_number(found['discernment'])}</td>" for found in behaviour.values())
    out.append(
        f"<tr class=first><td></td><td class=l>discernment ↑</td><td class=l>mended</td>{values}</tr></table></div>"
    )
    out.append(
        "<p class=note>In brackets: the scenes that could tell. Silence and continuous talk score well by some of FDB's rules; "
        "“handled” asks for all a scene wants at once. Discernment is the yield rate at interruptions minus the share of "
        "back-channels that stop the agent: 0 for one that always stops and for one that never does. Words are Whisper base's, "
        "voice is silero-vad's. Relevance is a local stand-in for a judge: the share of the other questions after which "
        "SmolLM2-135M finds the answer less likely (0.5 is chance); it knows little, and agents made from it may please it more "
        "than they should. The reference timing of back-channels is the first second of every pause, unless a scene brings a "
        "recorded person. The cascade is charged a fixed time for thinking, see duplex/bench/cascade.py.</p>"
    )
    return "".join(out)


def _published(behaviour: dict) -> str:
    rows = [["", "source", *PUBLISHED_COLUMNS]]
    for agent, found in behaviour.items():
        values = [found["summary"].get(at[0], {}).get(at[1]) if at else None for at in SAME_RULES]
        rows.append([agent, HERE, *(_digits(value and value["mean"]) for value in values)])
    rows += [
        [name, THERE, *(_digits(value) for value in values)] for name, values in PUBLISHED.items()
    ]
    note = (
        "<p class=note>FDB v1's own rules on both sides, so the weaknesses above are in both; our scenes are few, synthetic and "
        "not theirs, and their judge is a paid one. Read it for orders of magnitude.</p>"
    )
    return "<h2>Beside published numbers</h2>" + _table(rows, 2) + note


def _latency(latency: dict) -> str:
    out = ["<h2>Latency</h2><p class=note>Real time, on the wall's clock; milliseconds.</p>"]
    for agent, found in latency.items():
        out.append(
            f"<h3>{escape(agent)}</h3>"
            + _table([["", "count", "p50", "p95", "p99", "max"], *_spreads(found)])
        )
        engine = found["engine"] or {}
        if "tick_ms" in engine and "step_ms" in engine:
            rows = [["engine", "p50", "p99", "max"]]
            rows += [[label, *(engine[key][p] for p in ("p50", "p99", "max"))] for label, key in
                     (("due to done", "tick_ms"), ("of it the step", "step_ms"))]  # fmt: skip
            out.append(_table(rows))
        answered = (found["first_sample"] or {}).get("count", 0)
        yielded = (found["silence"] or {}).get("count", 0)
        stops = (
            f"{yielded} of {found['interrupted']} interruptions found it speaking and saw it stop"
        )
        out.append(f"<p>{answered} of {found['asked']} questions answered in time, {stops}.</p>")
        named = {
            "end of speech to first sample": found["first_sample"],
            "interruption to silence": found["silence"],
        }
        named |= {"tick": found["per_tick"].get("tick")}
        out += [_histogram(name, spread) for name, spread in named.items() if spread]
    return "".join(out)


def _histogram(name: str, spread: dict) -> str:
    counts, edges = spread["counts"], spread["edges"]
    width, height, most = 24, 90, max(counts)
    bars = "".join(
        f"<rect x={10 + i * width} y={height - 70 * c / most:.1f} width={width - 2} height={70 * c / most:.1f} class=agent>"
        f"<title>{edges[i]} to {edges[i + 1]} ms: {c}</title></rect>"
        for i, c in enumerate(counts)
    )
    labels = "".join(
        f"<text x={10 + i * width} y={height + 14} class=pale>{edges[i]:.0f}</text>"
        for i in range(0, len(counts) + 1, 5)
    )
    total = 20 + width * len(counts)
    most_text = f"<text x={total} y=26 class=pale>{most}</text>"  # what the highest bar counts
    picture = f"<svg viewBox='0 0 {total + 40} {height + 20}' width={total + 40}>{bars}{labels}{most_text}</svg>"
    return f"<h3>{escape(name)}, ms</h3><div class=wide>{picture}</div>"


def _load(load: dict) -> str:
    out = [
        "<h2>Load</h2><p class=note>Held: 99 % of a session's ticks came less than one tick (80 ms) after their beat.</p>"
    ]
    for agent, found in load.items():
        out.append(
            f"<h3>{escape(agent)}: {found['held']} sessions held, memory per session {_memory(found)}</h3>"
        )
        out.append(_table(_levels(found)))
        if found.get("full"):
            out.append(f"<p>{escape(found['full'])}</p>")
    return "".join(out)


def _scenes(behaviour: dict) -> str:
    note = "The user above, the agent below; grey: voice as silero-vad finds it; words as Whisper heard them; small marks: when "
    note += "the agent says that it or the user began or ended (point at one to read it)."
    out = [f"<h2>Scenes</h2><p class=note>{note}</p>"]
    names = list(
        dict.fromkeys(row["name"] for found in behaviour.values() for row in found["scenes"])
    )
    for name in names:
        out.append(f"<details open><summary><b>{escape(name)}</b></summary>")
        for agent, found in behaviour.items():
            for row in found["scenes"]:
                if row["name"] == name:
                    figures = " · ".join(
                        f"{FIGURES[k].title}: {_number(v)}" for k, v in row["figures"].items()
                    )
                    out.append(
                        f"<h3>{escape(agent)} <small>{escape(figures)}</small></h3><div class=wide>{time_line(row)}</div>"
                    )
        out.append("</details>")
    return "".join(out)


def time_line(row: dict) -> str:
    """One scene as a picture: bench.scene_row -> SVG."""
    scale = (WIDTH - LEFT) / row["seconds"]

    def x(seconds: float) -> str:
        return f"{LEFT + seconds * scale:.1f}"

    out = [f"<svg viewBox='0 0 {WIDTH} 190' width={WIDTH}>"]
    for second in range(int(row["seconds"]) + 1):
        out.append(f"<path d='M{x(second)} 16V172' class=beat />")
        out.append(f"<text x={x(second)} y=186 class=pale>{second} s</text>")
    free = 0.0  # where the line of what the user says is free again
    for mark in row["marks"]:
        left, wide = x(mark["start_s"]), (mark["end_s"] - mark["start_s"]) * scale
        out.append(f"<rect x={left} y=16 width={wide:.1f} height=56 class=user opacity=.15 />")
        text = mark["text"] or mark["role"]
        at = min(max(float(left), free), WIDTH - LETTER * len(text))
        free = at + LETTER * (len(text) + 1)
        out.append(f"<text x={at:.1f} y=12 class=user>{escape(text)}</text>")
    for start, end in row["voice"]:
        out.append(
            f"<rect x={x(start)} y=76 width={(end - start) * scale:.1f} height=56 class=pale opacity=.2 />"
        )
    for channel, middle in (("user", 44), ("agent", 104)):
        out.append(f"<text x=4 y={middle + 4} class={channel}>{channel}</text>")
        out.append(
            f"<path d='{_outline(row['waves'][channel], row['seconds'], scale, middle)}' class={channel} />"
        )
    lanes = [0.0] * 3  # where each line of words is free again
    for text, start, _ in row["words"]:
        lane = next((i for i, end in enumerate(lanes) if end <= start), lanes.index(min(lanes)))
        lanes[lane] = start + LETTER * (len(text) + 1) / scale
        out.append(f"<text x={x(start)} y={144 + 13 * lane} class=agent>{escape(text)}</text>")
    for event in row["events"]:
        if event["type"] in MARKED:
            who, level = ("user", 74) if event["type"].startswith("user") else ("agent", 84)
            title = escape(f"{event['time_s']:.2f} s {event['type']} {event.get('text', '')}")
            out.append(
                f"<path d='M{x(event['time_s'])} {level}v-9' class='mark {who}'><title>{title}</title></path>"
            )
    return "".join(out) + "</svg>"


def _outline(columns: list[int], seconds: float, scale: float, middle: int) -> str:
    """The closed outline of a waveform from its largest samples in percent; runs of silence are one line."""
    loudest = max(20, *columns)
    step = seconds * scale / len(columns)
    shown = [
        i
        for i, c in enumerate(columns)
        if c or (i and columns[i - 1]) or (i + 1 < len(columns) and columns[i + 1])
    ]
    top = [f"{LEFT + i * step:.1f} {middle - 0.5 - 26 * columns[i] / loudest:.1f}" for i in shown]
    bottom = [
        f"{LEFT + i * step:.1f} {middle + 26 * columns[i] / loudest + 0.5:.1f}"
        for i in reversed(shown)
    ]
    left, right = (
        [f"{LEFT} {middle + 0.5}", f"{LEFT} {middle - 0.5}"],
        [f"{WIDTH} {middle - 0.5}", f"{WIDTH} {middle + 0.5}"],
    )
    return f"M{'L'.join([*left, *top, *right, *bottom])}Z"
