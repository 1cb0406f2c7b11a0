"""What was taken of the recordings, what was not and why, with pictures: a page of HTML."""

from html import escape
from pathlib import Path

from duplex.training.conversations.preparing import rows_of

STYLE = (
    "body{font:15px/1.45 sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.15em .8em .15em 0;text-align:left;"
    "vertical-align:top;border-bottom:1px solid #ddd}svg{width:100%;margin:.6em 0}"
    ".pale{color:#777}"
)


def page(title: str, parts: list[str]) -> str:
    """Sections as one page."""
    body = "\n".join(parts)
    head = f"<meta charset='utf-8'><title>{escape(title)}</title><style>{STYLE}</style>"
    top = f"<!doctype html><html lang='en'>{head}<body><h1>{escape(title)}</h1>"
    return f"{top}\n{body}\n</body></html>\n"


def table(head: list[str], rows: list[list]) -> str:
    """Rows under their heads; None is a dash."""
    cells = "".join(f"<th>{escape(one)}</th>" for one in head)
    lines = [f"<tr>{cells}</tr>"]
    for row in rows:
        cells = "".join(f"<td>{'–' if one is None else escape(str(one))}</td>" for one in row)
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def recordings_section(folder: Path, most: int = 40) -> list[str]:
    """Of a prepared folder: what was taken, what was not and why, pictures of the first three."""
    taken = rows_of(folder, "taken")
    left_out = rows_of(folder, "left_out")
    minutes = sum(row["seconds"] for row in taken) / 60
    parts = [
        f"<h2>Recordings</h2><p>{len(taken)} taken, {minutes:.1f} minutes; {len(left_out)} left "
        "out. Fit: nats a phone by which words fit their sound; right ones have -0.1 to -1.4.</p>"
    ]
    if left_out:
        rows = [[row["place"], row["why"]] for row in left_out[:most]]
        parts.append("<h3>Left out</h3>" + table(["where", "why"], rows))
    rows = [
        [
            row["name"],
            row["seconds"],
            row["user words"],
            row["agent words"],
            *row["fit"],
            "; ".join(row["notes"]),
        ]
        for row in taken[:most]
    ]
    head = ["taken", "seconds", "user words", "agent words", "fit, user", "fit, agent", "mended"]
    parts.append("<h3>Taken</h3>" + table(head, rows))
    if max(len(taken), len(left_out)) > most:
        parts.append("<p class='pale'>The rest is in taken.jsonl and left_out.jsonl.</p>")
    for picture in sorted(folder.glob("picture*.svg"))[:3]:
        parts.append(picture.read_text(encoding="utf-8"))
    return parts


def write_report(folder: Path) -> Path:
    """The page of a prepared folder, report.html."""
    path = folder / "report.html"
    path.write_text(page("Recordings", recordings_section(folder)), encoding="utf-8")
    return path
