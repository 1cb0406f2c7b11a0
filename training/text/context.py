"""Dialogues about what was said before: facts are given, and asked for later.

They are given by voice, as text in the context, or half by each. A dialogue's `note` is text that
the agent reads: in its instructions, or in the middle of a conversation (Agent.write). What nobody
has told is asked for as well, and the answer is that.
"""

import random
from dataclasses import dataclass

from duplex.training.text.templates import TEXTS

UNKNOWN = [
    "You haven't told me yet.",
    "I don't know, you haven't told me.",
    "I'm sorry, you haven't told me that.",
]
# How facts are given, and the share of the dialogues that do so.
MODES = {"text": 0.3, "voice": 0.3, "both": 0.15, "unknown": 0.25}


@dataclass(frozen=True)
class Matter:
    """Something to be told and asked for; $v stands for its value."""

    note: str
    said: list[str]
    asked: list[str]
    answer: list[str]
    values: list[str]


@dataclass
class Told:
    """A matter with its value."""

    matter: Matter
    value: str

    def text(self, variants: str | list[str], rng: random.Random) -> str:
        """One of the variants, with the value in it."""
        variant = variants if isinstance(variants, str) else rng.choice(variants)
        return variant.replace("$v", self.value)


def read_matters() -> list[Matter]:
    """The matters of texts/context.txt."""
    matters = []
    for paragraph in (TEXTS / "context.txt").read_text(encoding="utf-8").split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in paragraph.splitlines()
            if line and not line.startswith("#")
        )
        if fields:
            note = fields.pop("note")
            matters.append(
                Matter(note, **{name: text.split(" | ") for name, text in fields.items()})
            )
    return matters


def sample_told(matters: list[Matter], count: int, rng: random.Random) -> list[Told]:
    """Different matters, each with one of its values."""
    return [Told(matter, rng.choice(matter.values)) for matter in rng.sample(matters, count)]


def context_exchange(matters: list[Matter], rng: random.Random, mode: str | None = None) -> tuple:
    """A dialogue in a mode of MODES.

    Returns what is told, what of it is asked for (unless unknown), the note (may be empty), turns
    [(user, agent), ...].
    """
    thanks = [
        "Good to know.",
        "Okay, I'll remember that.",
        "Got it.",
        "Thanks for telling me.",
        "Okay, I'll keep that in mind.",
    ]
    mode = mode or rng.choices(list(MODES), list(MODES.values()))[0]
    # Both are drawn in every mode, so that the facts are the same.
    told = sample_told(matters, 2, rng)
    several = rng.random() < 0.5
    told = told if several or mode == "both" else told[:1]
    written = {"text": told, "voice": [], "both": told[:1], "unknown": told[1:]}[mode]
    spoken = {"text": [], "voice": told, "both": told[1:], "unknown": []}[mode]
    note = " ".join(one.text(one.matter.note, rng) for one in written)
    turns = [(one.text(one.matter.said, rng), rng.choice(thanks)) for one in spoken]
    asked = told[:1] if mode == "unknown" else rng.sample(told, len(told))
    for one in asked:
        answer = rng.choice(UNKNOWN) if mode == "unknown" else one.text(one.matter.answer, rng)
        turns.append((rng.choice(one.matter.asked), answer))
    return written + spoken, asked, note, turns
