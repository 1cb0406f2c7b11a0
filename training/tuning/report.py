"""What tuning did: before and after, side by side, on one page."""

import json
from html import escape
from pathlib import Path

import numpy as np

from duplex.training.conversations.report import page, recordings_section, table

MEASURES = ("questions", "hearing WER", "answered", "too soon", "s to the voice, median")


def tuning_report(out: Path, work: Path, found: dict) -> Path:
    """Write report.html in the agent's folder.

    found: "before", "after" (evaluation.own.measure), "progress" of the run, and "align" with a row
    of measures for each state, if there was an alignment.
    """
    before = found["before"]
    after = found["after"]
    progress = found["progress"]
    parts = [
        f"<p>{progress['step']} steps in {progress['seconds'] / 60:.0f} minutes. "
        f"Then: <code>duplex talk --agent {escape(str(out))}</code></p>",
        "<h2>Before and after</h2>",
        table(["", "before", "after"], [[n, before[n], after[n]] for n in MEASURES]),
        "<h2>Loss of what is set aside</h2>" + losses(progress),
        "<h2>Answers</h2>",
        table(
            ["asked", "heard", "before", "after", "recorded"],
            [
                [a["asked"], a["heard"], b["said"], a["said"], a["recorded"]]
                for b, a in zip(before["rows"][:3], after["rows"][:3], strict=True)
            ],
        ),
        "<h2>What it knew before</h2>",
        table(
            ["asked", "before", "after"],
            [
                [a["asked"], b["said"], a["said"]]
                for b, a in zip(before["kept"], after["kept"], strict=True)
            ],
        ),
        "<h2>Scenes it handles</h2>",
        table(["", "before", "after"], scene_rows(before, after)),
        "<p class='pale'>Told by its own channel. With outside judges: duplex bench behaviour "
        f"--agent {escape(str(out))}</p>",
    ]
    if found.get("align"):
        parts += align_section(work, found["align"])
    parts += recordings_section(work / "prepared")
    path = out / "report.html"
    path.write_text(page(f"Tuning of {out.name}", parts), encoding="utf-8")
    return path


def scene_rows(before: dict, after: dict) -> list[list[str]]:
    """Of each kind of scene, and of all, how many are handled before and after."""
    columns = [list(found["scenes"].values()) for found in (before, after)]
    counts = [[*column, np.sum(column, axis=0).tolist()] for column in columns]
    names = [*(kind.replace("_", " ") for kind in after["scenes"]), "all"]
    return [
        [name, *(f"{handled} of {told}" for handled, told in row)]
        for name, *row in zip(names, *counts, strict=True)
    ]


def losses(progress: dict) -> str:
    """Mean loss of each kind of symbol."""
    before = progress.get("before") or {}
    after = progress.get("after") or {}
    rows = [[kind, before[kind][0], after.get(kind, [None])[0]] for kind in before]
    if not rows:
        return "<p>Nothing is set aside, so nothing tells what was learned.</p>"
    return table(["nats a symbol", "before", "after"], rows)


def align_section(work: Path, measured: dict[str, dict]) -> list[str]:
    """Distances of speech and text, and the picture of both clouds."""
    names = list(measured)
    rows = [[key, *(measured[name][key] for name in names)] for key in measured[names[0]]]
    parts = ["<h2>Speech and text in the LM</h2>", table(["", *names], rows)]
    picture = work / "aligned" / "clouds.png"
    if picture.exists():
        import base64

        data = base64.b64encode(picture.read_bytes()).decode()
        parts.append(f"<img src='data:image/png;base64,{data}' alt='clouds'>")
    return parts


def sentences(found: dict) -> str:
    """The same for the terminal."""
    before = found["before"]
    after = found["after"]
    lines = [f"{name}: {before[name]} before, {after[name]} after" for name in MEASURES[1:]]
    *_, (_, handled_before, handled_after) = scene_rows(before, after)
    lines.append(f"scenes it handles: {handled_before} before, {handled_after} after")
    for b, a in zip(before["rows"][:3], after["rows"][:3], strict=True):
        asked = json.dumps(a["asked"])
        lines.append(f"{asked}: {json.dumps(b['said'])} before, {json.dumps(a['said'])} after")
    return "\n".join(lines)
