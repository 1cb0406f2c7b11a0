"""A person's own conversations as text, beside a few hundred that keep the LM from forgetting.

The recordings teach to hear and when to speak; as text the same questions and answers are learned
at a tenth of the price. texts/rehearsal.jsonl holds dialogues of the shipped LM's own corpus.
"""

import json
from pathlib import Path

from duplex.training.scenes.recordings import Conversation, parse_conversation
from duplex.training.text.templates import TEXTS

# What the dialogues of the recordings are called, for `--more own=SHARE`.
OWN = "own"


def pairs_of(conversation: Conversation) -> list[tuple[str, str]]:
    """What was asked and what was answered, in order; the agent's broken off answers are not."""
    return [
        (" ".join(word.text for word in turn.answers.words), turn.text)
        for turn in conversation.agent
        if turn.answers and not turn.cut
    ]


def own_dialogues(prepared: Path, pairs: int = 3) -> list[dict]:
    """The conversations of a prepared folder as dialogues of at most so many pairs."""
    found = []
    for line in (prepared / "index.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["agent"] is None:
            continue
        said = pairs_of(parse_conversation(entry))
        for begin in range(0, len(said), pairs):
            turns = []
            for question, answer in said[begin : begin + pairs]:
                turns.append({"role": "user", "text": question})
                turns.append({"role": "agent", "text": answer})
            found.append({"turns": turns, "kind": OWN, "split": entry["split"]})
    return found


def write_dialogues(prepared: Path, path: Path) -> int:
    """Write the own dialogues and those of rehearsal; returns how many are own ones to learn."""
    own = own_dialogues(prepared)
    rehearsal = (TEXTS / "rehearsal.jsonl").read_text(encoding="utf-8")
    lines = "".join(json.dumps(dialogue, ensure_ascii=False) + "\n" for dialogue in own)
    path.write_text(lines + rehearsal, encoding="utf-8")
    return sum(dialogue["split"] == "train" for dialogue in own)
