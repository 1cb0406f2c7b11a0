"""For whom is what is said? Several people talk to each other, to the agent, and a television runs.

Dialogues are those of duplex.training.text.company, spoken by voices that no training has heard; no
text of a corpus that was trained on is in them. What is for the agent is waited for, then the next
one speaks; what people say to each other follows at once.
"""

import argparse
import itertools
import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duplex.agent import load_agent
from duplex.audio import TICKS_PER_SECOND
from duplex.training.evaluation.hearing.spoken_items import open_held_out, say
from duplex.training.evaluation.intervals import interval, rate
from duplex.training.evaluation.play import LEAD_IN_SAMPLES, Tick, in_ticks, play
from duplex.training.evaluation.spoken import SpokenTexts
from duplex.training.text.company import TELEVISION
from duplex.training.text.exchanges import Writer

# The number from which dialogues are drawn anew, apart from those of a corpus.
SEED = 9001


@dataclass
class Line:
    """What somebody says."""

    sound: np.ndarray  # [ticks, TICK_SAMPLES]
    is_for_agent: bool
    is_television: bool
    # Ticks of silence behind it, if it is for nobody.
    gap_ticks: int = 0
    is_answered: bool = False


def read_user_texts(corpus: Path) -> set[str]:
    """All that users say in a corpus's dialogues of training."""
    dialogues = (json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines())
    return {
        turn["text"]
        for dialogue in dialogues
        if dialogue["split"] == "train"
        for turn in dialogue["turns"]
        if turn["role"] == "user"
    }


def draw_dialogues(data: Path, corpus: Path, count: int) -> list:
    """Dialogues of several people without a text of the corpus."""
    known = read_user_texts(corpus)
    writer = Writer(data, data / "no answers", SEED)
    drawn = (writer.company(number) for number in itertools.count())
    fresh = (
        found for found in drawn if found and not any(text in known for text, _ in found.turns)
    )
    return list(itertools.islice(fresh, count))


def speak(spoken: SpokenTexts, dialogue, number: int) -> list[Line]:
    """The dialogue's lines by one voice a person; the television is 12 dB softer."""
    rng = np.random.default_rng([SEED, number])
    lines = []
    for (text, answer), speaker in zip(dialogue.turns, dialogue.speakers, strict=True):
        is_television = speaker == TELEVISION
        wave = say(spoken, "company", number + speaker, text).wave
        wave = wave * (0.25 if is_television else 1.0)
        gap = int(rng.uniform(0.2, 1.2) * TICKS_PER_SECOND)
        padded = np.pad(wave, (0 if lines else LEAD_IN_SAMPLES, 0))
        lines.append(Line(in_ticks(padded), answer is not None, is_television, gap))
    return lines


def converse(lines: list[Line], patience_ticks: int = 44) -> Generator[np.ndarray, Tick, None]:
    """Say the lines, and note at which of them the agent began to answer.

    An answer is that of the last line said. patience_ticks: that one is waited for.
    """
    silence = np.zeros_like(lines[0].sound[0])
    for line in lines:
        is_speaking = False
        for sound in line.sound:
            is_speaking = take(line, (yield sound), is_speaking)
        waited = 0
        wait = patience_ticks if line.is_for_agent else line.gap_ticks
        while waited < wait or (is_speaking and line.is_for_agent):
            is_speaking = take(line, (yield silence), is_speaking)
            waited += 1
            if line.is_answered and not is_speaking:
                break


def take(line: Line, tick: Tick, is_speaking: bool) -> bool:
    """Note what the agent did in a tick; returns whether its turn goes on."""
    for event in tick.events:
        if event.kind == "agent_started":
            line.is_answered = True
            is_speaking = True
        elif event.kind in ("agent_ended", "agent_stopped"):
            is_speaking = False
    return is_speaking


def evaluate_company(args: argparse.Namespace) -> dict:
    """`evaluate company`: shares with what 95 % of draws of as many dialogues give."""
    spoken = SpokenTexts(args.out / "company", lambda: open_held_out(args.kokoro))
    drawn = draw_dialogues(args.data, args.corpus, args.dialogues)
    dialogues = [speak(spoken, dialogue, number) for number, dialogue in enumerate(drawn)]
    agent = load_agent(args.agent, slots=args.slots)
    play(agent, [lambda slot, lines=lines: converse(lines) for lines in dialogues])
    lines = [line for dialogue in dialogues for line in dialogue]

    def share(name: str) -> str:
        wanted = {
            "missed": [(not one.is_answered, 1) for one in lines if one.is_for_agent],
            "side talk": [
                (one.is_answered, 1) for one in lines if not (one.is_for_agent or one.is_television)
            ],
            "television": [(one.is_answered, 1) for one in lines if one.is_television],
        }[name]
        low, high = interval(wanted)
        return f"{rate(wanted):.1%} of {len(wanted)} [{low:.1%}, {high:.1%}]"

    right = sum(line.is_answered and line.is_for_agent for line in lines)
    either = sum(line.is_answered for line in lines) + sum(line.is_for_agent for line in lines)
    return {
        "addressee F1": round(2 * right / max(either, 1), 3),
        "said to it and not answered": share("missed"),
        "side talk answered": share("side talk"),
        "television answered": share("television"),
    }
