"""What the times of two channels say about a conversation: pure functions, no sound, no model.

Two readings of each scene stand side by side. "FDB" are the rules of Full-Duplex-Bench v1 (arXiv 2503.04721) and v1.5
(2507.23159), written again from their definitions; where v1.5 asks a paid judge which of its tags fits, the times decide here.
"mended" are ours, for what those rules let pass: an agent that never stops talking takes every turn at once (rate 1.0, latency
0), one that never talks handles every pause. The mended figures ask for what a person would: not spoken over, answered in time,
silent when told to be, and no figure for an agent that had no chance to get it wrong. Times are seconds of the recording.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from duplex.bench.recognizer import Heard, joined
from duplex.bench.scenes import Annotation, Word

# FDB's rules
SHORT_S, SHORT_WORDS = 1.0, 3  # so little speech is no turn
LONG_S, BACK_CHANNEL_WORDS = 3.0, 2
BIN_S = 0.2  # of the histograms of back-channels
# ours
SAME_STRETCH_S = 0.5  # silence within a stretch of voice (v1.5 joins the model's voice so)
EARLY_S = 0.5  # an answer may begin so long before the last word ends
PATIENCE_S = 4.0  # nobody waits longer for an answer
YIELD_S = 2.0  # an agent that talks on for longer has not yielded
BY_ITSELF_S = 0.5  # how near its own report of the end the end of its voice lies
HUMAN_DELAY_S = 1.0  # human back-channels fall into the first second of a pause: the model used where no person was recorded

Stretch = tuple[float, float]


@dataclass
class ScoredScene:
    """One scene played to one agent."""

    kind: str
    annotations: list[Annotation]
    heard: Heard  # the agent's channel
    seconds: float
    ended_s: list[float] = field(default_factory=list)  # when the agent said it had finished a turn
    stopped_s: list[float] = field(default_factory=list)  # when it said it yields
    human: list[Stretch] | None = None  # back-channels of a person in the agent's place


@dataclass(frozen=True)
class Figure:
    title: str
    unit: str
    better: str  # "high", "low" or "" where neither is
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


# The rules of Full-Duplex-Bench


def takes_over(words: list[Word]) -> bool:
    """v1: whether there is more than a word or two; span under a second and at most three words is none."""
    return bool(words) and not (
        words[-1].end_s - words[0].start_s < SHORT_S and len(words) <= SHORT_WORDS
    )


def clipped_latency(words: list[Word], end_s: float) -> float:
    """v1: from the end of the user's turn to the first word, whenever that began; never below 0."""
    return max(0.0, words[0].start_s - end_s)


def back_channels(heard: Heard) -> tuple[bool, list[Stretch]]:
    """v1, over an agent that listens: whether it took over, and its back-channels. The last segment decides unless one is long."""
    took_over, collected = False, []
    for start, end in heard.voice:
        count = len(within(heard.words, start, end))
        if end - start > LONG_S:
            return True, collected
        took_over = not (end - start < SHORT_S and count <= BACK_CHANNEL_WORDS)
        if not took_over:
            collected.append((start, end))
    return took_over, collected


def js_distance(p: np.ndarray, q: np.ndarray) -> float:
    """Square root of the Jensen-Shannon divergence in bits of two histograms [N], 0 (equal) to 1 (disjoint)."""
    p, q = (h + 1e-10 for h in (p, q))
    p, q = p / p.sum(), q / q.sum()
    m = (p + q) / 2
    return float(np.sqrt(max(0.0, (p * np.log2(p / m)).sum() / 2 + (q * np.log2(q / m)).sum() / 2)))


def histogram(segments: list[Stretch], seconds: float) -> np.ndarray:
    """How much of each bin of BIN_S the segments cover, [bins] in 0 to 1."""
    edges = np.arange(int(np.ceil(seconds / BIN_S))) * BIN_S
    covered = np.zeros(len(edges))
    for start, end in segments:
        covered += (
            np.clip(np.minimum(edges + BIN_S, end) - np.maximum(edges, start), 0, None) / BIN_S
        )
    return covered


