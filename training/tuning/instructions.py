"""What an agent's folder keeps in mind: written facts, and turns that show how it speaks.

The LM reads as many lines as it has room for, a large mind all of them, the turns as turns
(instructions.txt; duplex/agent/thinking/conversation.py).
"""

from pathlib import Path

from duplex.training.common.plain_text import read_text
from duplex.training.scenes.own import own_dialogues
from duplex.training.scenes.scene import INSTRUCTIONS


def example_turns(prepared: Path, most: int = 12) -> list[str]:
    """Pairs of the conversations, each answer once, those of the longest answers' middle first."""
    found = {}
    for dialogue in own_dialogues(prepared):
        turns = dialogue["turns"] if dialogue["split"] == "train" else []
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            found.setdefault(answer["text"], question["text"])
    spread = max(1, len(found) // most)
    return [
        f'Asked "{question}" you say: "{answer}"'
        for answer, question in list(found.items())[::spread][:most]
    ]


def write_instructions(out: Path, prepared: Path, facts: Path | None) -> Path:
    """Write instructions.txt: who it is, the facts, then example turns."""
    lines = [INSTRUCTIONS[0]]
    if facts:
        told = read_text(facts).splitlines()
        lines += [line.strip() for line in told if line.strip()]
    path = out / "instructions.txt"
    path.write_text("\n".join([*lines, *example_turns(prepared)]) + "\n", encoding="utf-8")
    return path
