"""Long turns of people in meetings, with the backchannels that their listeners gave.

From DATA/text/icsi_mrda.jsonl.gz (ICSI meetings, CC-BY 4.0): times of all words, and for each
utterance its dialogue act. Who speaks is the user; where a listener said "mhm" the agent is to. The
agent thus learns the timing of people. Whether it would have answered is not known.
"""

import gzip
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duplex.model.asr.spoken_form import spoken_form
from duplex.model.tokens import USER_END
from duplex.training.scenes.example import Example, ExampleMaker
from duplex.training.scenes.recognition import simulate_recognition
from duplex.training.scenes.recordings import mask_agent_side
from duplex.training.scenes.scene import Scene, UserTurn, Word
from duplex.training.scenes.sequence import IGNORE

# Seconds of a long turn at least, and of what is cut out of one at most.
LONG_S = 4.0
MAX_S = 18.0
# Seconds of silence inside a turn at most.
MAX_PAUSE_S = 1.5
# Of meetings, the share that is set aside.
VALID_PERCENT = 8


@dataclass
class LongTurn:
    """A long turn from second 0, and when its listeners gave a backchannel."""

    words: list[Word]
    backchannels: list[float]


def read_long_turns(path: Path, split: str) -> list[LongTurn]:
    """The long turns of a split ("train" or "valid"; whole meetings are set aside)."""
    turns = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            meeting = json.loads(line)
            is_valid = zlib.crc32(meeting["id"].encode()) % 100 < VALID_PERCENT
            if is_valid == (split == "valid"):
                turns += long_turns(meeting["turns"])
    return turns


def long_turns(utterances: list[dict]) -> list[LongTurn]:
    """The long turns of a meeting: one speaker, no pause over MAX_PAUSE_S, others only assent."""
    backs = [(u["s"], u["spk"]) for u in utterances if is_backchannel(u)]
    floor = sorted((u for u in utterances if not is_backchannel(u)), key=lambda u: u["s"])
    found = []
    words: list[Word] = []
    speaker = None
    for utterance in [*floor, None]:
        said = [] if utterance is None else timed_words(utterance)
        goes_on = (
            utterance is not None
            and utterance["spk"] == speaker
            and said
            and words
            and 0 <= said[0].start - words[-1].end < MAX_PAUSE_S
            and said[-1].end - words[0].start < MAX_S
        )
        if goes_on:
            words += said
            continue
        if words and words[-1].end - words[0].start >= LONG_S:
            found.append(from_zero(words, [at for at, who in backs if who != speaker]))
        words = said
        speaker = utterance and utterance["spk"]
    return found


def is_backchannel(utterance: dict) -> bool:
    """Whether an utterance is marked as one, alone."""
    return utterance["act"].split(".")[0] == "b"


def timed_words(utterance: dict) -> list[Word]:
    """Its words in spoken form; broken-off ones are left out."""
    words = [
        Word(spoken_form(text), start, end)
        for start, end, text in utterance["words"]
        if not text.endswith("-")
    ]
    return [word for word in words if word.text and word.end > word.start]


def from_zero(words: list[Word], backchannels: list[float]) -> LongTurn:
    """The turn on a clock of its own."""
    begin = words[0].start
    end = words[-1].end
    moved = [Word(word.text, word.start - begin, word.end - begin) for word in words]
    return LongTurn(moved, [at - begin for at in backchannels if begin + 1 < at < end + 0.3])


@dataclass
class ListeningSource:
    """Long turns, without sound."""

    turns: list[LongTurn]
    maker: ExampleMaker

    def draw(self, rng: np.random.Generator) -> Example | None:
        """A long turn and the backchannels in it. None where nothing is recognised."""
        found = self.turns[rng.integers(len(self.turns))]
        begin = float(rng.uniform(0.2, 1.2))
        words = [Word(w.text, w.start + begin, w.end + begin) for w in found.words]
        turn = UserTurn(words, backchannels=[at + begin for at in found.backchannels])
        scene = Scene(words[-1].end + 1.0, [turn])
        drawn = self.maker.make(scene, None, simulate_recognition(scene, rng), rng)
        if drawn is None:
            return None
        sequence = mask_agent_side(drawn.sequence)
        # In a meeting a turn ends where another one begins, said or not.
        sequence.label[sequence.label == USER_END] = IGNORE
        return drawn._replace(sequence=sequence)
