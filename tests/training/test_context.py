"""What was told before: notes are read, facts are half by voice and half by text, and what nobody told is not made up."""

import random

import pytest
from duplex.training.corpus import as_json, write_context
from duplex.training.evaluation.context import NOT_TOLD, conversations, score
from duplex.training.scenes.sequence import IGNORE, build_text_sequence, system_text
from duplex.training.text.context import MODES, UNKNOWN, context_exchange, read_matters


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


def test_the_same_facts_are_asked_in_every_mode():
    talks = conversations(16, 0)
    assert [talk["mode"] for talk in talks] == [mode for mode in MODES for _ in range(4)]
    by_mode = {mode: [talk for talk in talks if talk["mode"] == mode] for mode in MODES}
    assert all(
        talk["note"] and len(talk["user"]) == len(talk["wanted"]) for talk in by_mode["text"]
    )
    assert all(
        not talk["note"] and len(talk["user"]) == 2 * len(talk["wanted"])
        for talk in by_mode["voice"]
    )
    assert all(talk["note"] and len(talk["user"]) == 3 for talk in by_mode["both"])
    for text, voice, both in zip(by_mode["text"], by_mode["voice"], by_mode["both"], strict=True):
        values = [{value for [value] in talk["wanted"]} for talk in (text, voice, both)]
        assert values[0] == values[1] <= values[2] and len(values[2]) == 2


def test_what_is_right_is_counted_for_the_questions_alone():
    turns = [
        {"said": "Good to know, Rex."},
        {"said": "Your dog is called Rex."},
        {"said": "You live in Rome."},
    ]
    record = {"mode": "voice", "turns": turns, "wanted": [["Rex"], ["Paris"]]}
    told = {
        "mode": "unknown",
        "turns": [{"said": "I'm sorry, you haven't told me that."}],
        "wanted": [NOT_TOLD],
    }
    assert score([record, told]) == {
        "voice": {"asked": 2, "right": 1},
        "unknown": {"asked": 1, "right": 1},
    }