def overlaps(user: Stretch, voice: list[Stretch]) -> float:
    """v1.5's stop latency: seconds both speak."""
    return sum(max(0.0, min(user[1], end) - max(user[0], start)) for start, end in voice)


def response(end_s: float, voice: list[Stretch]) -> float | None:
    """v1.5: from the end of the user's segment to the next beginning of the model's voice."""
    return next((start - end_s for start, _ in voice if start >= end_s), None)


# Ours


def within(words: list[Word], start_s: float, end_s: float) -> list[Word]:
    """The words that begin in the interval."""
    return [word for word in words if start_s <= word.start_s < end_s]


def stretches(heard: Heard) -> list[Stretch]:
    return joined(heard.voice, SAME_STRETCH_S)


def brief(stretch: Stretch, heard: Heard) -> bool:
    """Short enough to be a back-channel."""
    return (
        stretch[1] - stretch[0] < SHORT_S
        and len(within(heard.words, *stretch)) <= BACK_CHANNEL_WORDS
    )


def speaks_into(heard: Heard, start_s: float, end_s: float) -> bool:
    """Whether more than a back-channel sounds while the user speaks, or in the pauses of what the user says."""
    return any(
        s < end_s - EARLY_S and e > start_s and not brief((s, e), heard)
        for s, e in stretches(heard)
    )


def turn_latency(heard: Heard, start_s: float, end_s: float) -> float | None:
    """Signed seconds from the end of what the user said to the answer's beginning; None: spoken into, or not answered in time."""
    if speaks_into(heard, start_s, end_s):
        return None
    return next(
        (s - end_s for s, _ in stretches(heard) if end_s - EARLY_S <= s <= end_s + PATIENCE_S), None
    )


def speaking(heard: Heard, time_s: float) -> Stretch | None:
    """The stretch of voice that sounds at this time."""
    return next(((s, e) for s, e in stretches(heard) if s <= time_s < e), None)


def over_anyway(scene: ScoredScene, mark: Annotation, end_s: float) -> bool:
    """The agent said itself that it had finished just then: silence after it proves nothing."""
    return any(
        mark.start_s - BY_ITSELF_S <= t and abs(t - end_s) <= BY_ITSELF_S for t in scene.ended_s
    )


def outcome(scene: ScoredScene, mark: Annotation) -> str:
    """What the agent did about something that was not said to it. While it spoke: "resumed" (went on, also after a gap of less
    than SAME_STRETCH_S), "stopped", "responded" (stopped and spoke again) or "ended" (was over anyway). While it did not speak:
    "held" or "responded"."""
    stretch = speaking(scene.heard, mark.start_s)
    later = [
        s
        for s in stretches(scene.heard)
        if mark.start_s < s[0] <= mark.end_s + PATIENCE_S and not brief(s, scene.heard)
    ]
    if stretch is None:
        return "responded" if later else "held"
    if stretch[1] > mark.end_s + SAME_STRETCH_S:
        return "resumed"
    if over_anyway(scene, mark, stretch[1]):
        return "responded" if later else "ended"
    return "responded" if later else "stopped"


def score(scene: ScoredScene) -> dict[str, float | None]:
    """The figures of one scene, by FIGURES' names; None where the scene could not tell."""
    scorers = {
        "pause": _pause, "turn": _turn, "interruption": _interruption, "back_channel": _overlap, "listening": _listening,
        "side_talk": _overlap, "background": _overlap, "noise": _quiet, "silence": _quiet, "echo": _echo,
    }  # fmt: skip
    figures = scorers[scene.kind](scene)
    return {
        name: None if value is None else round(float(value), 4) for name, value in figures.items()
    }


