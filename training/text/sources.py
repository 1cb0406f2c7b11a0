"""The sentences that training reads: those of the data folder, and files with one text a line."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path


def read_sentences(data: Path) -> Iterator[str]:
    """English sentences of DATA/text: Tatoeba, BYU's chit-chat and WebQuestions, in this order."""
    text = data / "text"
    for path in sorted(text.glob("tatoeba-*.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield line.split("\t")[0].strip()
    with gzip.open(text / "chitchat.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            for _, said in json.loads(line)["turns"]:
                yield said.strip()
    with gzip.open(text / "webquestions-train.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["question"].strip()


def read_texts(files: list[Path]) -> list[str]:
    """The lines of all files that are not empty, each different one once."""
    lines = [line.strip() for file in files for line in file.read_text().splitlines()]
    return list(dict.fromkeys(line for line in lines if line))
