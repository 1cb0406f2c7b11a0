"""Single utterances of speech pools, each with its streaming transcript as a sequence."""

import argparse
from dataclasses import dataclass

import numpy as np
import torch

from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.model.asr.spoken_form import spoken_form
from duplex.model.tokens import USER_END
from duplex.training.data.augment import active_power, augment, load_noise
from duplex.training.data.pool import Pool
from duplex.training.scenes.example import Example, Tokenizer
from duplex.training.scenes.recognition import (
    SpeechRecognizer,
    TokensByTick,
    align_turns_to_recognition,
    recognize,
    to_token_ids,
)
from duplex.training.scenes.scene import INSTRUCTIONS, Scene, UserTurn, Word, shift_words
from duplex.training.scenes.sequence import IGNORE, Sequence, build_sequence, user_symbols


@dataclass
class Utterance:
    """What is said in a pool's utterance, and what the agent hears of it."""

    text: str
    said: list[int]  # The LM's tokens of its words in spoken form.
    sequence: Sequence  # Its ticks and their transcript, up to </user>.
    features: torch.Tensor  # [T, W] of its ticks.
    tokens: TokensByTick  # What was recognised, T ticks.

    @property
    def example(self) -> Example:
        """As a row of a batch."""
        return Example(self.sequence, self.features, self.tokens)


@dataclass(frozen=True)
class Stretch:
    """A part of a pool's entry in which something is said without a long pause."""

    pool: Pool
    entry: int
    start: float  # Seconds from the entry's beginning.
    seconds: float
    words: list[list]  # [[word, start, end], ...] from the stretch's beginning.

    @property
    def text(self) -> str:
        """Its words."""
        return " ".join(word for word, _, _ in self.words)


def stretches(pool: Pool, i: int, longest_s: float = 8.0, gap_s: float = 0.6) -> list[Stretch]:
    """Entry i of a pool, or where it is longer than longest_s its parts, cut at pauses of gap_s.

    8 s are well inside the LM's window of ticks. A part without such pauses is cut between words.
    """
    entry = pool.entries[i]
    seconds = entry["samples"] / SAMPLE_RATE
    if seconds < longest_s:
        return [Stretch(pool, i, 0.0, seconds, entry["words"])]
    parts: list[list[list]] = []
    for word in entry["words"]:
        part = parts[-1] if parts else []
        if part and word[1] - part[-1][2] <= gap_s and word[2] - part[0][1] < longest_s - 0.5:
            part.append(word)
        else:
            parts.append([word])
    found = []
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        start = max(0.0, part[0][1] - 0.1)
        end = min(part[-1][2] + 0.3, following[0][1] if following else seconds)
        words = [[word, first - start, last - start] for word, first, last in part]
        found.append(Stretch(pool, i, start, max(end, part[-1][2]) - start, words))
    return found


class UtteranceSource:
    """One split of the speech pools, made into utterances of at most 8 s."""

    def __init__(
        self,
        args: argparse.Namespace,
        split: str,
        tokenizer: Tokenizer,
        recognizer: SpeechRecognizer,
    ):
        """args: `pool`, folders of pools with word times; `noise`, see setup."""
        self.tokenizer = tokenizer
        self.recognizer = recognizer
        self.noises = load_noise(args.noise) if args.noise else None
        self.prompt = tokenizer.prompt(INSTRUCTIONS[0])
        self.found = [
            stretch
            for pool in (Pool(folder, split) for folder in args.pool)
            for i, entry in enumerate(pool.entries)
            if entry["words"]
            for stretch in stretches(pool, i)
        ]

    @property
    def texts(self) -> set[str]:
        """All that is said; a batch needs two different ones."""
        return {stretch.text for stretch in self.found}

    def make(self, stretch: Stretch, rng: np.random.Generator) -> Utterance | None:
        """A stretch after a short silence. None where nothing is recognised."""
        lead_in = float(rng.uniform(0.1, 0.6))
        words = [Word(spoken_form(word), start, end) for word, start, end in stretch.words]
        turn = UserTurn([word for word in shift_words(words, lead_in) if word.text])
        if not turn.words:
            return None
        # The tokens of the last word come up to half a second late, and </user> 3 ticks after them.
        ticks = int(turn.words[-1].end / TICK_S) + 16
        channel = np.zeros(ticks * TICK_SAMPLES, np.float32)
        at = int(lead_in * SAMPLE_RATE)
        samples = min(len(channel) - at, int(stretch.seconds * SAMPLE_RATE))
        wave = stretch.pool.wave(stretch.entry, int(stretch.start * SAMPLE_RATE), samples)
        channel[at : at + len(wave)] = wave
        if self.noises:
            channel = augment(channel, active_power(channel), self.noises, rng)
        features, recognised = recognize(self.recognizer, channel)
        spell = self.tokenizer.spell
        said = [token for word in turn.words for token in spell(word.text)]
        scene = Scene((ticks + 0.5) * TICK_S, [turn])
        due = align_turns_to_recognition(scene, recognised, spell)
        if not due:
            return None
        cap = int(rng.choice([1, 1, 2, 3]))
        symbols = user_symbols(scene, due, spell)
        sequence = build_sequence(scene, symbols, self.prompt, self.tokenizer.encode, cap)
        sequence = cut_at_user_end(sequence)
        if sequence is None:
            return None
        kept = int(sequence.tick[-1]) + 1
        tokens = to_token_ids(recognised[:kept], spell)
        return Utterance(stretch.text, said, sequence, features[:kept], tokens)

    def batch(self, rng: np.random.Generator, count: int) -> list[Utterance]:
        """Up to `count` utterances, no text twice.

        Another voice with the same words is no counter-example. One that is not heard to its end is
        tried once more, at another time. SystemExit where there are fewer than two.
        """
        made = []
        texts = set()
        order = rng.permutation(len(self.found))
        for n in [*order, *order]:
            if len(made) == count:
                break
            if self.found[n].text in texts:
                continue
            utterance = self.make(self.found[n], rng)
            if utterance:
                made.append(utterance)
                texts.add(utterance.text)
        if len(made) < 2:
            raise SystemExit(
                "Fewer than two utterances of different texts are heard: do the pools hold speech?"
            )
        return made


def cut_at_user_end(sequence: Sequence) -> Sequence | None:
    """The sequence up to its first </user>, after which nothing is asked; None where it has none.

    What comes then is the answer, which nobody wrote.
    """
    ends = np.flatnonzero(sequence.token == USER_END)
    if not len(ends):
        return None
    cut = Sequence(*(array[: ends[0] + 1] for array in vars(sequence).values()))
    cut.label[-1] = IGNORE
    return cut
