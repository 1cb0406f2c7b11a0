"""The bench's results as a table for the terminal; the page to look at is made in page.py."""

from duplex.bench.report.figures import FIGURES, Figure


def table(report: dict) -> str:
    """The figures as text."""
    lines = []
    if report.get("behaviour"):
        lines += _columns(_behaviour_rows(report["behaviour"]))
    for agent, found in report.get("latency", {}).items():
        lines += ["", f"latency of {agent}, ms"]
        lines += _columns(spread_rows(found))
    for agent, found in report.get("load", {}).items():
        held = f"{found['held']} sessions held; memory per session {memory(found)}"
        lines += ["", f"load on {agent}: {held}"]
        lines += _columns(level_rows(found))
    return "\n".join(lines)


def _behaviour_rows(behaviour: dict) -> list[list[str]]:
    rows = [["kind", "figure", "by", *behaviour]]
    for kind, name, cells in figure_rows(behaviour):
        rows.append([kind, title(FIGURES[name]), FIGURES[name].by, *cells])
    values = [number(found["discernment"]) for found in behaviour.values()]
    return [*rows, ["", "discernment (see report) ↑", "mended", *values]]


def figure_rows(behaviour: dict) -> list[tuple[str, str, list[str]]]:
    """(kind, figure, a cell for each agent), in the order of the scenes and of FIGURES."""
    kinds = list(dict.fromkeys(kind for found in behaviour.values() for kind in found["summary"]))
    rows = []
    for kind in kinds:
        tables = [found["summary"].get(kind, {}) for found in behaviour.values()]
        for name in FIGURES:
            if any(name in one for one in tables):
                rows.append((kind, name, [_cell(one.get(name)) for one in tables]))
    return rows


def spread_rows(found: dict) -> list[list]:
    """A row for each time that was measured in the part `latency` of one agent, heads first."""
    percentiles = ("p50", "p95", "p99", "max")
    named = {
        "end of speech to first sample": found["first_sample"],
        "interruption to silence": found["silence"],
    }
    named |= {f"a tick: {name}": value for name, value in found["per_tick"].items()}
    named |= {f"an answer: {name}": value for name, value in found["per_answer"].items()}
    rows = [
        [name, value["count"], *(value[key] for key in percentiles)]
        for name, value in named.items()
        if value
    ]
    return [["", "count", *percentiles], *rows]


def level_rows(found: dict) -> list[list]:
    """The steps of the part `load` of one agent, heads first."""
    heads = ["users", "held", "late p50 ms", "late p99 ms", "answers", "first sample p50 ms"]
    rows = [[*heads, "p99 ms", "resident MB"]]
    for one in found["levels"]:
        late = one["lateness"] or {}
        first = one["first_sample"] or {}
        rows.append(
            [
                one["users"],
                one["held"],
                late.get("p50", "–"),
                late.get("p99", "–"),
                f"{first.get('count', 0)} of {one['asked']}",
                first.get("p50", "–"),
                first.get("p99", "–"),
                one.get("resident_mb", "–"),
            ]
        )
    return rows


def title(figure: Figure) -> str:
    """What a figure is called, which way is better, and its unit."""
    arrow = {"high": "↑", "low": "↓", "": ""}[figure.better]
    unit = f" [{figure.unit}]" if figure.unit else ""
    return f"{figure.title} {arrow}{unit}"


def number(value: float | None) -> str:
    """With two digits after the point."""
    return "–" if value is None else f"{value:.2f}"


def memory(found: dict) -> str:
    """Of a session, where it could be seen."""
    megabytes = found["memory_per_session_mb"]
    return "not visible from here" if megabytes is None else f"{megabytes} MB"


def _cell(value: dict | None) -> str:
    return "–" if value is None or value["mean"] is None else f"{value['mean']:.2f} ({value['of']})"


def _columns(rows: list[list]) -> list[str]:
    """Rows as lines with aligned columns, the first row underlined."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
