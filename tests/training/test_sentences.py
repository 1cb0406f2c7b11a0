"""Sentences to be spoken: rare words often, words of a list in a row, all tokens alike."""

import gzip
import json
import random
import re
from collections import Counter

import pytest

from duplex.training import sentences
from duplex.training.text.numbers import number_words
from tests.training.helpers import strings

SAID = {
    "chitchat.jsonl.gz": json.dumps({"turns": [["a", "So do I, every day!"]]}),
    "webquestions-train.jsonl.gz": json.dumps({"question": "who is he?"}),
    "tatoeba-en-fr.tsv.gz": "\n".join(
        f"I can see {number_words(i)} green trees.\tx" for i in range(100)
    ),
}


@pytest.fixture
def data(tmp_path):
    """A data folder with 102 sentences."""
    (tmp_path / "text").mkdir()
    for name, text in SAID.items():
        with gzip.open(tmp_path / "text" / name, "wt", encoding="utf-8") as file:
            file.write(text + "\n")
    return tmp_path


def test_rare_words_are_drawn_often():
    """A word in two of a hundred sentences comes into the first ten more often than at random.

    A word that stands only once is a misspelling.
    """
    lines = [f"we see {word} today" for word in ["trees"] * 97 + ["owls"] * 2 + ["tres"]]
    draws = [sentences.rare_often(lines, 10, random.Random(seed)) for seed in range(200)]
    often = sum("owls" in line for draw in draws for line in draw) / len(draws)
    assert often > 0.4 and all(len(draw) == 10 for draw in draws), "at random it is 0.2"


def test_sentences_of_the_sources_and_of_a_list_are_written(data, tmp_path):
    words = tmp_path / "words"
    words.write_text("gnocchi\nwharf\nthyme\nit's\nox\n")
    out = tmp_path / "sentences.txt"
    sentences.main(strings("--data", data, "--words", words, "--rare", 20, "--out", out))
    written = out.read_text().splitlines()
    assert {"So do I, every day!", "who is he?", "I can see seven green trees."} <= set(written)
    assert len(written) == 122
    named = [len(re.findall("gnocchi|wharf|thyme", line)) for line in written[102:]]
    assert set(named) == {2, 3} and not re.search(r"\$|\box\b", " ".join(written[102:]))


def test_all_tokens_are_said_about_equally_often():
    words = [a + b for a in "abcdefgh" for b in "ijklmnop"]
    lines = sentences.even_words(words, lambda word: [ord(c) for c in word], 200, random.Random(0))
    named = [word for line in lines for word in re.findall(r"\b[a-h][i-p]\b", line.lower())]
    said = Counter("".join(named))
    assert len(lines) == 200 and max(said.values()) < 2 * min(said.values())


def test_a_list_is_needed_for_its_words(data, capsys):
    with pytest.raises(SystemExit):
        sentences.parse_arguments(strings("--data", data, "--even", 3, "--out", "x"))
    assert "--rare and --even need --words" in capsys.readouterr().err
