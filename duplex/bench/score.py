"""What the times of two channels say about a conversation: pure functions, no sound, no model.

Two readings of each scene stand side by side. "FDB" are the rules of Full-Duplex-Bench (fdb.py).
"mended" are ours, for what those rules let pass: an agent that never stops talking takes every turn
at once (rate 1.0, latency 0), one that never talks handles every pause. The mended figures ask for
what a person would: not spoken over, answered in time, silent when told to be, and no figure for an
agent that had no chance to get it wrong. Times are seconds of the recording.
"""

from dataclasses import dataclass, field

import numpy as np

from duplex.bench.fdb import (
    MAX_BACK_CHANNEL_WORDS,
    SHORT_S,
    Segment,
    back_channels,
    clipped_latency,
    histogram,
    js_distance,
    overlap_s,
    response_s,
    takes_over,
    within,
)
from duplex.bench.recognizer import Heard, joined
from duplex.bench.scenes import Annotation

# Silence within a segment of voice (v1.5 joins the model's voice so).
SAME_SEGMENT_S = 0.5
# How long before the last word's end an answer may begin.
EARLY_S = 0.5
# Nobody waits longer for an answer.
PATIENCE_S = 4.0


@dataclass
class ScoredScene:
    """One scene that was played to one agent."""

    kind: str
    annotations: list[Annotation]
    heard: Heard  # the agent's channel
    seconds: float
    ended_s: list[float] = field(default_factory=list)  # when the agent said it had finished a turn
    stopped_s: list[float] = field(default_factory=list)  # when it said it yields
    human: list[Segment] | None = None  # back-channels of a person in the agent's place


def segments(heard: Heard) -> list[Segment]:
    """The agent's voice, small gaps closed."""
    return joined(heard.voice, SAME_SEGMENT_S)


def is_brief(segment: Segment, heard: Heard) -> bool:
    """Whether it is short enough to be a back-channel."""
    words = within(heard.words, *segment)
    return segment[1] - segment[0] < SHORT_S and len(words) <= MAX_BACK_CHANNEL_WORDS


def speaks_into(heard: Heard, start_s: float, end_s: float) -> bool:
    """Whether more than a back-channel sounds while the user speaks, pauses included."""
    return any(
        start < end_s - EARLY_S and end > start_s and not is_brief((start, end), heard)
        for start, end in segments(heard)
    )


def answer_delay(heard: Heard, end_s: float) -> float | None:
    """Signed seconds from the end of the user's words to an answer; None: none came in time."""
    for start, _ in segments(heard):
        if end_s - EARLY_S <= start <= end_s + PATIENCE_S:
            return start - end_s
    return None


def turn_latency(heard: Heard, start_s: float, end_s: float) -> float | None:
    """`answer_delay` of a turn; None also where the agent spoke into it."""
    return None if speaks_into(heard, start_s, end_s) else answer_delay(heard, end_s)


def speaking(heard: Heard, time_s: float) -> Segment | None:
    """The segment of voice that sounds at this time."""
    for start, end in segments(heard):
        if start <= time_s < end:
            return start, end
    return None


def is_over_anyway(
    scene: ScoredScene, annotation: Annotation, end_s: float, tolerance_s: float = 0.5
) -> bool:
    """Whether the agent's voice ended at end_s because it had finished, as it says itself.

    Then its silence proves nothing about what is annotated.
    """
    return any(
        annotation.start_s - tolerance_s <= time_s and abs(time_s - end_s) <= tolerance_s
        for time_s in scene.ended_s
    )


def outcome(scene: ScoredScene, annotation: Annotation) -> str:
    """What the agent did about something that was not said to it.

    While it spoke: "resumed" (went on, also after a gap of less than SAME_SEGMENT_S), "stopped",
    "responded" (stopped and spoke again) or "ended" (was over anyway). While it did not speak:
    "held" or "responded".
    """
    spoken = speaking(scene.heard, annotation.start_s)
    has_more = any(
        annotation.start_s < segment[0] <= annotation.end_s + PATIENCE_S
        and not is_brief(segment, scene.heard)
        for segment in segments(scene.heard)
    )
    if spoken is None:
        return "responded" if has_more else "held"
    if spoken[1] > annotation.end_s + SAME_SEGMENT_S:
        return "resumed"
    if has_more:
        return "responded"
    return "ended" if is_over_anyway(scene, annotation, spoken[1]) else "stopped"


def score(scene: ScoredScene) -> dict[str, float | None]:
    """The figures of one scene, by the names in figures.py; None where the scene could not tell."""
    scorers = {
        "pause": _pause,
        "turn": _turn,
        "interruption": _interruption,
        "back_channel": _overlap,
        "listening": _listening,
        "side_talk": _overlap,
        "background": _overlap,
        "noise": _quiet,
        "silence": _quiet,
        "echo": _echo,
    }
    figures = scorers[scene.kind](scene)
    return {
        name: None if value is None else round(float(value), 4) for name, value in figures.items()
    }


def asked(scene: ScoredScene) -> Segment | None:
    """From the first word of a request to the end of its last, the pauses within included."""
    parts = [one for one in scene.annotations if one.role in ("part", "question")]
    return (parts[0].start_s, parts[-1].end_s) if parts else None