def asked(scene: ScoredScene) -> tuple[float, float] | None:
    """From the first word of a request to the end of its last, the pauses within included."""
    parts = [mark for mark in scene.annotations if mark.role in ("part", "question")]
    return (parts[0].start_s, parts[-1].end_s) if parts else None


def answered(scene: ScoredScene) -> float | None:
    """Signed latency of the answer to the scene's question; 0 where the scene has none."""
    span = asked(scene)
    return turn_latency(scene.heard, *span) if span else 0.0


def answer_text(scene: ScoredScene) -> tuple[str, str] | None:
    """The last request and what the agent said after it, for a judge; None where it said nothing."""
    request = next(
        (m for m in reversed(scene.annotations) if m.role in ("question", "interruption")), None
    )
    if request is None or scene.kind not in ("turn", "pause", "interruption"):
        return None
    question = (
        " ".join(m.text for m in scene.annotations if m.role == "part")
        if request.role == "question"
        else ""
    )
    words = within(scene.heard.words, request.end_s - EARLY_S, scene.seconds)
    return (
        (f"{question} {request.text}".strip(), " ".join(word.text for word in words))
        if takes_over(words)
        else None
    )


def _pause(scene: ScoredScene) -> dict:
    start_s, end_s = asked(scene)
    return {
        "take_over": takes_over(within(scene.heard.words, 0.0, end_s)),  # FDB's recordings end here
        "cut_in": speaks_into(scene.heard, start_s, end_s),
        "latency_s": answered(scene),
        "handled": answered(scene) is not None,
    }


def _turn(scene: ScoredScene) -> dict:
    words, (_, end_s) = scene.heard.words, asked(scene)
    return {
        "take_over": takes_over(words),
        "latency_clipped_s": clipped_latency(words, end_s) if takes_over(words) else None,
        "latency_s": answered(scene),
        "handled": answered(scene) is not None,
    }


def _interruption(scene: ScoredScene) -> dict:
    mark = next(m for m in scene.annotations if m.role == "interruption")
    voice, words = stretches(scene.heard), within(scene.heard.words, mark.end_s, scene.seconds)
    spoken = speaking(scene.heard, mark.start_s)
    figures = {
        "take_over": takes_over(words),
        "latency_clipped_s": clipped_latency(words, mark.end_s) if takes_over(words) else None,
        "overlap_s": overlaps((mark.start_s, mark.end_s), voice) if spoken else None,
        "response_s": response(mark.end_s, voice),
    }
    chance = spoken is not None and not over_anyway(scene, mark, spoken[1])
    # who breathes in and talks on has not yielded, however long the breath
    on = chance and any(
        spoken[1] < s < mark.end_s - EARLY_S and not brief((s, e), scene.heard) for s, e in voice
    )
    yields = chance and not on and spoken[1] - mark.start_s <= YIELD_S
    answers = next(
        (s - mark.end_s for s, _ in voice if mark.end_s - EARLY_S <= s <= mark.end_s + PATIENCE_S),
        None,
    )
    figures["yielded"] = yields if chance else None
    figures["stop_s"] = spoken[1] - mark.start_s if yields else None
    figures["latency_s"] = answers if yields else None
    if answered(scene) is None:
        figures["handled"] = False
    else:  # an answer that was over before the interruption is no chance to yield
        figures["handled"] = yields and answers is not None if chance else None
    return figures


def _overlap(scene: ScoredScene) -> dict:
    others = [
        m for m in scene.annotations if m.role in ("back_channel", "side", "television", "noise")
    ]
    seen = [(speaking(scene.heard, m.start_s) is not None, outcome(scene, m)) for m in others]
    during = [found == "resumed" for spoke, found in seen if spoke and found != "ended"]
    idle = [found == "responded" for spoke, found in seen if not spoke]
    handled = answered(scene) is not None and all(
        found in ("resumed", "held", "ended") for _, found in seen
    )
    if handled and scene.kind == "back_channel" and not during:
        handled = None  # it had finished: there was nothing to go on with
    return {
        "resumed": np.mean(during) if during else None,
        "responded": np.mean(idle) if idle else None,
        "handled": handled,
    }


