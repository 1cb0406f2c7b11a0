"""What was told before: notes are read, facts are told by voice and text, none is made up."""

import random

import pytest

from duplex.training.corpus import as_json, write_context
from duplex.training.scenes.sequence import IGNORE, build_text_sequence, system_text
from duplex.training.text.context import UNKNOWN, context_exchange, read_matters


@pytest.mark.parametrize(
    ("mode", "by_text", "by_voice"),
    [("text", None, 0), ("voice", 0, None), ("both", 1, 1), ("unknown", 0, 0)],
)
def test_every_answer_has_been_told_in_the_way_it_should(mode, by_text, by_voice):
    """None: as many as are asked for."""
    matters = read_matters()
    assert len(matters) >= 10
    for seed in range(200):
        _, asked, note, turns = context_exchange(matters, random.Random(seed), mode)
        told = turns[: len(turns) - len(asked)]
        answers = {answer for _, answer in turns[len(told) :]}
        said = " ".join(user for user, _ in told)
        in_text = [one for one in asked if one.matter.note.replace("$v", one.value) in note]
        in_voice = [
            one
            for one in asked
            if any(form.replace("$v", one.value) in said for form in one.matter.said)
        ]
        assert len(in_text) == (len(asked) if by_text is None else by_text)
        assert len(in_voice) == (len(asked) if by_voice is None else by_voice)
        if mode == "unknown":
            assert answers <= set(UNKNOWN)
        else:
            assert all(any(one.value in answer for answer in answers) for one in asked)


def test_held_out_values_are_in_no_training_dialogue():
    dialogues = write_context(2000, 3)
    train = [as_json(dialogue) for dialogue in dialogues if dialogue.split == "train"]
    valid = [dialogue for dialogue in dialogues if dialogue.split == "valid"]
    assert len(train) > 1800 and len(valid) >= 5
    notes = {note for dialogue in valid for note in dialogue.note.split(". ") if note}
    assert notes
    for note in notes:
        assert not any(note.rstrip(".") + "." in line for line in train)


def test_a_note_is_read_and_never_learned():
    def spell(word: str) -> list[int]:
        return [100 + ord(letter) for letter in word]

    def encode(text: str) -> list[tuple[int, str]]:
        return [(100 + ord(letter), letter) for letter in text]

    turns = [
        {"role": "system", "text": "A note."},
        {"role": "user", "text": "why"},
        {"role": "agent", "text": "So."},
    ]
    sequence = build_text_sequence(turns, [1, 2], encode, spell)
    note = [token for token, _ in encode(system_text("A note."))]
    end = 2 + len(note)
    assert sequence.token[2:end].tolist() == note
    assert (sequence.label[:end] == IGNORE).all() and (sequence.label[end:] != IGNORE).any()
