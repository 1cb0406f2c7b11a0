"""Where the sequences come from that the LM learns, and in which shares.

There is a source for each kind: windows of recordings, sentences of a speech pool, dialogues with
or without sound, dialogues as text alone. `draw(rng)` makes one example of it, or returns None
where none could be made of what was drawn. `SceneSource` holds the lottery among them.
"""

import argparse
from dataclasses import dataclass
from functools import partial

import numpy as np

from duplex.audio import SAMPLE_RATE
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.data.augment import active_power, augment, load_noise
from duplex.training.data.pool import Pool
from duplex.training.scenes.example import Example, ExampleMaker, Tokenizer
from duplex.training.scenes.listening import ListeningSource, read_long_turns
from duplex.training.scenes.recognition import (
    SpeechRecognizer,
    recognize,
    simulate_recognition,
)
from duplex.training.scenes.recordings import (
    Recordings,
    mask_agent_side,
    time_agent_turns_as_recorded,
)
from duplex.training.scenes.render import UtteranceIndex, words_with_sound
from duplex.training.scenes.scene import (
    INSTRUCTIONS,
    Scene,
    UserTurn,
    end_of_turn,
    guess_times,
    pause_in_mid_sentence,
    read_dialogues,
    scene_from_turns,
    shift_words,
)
from duplex.training.scenes.sequence import (
    build_text_sequence,
)


@dataclass
class RecordingSource:
    """Windows of recorded conversations."""

    recordings: Recordings
    maker: ExampleMaker

    def draw(self, rng: np.random.Generator) -> Example | None:
        """A window, disturbed. None where an answered turn in it is not recognised."""
        scene, wave, both_known = self.recordings.sample_window(rng)
        channel = augment(wave, active_power(wave), self.maker.noises, rng)
        features, words = recognize(self.maker.recognizer, channel)
        drawn = self.maker.make(scene, features, words, rng, time_agent_turns_as_recorded)
        return drawn if both_known or not drawn else only_hearing(drawn)


@dataclass
class SentenceSource:
    """Sentences of a speech pool that are only to be written down: any sentence is heard."""

    pool: Pool
    maker: ExampleMaker

    def draw(self, rng: np.random.Generator) -> Example | None:
        """One or two sentences. None where they are not recognised."""
        scene = Scene(0.0)
        now = float(rng.uniform(0.2, 1.2))
        for _ in range(int(rng.integers(1, 3))):
            i = int(rng.integers(len(self.pool)))
            wave = self.pool.wave(i)
            entry = self.pool.entries[i]
            # Without word times it is one long word.
            times = entry["words"] or [[entry["text"], 0.0, len(wave) / SAMPLE_RATE]]
            words = [word for word in words_with_sound(wave, times) if word.text]
            if not words:
                return None
            pause_in_mid_sentence(words, rng)
            turn = UserTurn(shift_words(words, now))
            scene.user.append(turn)
            now = end_of_turn(turn) + float(rng.uniform(0.4, 2.0))
        scene.seconds = now
        drawn = self.maker.make_spoken(scene, rng)
        return drawn and only_hearing(drawn)


@dataclass
class DialogueSource:
    """Dialogues of the corpus; in the share `simulated` of them words are made up from the text."""

    dialogues: list[dict]
    index: UtteranceIndex
    simulated: float
    maker: ExampleMaker

    def draw(self, rng: np.random.Generator) -> Example | None:
        """A dialogue, without sound or with it."""
        dialogue = self.dialogues[rng.integers(len(self.dialogues))]
        make = self.simulate if rng.uniform() < self.simulated else self.speak
        return make(dialogue, rng)

    def simulate(self, dialogue: dict, rng: np.random.Generator) -> Example | None:
        """The dialogue without sound."""
        scene = scene_from_turns(dialogue["turns"], partial(guess_times, rng=rng), rng)
        add_note(scene, dialogue)
        return self.maker.make(scene, None, simulate_recognition(scene, rng), rng)

    def speak(self, dialogue: dict, rng: np.random.Generator) -> Example | None:
        """The dialogue said by voices. None where a pool lacks a sentence or it is not heard."""
        scene = self.index.scene(dialogue["turns"], rng)
        if scene is None:
            return None
        add_note(scene, dialogue)
        return self.maker.make_spoken(scene, rng)


@dataclass
class TextSource:
    """Dialogues as text alone; those of the kinds in `more` more often, each in its share."""

    dialogues: list[dict]
    more: list[tuple[float, list[dict]]]
    tokenizer: Tokenizer

    def draw(self, rng: np.random.Generator, positions: int = 180) -> Example:
        """Dialogues one after another, of together about so many positions."""
        turns = []
        count = 0
        while count < positions:
            dialogues = pick(self.more, rng) or self.dialogues
            dialogue = dialogues[rng.integers(len(dialogues))]
            if dialogue.get("note"):
                turns.append({"role": "system", "text": dialogue["note"]})
            for turn in dialogue["turns"]:
                is_user = turn["role"] == "user"
                turns.append({**turn, "text": spoken_form(turn["text"])} if is_user else turn)
                count += 2 + len(self.tokenizer.encode(turn["text"]))
        prompt = self.tokenizer.prompt(INSTRUCTIONS[0])
        sequence = build_text_sequence(turns, prompt, self.tokenizer.encode, self.tokenizer.spell)
        return Example(sequence, None, [[]])


