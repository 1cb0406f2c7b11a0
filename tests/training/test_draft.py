"""The draft is counted from a corpus, and told what it guesses of turns that were held out."""

import json

from duplex.model.ngram_draft import load_draft, spoken_words
from duplex.model.tokens import AGENT, END
from duplex.model.vocabulary import load_tokenizer
from duplex.training import draft
from duplex.weights import DEFAULT_AGENT


def dialogue(split: str, *texts: str) -> dict:
    roles = ("user", "agent")
    turns = [{"role": roles[i % 2], "text": text} for i, text in enumerate(texts)]
    return {"turns": turns, "kind": "test", "split": split}


def test_a_corpus_becomes_a_draft(tmp_path, capsys):
    dialogues = [
        dialogue("train", "How are you?", "I'm doing well.", "Bye.", "See you."),
        dialogue("valid", "Are you well?", "I'm doing well."),
        dialogue("valid", "Bye bye.", "I'm off."),
    ]
    corpus = tmp_path / "dialogues.jsonl"
    corpus.write_text("".join(json.dumps(one) + "\n" for one in dialogues))
    draft.main(["--corpus", str(corpus), "--out", str(tmp_path / "run")])
    report = json.loads(capsys.readouterr().out)
    tokenizer = load_tokenizer(DEFAULT_AGENT)
    found = load_draft(tmp_path / "run", tokenizer.get_vocab_size())
    assert report["contexts"] == len(found.keys)
    opening = tokenizer.encode("I'm", add_special_tokens=False).ids
    rest = tokenizer.encode("I'm doing well.", add_special_tokens=False).ids[len(opening) :]
    words = spoken_words("And how are you?")
    guessed = found.continuation([AGENT, *opening], words, 9, lambda probability: True)
    assert [token for token, _ in guessed] == [*rest, END]
    # Of the second held out answer what follows "I'm" is wrong.
    assert 0.5 < report["right"] < 1