def _listening(scene: ScoredScene) -> dict:
    start_s, end_s = asked(scene)
    heard = Heard([s for s in scene.heard.voice if s[0] < end_s - EARLY_S], scene.heard.words)
    took_over, collected = back_channels(heard)
    reference = scene.human if scene.human is not None else pauses(scene.annotations)
    distance = (
        js_distance(histogram(collected, end_s), histogram(reference, end_s)) if collected else 1.0
    )
    return {
        "take_over": took_over,
        "back_channels_per_s": len(collected) / (end_s - start_s),
        "js_distance": distance,
        "cut_in": speaks_into(scene.heard, start_s, end_s),
        "handled": answered(scene) is not None,
    }


def pauses(marks: list[Annotation]) -> list[Stretch]:
    """Where a person would most likely say mhm: the pauses between phrases. A model of human timing, not a measurement."""
    parts = [m for m in marks if m.role in ("part", "question")]
    return [
        (a.end_s, min(b.start_s, a.end_s + HUMAN_DELAY_S))
        for a, b in zip(parts, parts[1:], strict=False)
    ]


def _quiet(scene: ScoredScene) -> dict:
    span = asked(scene)
    end_s = span[0] if span else scene.seconds
    return {
        "take_over": takes_over(within(scene.heard.words, 0.0, end_s)),
        "cut_in": speaks_into(scene.heard, 0.0, end_s + EARLY_S),
        "handled": not speaks_into(scene.heard, 0.0, end_s + EARLY_S)
        and answered(scene) is not None,
    }


def _echo(scene: ScoredScene) -> dict:
    _, end_s = asked(scene)
    after = [s for s in stretches(scene.heard) if s[1] > end_s]
    later = [s for s in after[1:] if not brief(s, scene.heard)]
    stopped = [t for t in scene.stopped_s if t > end_s]
    return {
        "self_stopped": bool(stopped) if after else None,
        "self_answered": bool(later) if after else None,
        "handled": answered(scene) is not None and not later and not stopped,
    }


def summary(rows: list[tuple[str, dict[str, float | None]]]) -> dict[str, dict]:
    """(kind, figures) of each scene -> per kind the mean of each figure over the scenes that could tell, and how many could."""
    table: dict[str, dict] = {}
    for kind in dict.fromkeys(kind for kind, _ in rows):
        figures = [row for name, row in rows if name == kind]
        table[kind] = {}
        for name in FIGURES:
            values = [row[name] for row in figures if row.get(name) is not None]
            if any(name in row for row in figures):
                table[kind][name] = {
                    "mean": round(float(np.mean(values)), 4) if values else None,
                    "of": len(values),
                }
    return table


def relevance(
    pairs: list[tuple[str, str]], log_likelihood: Callable[[str, str], float]
) -> list[float | None]:
    """For each (question, answer): the share of the run's other questions after which the answer is less likely. 1: it fits its
    own best; 0.5: chance. Ranks, so that neither fluency nor length pays. None where there is no other question."""
    questions = sorted({question for question, _ in pairs})
    found: list[float | None] = []
    for question, answer in pairs:
        own = log_likelihood(question, answer)
        others = [log_likelihood(other, answer) < own for other in questions if other != question]
        found.append(sum(others) / len(others) if others else None)
    return found


def discernment(table: dict[str, dict]) -> float | None:
    """Yield rate at interruptions minus the share of back-channels that stop it: 0 for one that always yields and for one that
    never does. None where one of the two could not be seen."""
    try:
        yields, resumes = (
            table["interruption"]["yielded"]["mean"],
            table["back_channel"]["resumed"]["mean"],
        )
    except KeyError:
        return None
    return None if yields is None or resumes is None else round(yields + resumes - 1, 4)