class SceneSource:
    """Draws examples of all kinds, each in its share, and makes batches of them."""

    def __init__(
        self,
        args: argparse.Namespace,
        split: str,
        tokenizer: Tokenizer,
        recognizer: SpeechRecognizer | None,
        part: tuple[int, int] = (0, 1),
    ):
        """args: as setup.add_data_arguments parses them; without a recogniser nothing has sound.

        part: (i, n) where process i of n reads its own files of the corpus.
        """
        noises = load_noise(args.noise) if recognizer and args.noise else []
        maker = ExampleMaker(tokenizer, recognizer, noises, args.residual)
        dialogues = read_dialogues(args.corpus, split, part) if args.corpus else []
        index = UtteranceIndex(args.pool if recognizer else [])
        simulated = args.simulated if recognizer else 1.0
        self.dialogues = DialogueSource(dialogues, index, simulated, maker) if dialogues else None
        self.text = args.text if dialogues else 0.0
        more = of_kinds(dialogues, args.more)
        if split == "train" and len(more) < len(args.more):
            raise SystemExit("--more names a kind of which the corpus has no dialogue.")
        self.texts = TextSource(dialogues, more, tokenizer)
        pools = [(share, Pool(folder, split)) for folder, share in args.sentences]
        # In place of a pool that has nothing of the split a dialogue is drawn.
        self.sentences = [
            (share, SentenceSource(pool, maker) if len(pool) else None)
            for share, pool in (pools if recognizer else [])
        ]
        opened = [(share, Recordings(folder, split)) for folder, share in args.recordings]
        self.recordings = [
            (share, RecordingSource(found, maker)) for share, found in opened if len(found)
        ]
        self.listening = [
            (share, ListeningSource(read_long_turns(path, split), maker))
            for path, share in args.listening
        ]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw from."""
        return self.dialogues is None and not self.recordings

    def draw(self, rng: np.random.Generator, attempts: int = 1000) -> Example:
        """An example with ticks. RuntimeError where none of the `attempts` succeeds.

        Some fail because a voice lacks a sentence or is not heard.
        """
        for _ in range(attempts):
            source = (
                self.pick_recordings(rng)
                or self.pick_listening(rng)
                or self.pick_sentences(rng)
                or self.dialogues
            )
            drawn = source.draw(rng)
            if drawn is not None:
                return drawn
        raise RuntimeError(
            f"none of {attempts} scenes could be made: do the sounds fit the texts, and is "
            "anything heard?"
        )

    def pick_recordings(self, rng: np.random.Generator) -> RecordingSource | None:
        """Recordings, each in its share; None: another kind. Without dialogues there is none."""
        if not self.recordings:
            return None
        if self.dialogues:
            return pick(self.recordings, rng)
        total = sum(share for share, _ in self.recordings)
        return pick(self.recordings, rng, total) or self.recordings[-1][1]

    def pick_listening(self, rng: np.random.Generator) -> ListeningSource | None:
        """Long turns of meetings, in their share; None: another kind."""
        return pick(self.listening, rng) if self.listening else None

    def pick_sentences(self, rng: np.random.Generator) -> SentenceSource | None:
        """Sentences of a pool, each in its share; None: a dialogue."""
        return pick(self.sentences, rng) if self.sentences else None

    def batches(self, rng: np.random.Generator, positions: int, count: int) -> list[list[Example]]:
        """About `count` batches of at most `positions` positions, padding included.

        A batch has sequences of nearly one length.
        """
        drawn = []
        total = 0
        while total < positions * count:
            is_text = rng.uniform() < self.text
            drawn.append(self.texts.draw(rng) if is_text else self.draw(rng))
            total += len(drawn[-1].sequence.token)
        drawn.sort(key=lambda example: len(example.sequence.token))
        batches = [[]]
        for example in drawn:
            if batches[-1] and len(example.sequence.token) * (len(batches[-1]) + 1) > positions:
                batches.append([])
            batches[-1].append(example)
        rng.shuffle(batches)
        return batches


def of_kinds(
    dialogues: list[dict], shares: list[tuple[str, float]]
) -> list[tuple[float, list[dict]]]:
    """For each (kind, share) the share and the dialogues of the kind, if there are any."""
    found = [(share, [d for d in dialogues if kind in d["kind"]]) for kind, share in shares]
    return [(share, of_kind) for share, of_kind in found if of_kind]


def pick(options: list[tuple[float, object]], rng: np.random.Generator, total: float = 1.0):
    """One of the options [(share, option), ...], each in its share of `total`, or None."""
    chance = rng.uniform() * total
    for share, option in options:
        if chance < share:
            return option
        chance -= share
    return None


def only_hearing(example: Example) -> Example:
    """The example where nobody knows what the agent would have said."""
    return example._replace(sequence=mask_agent_side(example.sequence))


def add_note(scene: Scene, dialogue: dict) -> None:
    """The agent has read the dialogue's note, if it has one, after its instructions."""
    scene.instructions = f"{scene.instructions} {dialogue.get('note', '')}".strip()
