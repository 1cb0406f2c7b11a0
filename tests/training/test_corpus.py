"""The text corpus: right sums, the same for the same seed, nothing of validation in training."""

import gzip
import json
import random
import re

import pytest

from duplex.training.corpus import as_json, draw_different, write_dialogues
from duplex.training.text.company import TELEVISION, read_chats
from duplex.training.text.exchanges import SHARES, Writer
from duplex.training.text.numbers import number_exchange, number_words
from duplex.training.text.templates import expand, read_blocks

VALUES = {number_words(n): n for n in range(2500)}


@pytest.fixture
def data(tmp_path):
    """A data folder with a handful of sentences and countries."""
    (tmp_path / "text").mkdir()
    row = {"city": "Apia", "currency_name": "Samoan Tala", "continent": "Oceania"}
    (tmp_path / "text" / "countries.json").write_text(
        json.dumps({"Samoa": row, "France": row | {"city": "Nowhere"}})
    )
    with gzip.open(tmp_path / "text" / "tatoeba-en-fr.tsv.gz", "wt", encoding="utf-8") as file:
        for i in range(100):
            file.write(f"I can see {number_words(i)} green trees.\tx\n")
    with gzip.open(tmp_path / "text" / "chitchat.jsonl.gz", "wt", encoding="utf-8") as file:
        texts = ["i have a new bike", "oh nice what color is it?", "damn", "it is red", "see u 2"]
        turns = [["AB"[i % 2], text] for i, text in enumerate(texts)]
        file.write(json.dumps({"turns": turns}) + "\n")
    return tmp_path


def write(data, seed=1, count=400):
    return write_dialogues(Writer(data, data / "answers.jsonl", seed), count)


def test_number_words():
    assert [number_words(n) for n in (0, 13, 20, 42, 100, 342)] == [
        "zero", "thirteen", "twenty", "forty-two", "one hundred", "three hundred forty-two",
    ]  # fmt: skip


def test_answers_of_sums_are_right():
    rng = random.Random(0)
    operations = {
        "plus": int.__add__,
        "minus": int.__sub__,
        "times": int.__mul__,
        "divided by": int.__floordiv__,
    }
    form = re.compile(
        r"([\w -]+?) (plus|minus|times|divided by) ([\w -]+?) (?:is|makes|leaves) ([\w -]+)\."
    )
    checked = 0
    for _ in range(3000):
        for _, answer in number_exchange(rng)[1]:
            if match := form.fullmatch(answer):
                a, b, c = (VALUES[match[i].lower()] for i in (1, 3, 4))
                assert operations[match[2]](a, b) == c, answer
                checked += 1
    assert checked > 300


def test_expand_fills_every_choice_and_slot():
    rng = random.Random(0)
    found = {expand("{is|was} $x {a {big|small} dog|}?", rng, {"x": "it"}) for _ in range(100)}
    assert found == {
        f"{verb} it{rest}?" for verb in ("Is", "Was") for rest in ("", " a big dog", " a small dog")
    }


@pytest.mark.parametrize("name", ["social", "opinion", "smalltalk", "fact_tables"])
def test_every_block_can_be_drawn(data, name):
    writer = Writer(data, data / "none", 0)
    writer.blocks = {name: read_blocks(name)}
    for block in writer.blocks[name]:
        writer.blocks[name] = [block]
        for _ in range(20):
            for texts in writer.from_blocks(name).turns:
                for text in texts:
                    assert text and not re.search(r"[{}|$]| [,.?!]|[.?!,]{2}", text), text


def test_same_seed_same_corpus(data):
    assert write(data) == write(data)
    assert write(data) != write(data, seed=2)


def test_splits_share_no_first_question(data):
    dialogues = write(data, count=3000)
    first = {
        split: {d.turns[0][0] for d in dialogues if d.split == split}
        for split in ("train", "valid")
    }
    assert first["valid"] and not first["train"] & first["valid"]
    assert len({d.turns for d in dialogues}) == len(dialogues)


def test_dialogues_are_short_and_of_every_kind(data):
    dialogues = write(data, count=1500)
    assert all(len(agent.split()) <= 25 for d in dialogues for _, agent in d.turns if agent)
    kinds = {kind for d in dialogues for kind in d.kind.split("+")}
    assert kinds == set(SHARES) - {"answer"} | {"aside"}


def test_what_is_said_to_somebody_else_has_no_answer(data):
    asides = [
        turn for d in write(data) for turn in json.loads(as_json(d))["turns"] if turn.get("aside")
    ]
    assert len(asides) > 20 and all(turn["role"] == "user" for turn in asides)
    for dialogue in write(data):
        roles = [
            (turn["role"], bool(turn.get("aside")))
            for turn in json.loads(as_json(dialogue))["turns"]
        ]
        answered = [i for i, (role, aside) in enumerate(roles) if role == "user" and not aside]
        assert all(roles[i + 1][0] == "agent" for i in answered) and (
            "aside" in dialogue.kind
        ) == any(a for _, a in roles)


def test_repeat_request_gives_the_last_answer(data):
    for dialogue in write(data):
        if (
            dialogue.kind.endswith("+repeat")
            and dialogue.kind.count("+") == 1
            and len(dialogue.turns) == 2
        ):
            (_, answer), (user, again) = dialogue.turns
            if ":" not in user:
                assert again.lower().endswith(answer.lower())


def test_base_answers_are_mixed_in(data):
    rows = [
        {"question": f"What is {n}?", "answer": f"A number, {n}.", "score": -n} for n in range(900)
    ]
    (data / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions = [user for d in write(data) if d.kind == "answer" for user, _ in d.turns]
    assert questions and "What is 899?" not in questions


def test_only_what_can_be_said_is_taken_of_typed_chats(data):
    assert read_chats(data) == [["I have a new bike.", "Oh nice what color is it?"]]


def test_people_who_talk_to_each_other_are_not_answered(data):
    """With several people every line has a speaker; what is not for the agent has no answer."""
    found = draw_different(Writer(data, data / "answers.jsonl", 1).company, 60)
    lines = [turn for d in found for turn in json.loads(as_json(d))["turns"]]
    users = [turn for turn in lines if turn["role"] == "user"]
    assert {turn.get("speaker", 1) for turn in users} >= {1, 2, TELEVISION}
    assert all(turn["aside"] for turn in users if turn.get("far"))
    assert all(turn.get("speaker") == TELEVISION for turn in users if turn.get("far"))
    answered = {
        before.get("speaker", 1)
        for before, after in zip(lines, lines[1:], strict=False)
        if after["role"] == "agent"
    }
    assert answered >= {1, 2} and TELEVISION not in answered
