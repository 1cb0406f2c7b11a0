"""A scene and what is recognised of it become one row of a batch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from duplex.model.asr.lexicon import surface_forms
from duplex.model.vocabulary import load_tokenizer
from duplex.training.scenes.people import label_speakers
from duplex.training.scenes.recognition import (
    SpeechRecognizer,
    TokensByTick,
    WordsByTick,
    align_turns_to_recognition,
    recognize,
    to_token_ids,
)
from duplex.training.scenes.render import render_user_channel
from duplex.training.scenes.scene import Scene
from duplex.training.scenes.sequence import (
    Sequence,
    build_sequence,
    system_text,
    time_agent_turns,
    user_symbols,
)


class Example(NamedTuple):
    """One row of a batch: the sequence, and what its ticks are made of."""

    sequence: Sequence
    features: torch.Tensor | None  # [T, W] of the encoder; None: the residual is left out.
    tokens: TokensByTick  # What was recognised, T ticks.
    speakers: np.ndarray | None = None  # int64 [T], who speaks, as far as is known; 0: nobody.


class Tokenizer:
    """Texts as the LM's tokens: of the user word by word, of the agent as they stand."""

    def __init__(self, folder: Path, recognizer: SpeechRecognizer | None = None):
        """With a recogniser the user's words are written as in its lexicon: Paris, I'm, house."""
        self.lm = load_tokenizer(folder)
        self.surface_forms = surface_forms(recognizer.lexicon) if recognizer else {}

    def spell(self, word: str) -> list[int]:
        """The token ids of a word in spoken form."""
        text = " " + self.surface_forms.get(word, word)
        return self.lm.encode(text, add_special_tokens=False).ids

    def encode(self, text: str) -> list[tuple[int, str]]:
        """(token id, its text) of all tokens of a text."""
        ids = self.lm.encode(text, add_special_tokens=False).ids
        return [(i, self.lm.decode([i])) for i in ids]

    def prompt(self, instructions: str) -> list[int]:
        """The token ids with which a conversation begins."""
        return self.lm.encode(system_text(instructions), add_special_tokens=False).ids


@dataclass
class ExampleMaker:
    """What all sources of scenes share: a scene and what is recognised of it become an example."""

    tokenizer: Tokenizer
    recognizer: SpeechRecognizer | None
    noises: list[np.ndarray]
    # Whether the features' residual is learned; without it examples have no features.
    residual: bool

    def make(
        self,
        scene: Scene,
        features: torch.Tensor | None,
        words: WordsByTick,
        rng: np.random.Generator,
        time_agent: Callable = time_agent_turns,
    ) -> Example | None:
        """Lay the scene out with the words recognised.

        None where nothing was recognised of a turn that is answered. time_agent: puts the agent's
        turns in time.
        """
        spell = self.tokenizer.spell
        speakers = label_speakers(scene, rng)
        due = align_turns_to_recognition(scene, words, spell)
        if not due:
            return None
        time_agent(scene, due, spell)
        cap = int(rng.choice([1, 1, 2, 3]))
        prompt = self.tokenizer.prompt(scene.instructions)
        symbols = user_symbols(scene, due, spell)
        sequence = build_sequence(scene, symbols, prompt, self.tokenizer.encode, cap)
        kept = features if self.residual else None
        return Example(sequence, kept, to_token_ids(words, spell), speakers[: len(words)])

    def make_spoken(self, scene: Scene, rng: np.random.Generator) -> Example | None:
        """An example of a scene whose words have sound: rendered, disturbed, recognised."""
        channel = render_user_channel(scene, self.noises, rng)
        return self.make(scene, *recognize(self.recognizer, channel), rng)