def answered(scene: ScoredScene) -> float | None:
    """Signed latency of the answer to the scene's question; 0 where the scene has none."""
    span = asked(scene)
    return turn_latency(scene.heard, *span) if span else 0.0


def answer_text(scene: ScoredScene) -> tuple[str, str] | None:
    """The last request and what the agent said after it; None where it said nothing."""
    requests = [one for one in scene.annotations if one.role in ("question", "interruption")]
    if not requests or scene.kind not in ("turn", "pause", "interruption"):
        return None
    request = requests[-1]
    parts = [one.text for one in scene.annotations if one.role == "part"]
    question = " ".join(parts) if request.role == "question" else ""
    words = within(scene.heard.words, request.end_s - EARLY_S, scene.seconds)
    if not takes_over(words):
        return None
    return f"{question} {request.text}".strip(), " ".join(word.text for word in words)


def _pause(scene: ScoredScene) -> dict:
    start_s, end_s = asked(scene)
    return {
        # FDB's recordings end with the request.
        "take_over": takes_over(within(scene.heard.words, 0.0, end_s)),
        "cut_in": speaks_into(scene.heard, start_s, end_s),
        "latency_s": answered(scene),
        "handled": answered(scene) is not None,
    }


def _turn(scene: ScoredScene) -> dict:
    words = scene.heard.words
    end_s = asked(scene)[1]
    return {
        "take_over": takes_over(words),
        "latency_clipped_s": clipped_latency(words, end_s) if takes_over(words) else None,
        "latency_s": answered(scene),
        "handled": answered(scene) is not None,
    }


def _interruption(scene: ScoredScene) -> dict:
    said = next(one for one in scene.annotations if one.role == "interruption")
    voice = segments(scene.heard)
    words = within(scene.heard.words, said.end_s, scene.seconds)
    spoken = speaking(scene.heard, said.start_s)
    had_chance = spoken is not None and not is_over_anyway(scene, said, spoken[1])
    # One that breathes in and talks on has not yielded, however long the breath; nor has one that
    # talks on for two seconds.
    talks_on = had_chance and any(
        spoken[1] < start < said.end_s - EARLY_S and not is_brief((start, end), scene.heard)
        for start, end in voice
    )
    yields = had_chance and not talks_on and spoken[1] - said.start_s <= 2.0
    delay = answer_delay(scene.heard, said.end_s)
    handled = None  # an answer that was over before the interruption is no chance to yield
    if had_chance:
        handled = yields and delay is not None
    return {
        "take_over": takes_over(words),
        "latency_clipped_s": clipped_latency(words, said.end_s) if takes_over(words) else None,
        "overlap_s": overlap_s((said.start_s, said.end_s), voice) if spoken else None,
        "response_s": response_s(said.end_s, voice),
        "yielded": yields if had_chance else None,
        "stop_s": spoken[1] - said.start_s if yields else None,
        "latency_s": delay if yields else None,
        "handled": False if answered(scene) is None else handled,
    }


def _overlap(scene: ScoredScene) -> dict:
    roles = ("back_channel", "side", "television", "noise")
    others = [one for one in scene.annotations if one.role in roles]
    seen = [(speaking(scene.heard, one.start_s) is not None, outcome(scene, one)) for one in others]
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
    voice = [segment for segment in scene.heard.voice if segment[0] < end_s - EARLY_S]
    took_over, collected = back_channels(Heard(voice, scene.heard.words))
    reference = scene.human if scene.human is not None else pauses(scene.annotations)
    distance = 1.0
    if collected:
        distance = js_distance(histogram(collected, end_s), histogram(reference, end_s))
    return {
        "take_over": took_over,
        "back_channels_per_s": len(collected) / (end_s - start_s),
        "js_distance": distance,
        "cut_in": speaks_into(scene.heard, start_s, end_s),
        "handled": answered(scene) is not None,
    }


def pauses(annotations: list[Annotation], human_delay_s: float = 1.0) -> list[Segment]:
    """Where a person would most likely say mhm: the first second of the pauses between phrases.

    A model of human timing, for scenes in which no person was recorded.
    """
    parts = [one for one in annotations if one.role in ("part", "question")]
    return [
        (before.end_s, min(after.start_s, before.end_s + human_delay_s))
        for before, after in zip(parts, parts[1:], strict=False)
    ]


def _quiet(scene: ScoredScene) -> dict:
    span = asked(scene)
    end_s = span[0] if span else scene.seconds
    cut_in = speaks_into(scene.heard, 0.0, end_s + EARLY_S)
    return {
        "take_over": takes_over(within(scene.heard.words, 0.0, end_s)),
        "cut_in": cut_in,
        "handled": not cut_in and answered(scene) is not None,
    }


def _echo(scene: ScoredScene) -> dict:
    end_s = asked(scene)[1]
    after = [segment for segment in segments(scene.heard) if segment[1] > end_s]
    later = [segment for segment in after[1:] if not is_brief(segment, scene.heard)]
    stopped = [time_s for time_s in scene.stopped_s if time_s > end_s]
    return {
        "self_stopped": bool(stopped) if after else None,
        "self_answered": bool(later) if after else None,
        "handled": answered(scene) is not None and not later and not stopped,
    }
