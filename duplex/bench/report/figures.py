"""The figures of the bench: their names, and what they say over all scenes of a run."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Figure:
    """A figure of the report: what it is called, and whose rule it is by."""

    title: str
    unit: str
    better: str  # "high", "low", or "" where neither is
    by: str  # "FDB v1", "FDB v1.5" or "mended"


FIGURES = {
    "take_over": Figure("take-over rate", "", "", "FDB v1"),
    "latency_clipped_s": Figure("latency, clipped at 0", "s", "low", "FDB v1"),
    "back_channels_per_s": Figure("its own back-channels", "/s", "high", "FDB v1"),
    "js_distance": Figure("Jensen-Shannon distance to the reference timing", "", "low", "FDB v1"),
    "overlap_s": Figure("stop latency (length of overlap)", "s", "low", "FDB v1.5"),
    "response_s": Figure("response latency", "s", "low", "FDB v1.5"),
    "resumed": Figure("went on speaking", "", "high", "FDB v1.5"),
    "responded": Figure("answered what was not for it", "", "low", "FDB v1.5"),
    "cut_in": Figure("spoke into the user's sentence", "", "low", "mended"),
    "latency_s": Figure("latency, signed, of turns really taken", "s", "low", "mended"),
    "yielded": Figure("yield rate, when it was speaking", "", "high", "mended"),
    "stop_s": Figure("from the interruption to silence", "s", "low", "mended"),
    "self_stopped": Figure("stopped by its own echo", "", "low", "mended"),
    "self_answered": Figure("answered its own echo", "", "low", "mended"),
    "relevance": Figure("answer fits its question better than the others", "", "high", "mended"),
    "handled": Figure("handled", "", "high", "mended"),
}


def summary(rows: list[tuple[str, dict[str, float | None]]]) -> dict[str, dict]:
    """(kind, figures) of each scene -> by kind and figure the mean, and of how many scenes.

    Scenes that could not tell a figure are left out of it.
    """
    table: dict[str, dict] = {}
    for kind in dict.fromkeys(kind for kind, _ in rows):
        figures = [row for name, row in rows if name == kind]
        table[kind] = {}
        for name in FIGURES:
            values = [row[name] for row in figures if row.get(name) is not None]
            if any(name in row for row in figures):
                mean = round(float(np.mean(values)), 4) if values else None
                table[kind][name] = {"mean": mean, "of": len(values)}
    return table


def relevance(
    pairs: list[tuple[str, str]], log_likelihood: Callable[[str, str], float]
) -> list[float | None]:
    """For each (question, answer): how often the answer fits its question better than another one.

    The share of the run's other questions after which the answer is less likely. 1: it fits its own
    best; 0.5: chance. Ranks, so that neither fluency nor length pays. None where there is no other
    question.
    """
    questions = sorted({question for question, _ in pairs})
    found: list[float | None] = []
    for question, answer in pairs:
        own = log_likelihood(question, answer)
        others = [log_likelihood(other, answer) < own for other in questions if other != question]
        found.append(sum(others) / len(others) if others else None)
    return found


def discernment(table: dict[str, dict]) -> float | None:
    """Yield rate at interruptions minus the share of back-channels that stop the agent.

    0 for one that always yields and for one that never does. None where one of the two could not be
    seen.
    """
    try:
        yields = table["interruption"]["yielded"]["mean"]
        resumes = table["back_channel"]["resumed"]["mean"]
    except KeyError:
        return None
    return None if yields is None or resumes is None else round(yields + resumes - 1, 4)
