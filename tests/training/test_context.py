"""What was told before: notes are read, facts are half by voice and half by text, and what nobody told is not made up."""

import random

import pytest
from duplex.training.corpus import as_json, write_context
from duplex.training.scenes.sequence import IGNORE, build_text_sequence, system_text
from duplex.training.text.context import UNKNOWN, context_exchange, read_matters


@pytest.mark.parametrize("mode", ["text", "voice", "both", "unknown"])
def test_every_answer_has_been_told_in_the_way_it_should(mode):
    matters = read_matters()
    assert len(matters) >= 10
    for seed in range(200):
        _, asked, note, turns = context_exchange(matters, random.Random(seed), mode)
        said = " ".join(user for user, _ in turns[: len(turns) - len(asked)])
        answers = {answer for _, answer in turns[len(turns) - len(asked) :]}
        by_text = [one for one in asked if one.matter.note.replace("$v", one.value) in note]
        by_voice = [
            one
            for one in asked
            if any(form.replace("$v", one.value) in said for form in one.matter.said)
        ]
        ways = {
            "text": (len(asked), 0),
            "voice": (0, len(asked)),
            "both": (1, 1),
            "unknown": (0, 0),
        }
        assert (len(by_text), len(by_voice)) == ways[mode]
        if mode == "unknown":
            assert answers <= set(UNKNOWN)
        else:
            assert all(any(one.value in answer for answer in answers) for one in asked)


def test_held_out_values_are_in_no_training_dialogue():
    dialogues = write_context(2000, 3)
    kept = {
        split: [as_json(d) for d in dialogues if d.split == split] for split in ("train", "valid")
    }
    assert len(kept["train"]) > 1800 and len(kept["valid"]) >= 5
    notes = {note for d in dialogues if d.split == "valid" for note in d.note.split(". ") if note}
    assert notes and not any(
        note.rstrip(".") + "." in line for note in notes for line in kept["train"]
    )


def test_a_note_is_read_and_never_learned():
    def encode(text):
        return [(100 + ord(letter), letter) for letter in text]

    turns = [
        {"role": "system", "text": "A note."},
        {"role": "user", "text": "why"},
        {"role": "agent", "text": "So."},
    ]
    sequence = build_text_sequence(
        turns, [1, 2], encode, lambda word: [100 + ord(letter) for letter in word]
    )
    note = [token for token, _ in encode(system_text("A note."))]
    assert sequence.token[2 : 2 + len(note)].tolist() == note
    assert (sequence.label[: 2 + len(note)] == IGNORE).all() and (
        sequence.label[2 + len(note) :] != IGNORE
    ).any()
