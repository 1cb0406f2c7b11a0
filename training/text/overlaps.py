"""What is said into somebody's voice: assent, which lets him go on, and what takes the floor.

From DATA/text/icsi_mrda.jsonl.gz (ICSI meetings, CC-BY 4.0), whose utterances are marked with their
dialogue acts; and questions behind words that often interrupt. What only measures, texts/assent.txt
and texts/interruptions.txt, is left out.
"""

import gzip
import json
import random
import re
from collections import Counter
from pathlib import Path

from duplex.agent.backchannels import BACKCHANNELS
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.text.templates import read_lines

# First parts of acts: backchannels, acknowledgement, agreement, assessment, affirmation.
ASSENT_ACTS = ("b", "b.%", "s^bk", "s^aa", "s^ba", "s^na")
# Commands, questions, rejection, denial.
FLOOR_ACTS = ("s^co", "qw", "qw^rt", "qy", "s^ar", "s^nd")
# What an interruption begins with.
OPENINGS = (
    "Wait, |No, |No no, |Hold on, |Okay, but |Yeah, but |Right, but |Actually, |Sorry, |Hang on, "
    "|Okay, and |Yes, and |Oh, and |Uh, |Just a second, |Stop stop, |Never mind, |Forget that, "
    "|Okay, okay, |Let me ask something, |I meant, "
).split("|")
LETTERS = {"o_k": "okay", "mm-hmm": "mm hm", "uh-huh": "uh huh", "mmm": "mm", "hmm": "hm"}


def read_overlaps(data: Path, most_words: int = 5) -> tuple[list[str], list[str]]:
    """Texts of assent and such that take the floor, the common ones more often."""
    known = {spoken_form(line) for name in ("assent", "interruptions") for line in read_lines(name)}
    assent: Counter[str] = Counter()
    floor: Counter[str] = Counter()
    with gzip.open(data / "text" / "icsi_mrda.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            for turn in json.loads(line)["turns"]:
                words = [LETTERS.get(word[2], word[2]) for word in turn["words"]]
                text = " ".join(words)
                is_plain = re.fullmatch(r"[a-z' ]+", text) is not None
                if not is_plain or len(words) > most_words or spoken_form(text) in known:
                    continue
                if turn["act"] in ASSENT_ACTS:
                    assent[text] += 1
                elif turn["act"] in FLOOR_ACTS:
                    floor[text] += 1
    # "okay" and "right" are both; who says them rarely wants the floor.
    floor = Counter({text: n for text, n in floor.items() if n > assent[text]})
    assent = Counter({text: n for text, n in assent.items() if n > floor[text]})
    listed = [phrase for phrase in BACKCHANNELS if spoken_form(phrase) not in known]
    return listed + weighted(assent), weighted(floor)


def weighted(counts: Counter[str]) -> list[str]:
    """Each text about as often as the root of its count, as a sentence."""
    return [
        text[0].upper() + text[1:] + "." for text, n in counts.items() for _ in range(round(n**0.5))
    ]


def interrupt(question: str, floor: list[str], rng: random.Random) -> str:
    """A question or something shorter that takes the floor."""
    if rng.random() < 0.4:
        return rng.choice(floor)
    begins = question if question.startswith(("I ", "I'")) else question[0].lower() + question[1:]
    return question if rng.random() < 0.3 else rng.choice(OPENINGS) + begins
