"""Templates of spoken exchanges: `{a|b}` choices, `$name` slots and the text files that hold them.

A file of exchanges (texts/*.txt) is a list of blocks with a blank line between them:

    @food: pizza = it smells so good | soup = it warms you up
    U: Do you like $food? | {What|How} about $food?
    A: I'd love to try $food, because $food2.
    U: Why?
    A: Because $food2.

`U:` and `A:` lines are the user's and the agent's turns, in pairs, their alternatives between bars.
An `@` line defines a slot for its block: one item is drawn for a dialogue, `$food` is its first
field and `$food2` its second. A line `W: 3` makes its block three times as frequent.
"""

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

TEXTS = Path(__file__).parents[1] / "texts"


@dataclass
class Block:
    """One group of paraphrases: turns[i] is a template, even ones the user's."""

    weight: int = 1
    turns: list[str] = field(default_factory=list)
    slots: dict[str, list[list[str]]] = field(default_factory=dict)


def expand(template: str, rng: random.Random, slots: dict[str, str] | None = None) -> str:
    """One text of a template: slots are filled, each {a|b} becomes one of its alternatives."""
    # An innermost choice.
    choice = re.compile(r"\{([^{}]*)\}")
    sentence = re.compile(r"[^.?!]+[.?!]")
    text = "{" + template + "}"
    while match := choice.search(text):
        text = text[: match.start()] + rng.choice(match.group(1).split("|")) + text[match.end() :]
    assert "}" not in text, template
    text = sentence.sub(lambda match: end_mark(match.group()), re.sub(r" +([,.?!])", r"\1", text))
    for name in sorted(slots or {}, key=len, reverse=True):
        text = text.replace("$" + name, slots[name])
    return tidy(text)


def end_mark(sentence: str) -> str:
    """The sentence with a question mark after a question and none after a request.

    The alternatives drawn may have left another.
    """
    question = re.compile(
        r"\s*(and |but |so )?(how about|what about|why|do|does|did|are you|are we|is it|is that"
        r"|is she|is he|was|what|who|where|how|can you|can i|could you|shall|should|would you"
        r"|will you|have you|which|may i)\b"
        r"(?! (a|an|nice|interesting|lovely)\b)",
        re.IGNORECASE,
    )
    statement = re.compile(
        r"\s*(please|tell|name|give|pick|choose|think|throw|roll|flip|count|add|spell|maybe|you|i'd"
        r"|try|then try"
        r"|surprise|teach|make|say|ask|i)\b",
        re.IGNORECASE,
    )
    clause = re.sub(r"^.*, ", "", sentence)
    if question.match(sentence) or (clause != sentence and question.match(clause)):
        return re.sub(r"\.$", "?", sentence)
    return re.sub(r"\?$", ".", sentence) if statement.match(sentence) else sentence


def tidy(text: str) -> str:
    """One space between words, none before punctuation, a capital at the start of each sentence."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" ([,.?!])", r"\1", text)
    text = re.sub(r"([.?!])[.,]+", r"\1", text)  # an alternative that ends its sentence by itself
    text = re.sub(r"\b([Aa]) (?=[aeio](?!ne\b))", r"\1n ", text)
    return re.sub(r"(^|[.?!] )([a-z])", lambda match: match.group(1) + match.group(2).upper(), text)


def read_blocks(name: str) -> list[Block]:
    """The blocks of texts/<name>.txt."""
    blocks = []
    for paragraph in re.split(r"\n\s*\n", (TEXTS / f"{name}.txt").read_text(encoding="utf-8")):
        block = Block()
        for line in paragraph.splitlines():
            if line.startswith("@"):
                slot, items = line[1:].split(":", 1)
                block.slots[slot] = [
                    [part.strip() for part in item.split(" = ")] for item in items.split("|")
                ]
            elif line.startswith("W:"):
                block.weight = int(line[2:])
            elif line[:2] in ("U:", "A:"):
                expected = "UA"[len(block.turns) % 2]
                assert line[0] == expected, f"{name}.txt: {expected}: expected, found {line!r}"
                block.turns.append(line[2:].strip())
        if block.turns:
            assert len(block.turns) % 2 == 0, f"{name}.txt: no answer in {block.turns!r}"
            blocks.append(block)
    return blocks


def sample_dialogue(
    block: Block, rng: random.Random, common: dict[str, str] | None = None
) -> list[tuple[str, str]]:
    """One dialogue of a block: (user text, agent text) pairs. `common` slots serve every block."""
    slots = dict(common or {})
    for name, items in block.slots.items():
        item = rng.choice(items)
        slots |= {name + (str(i + 1) if i else ""): part for i, part in enumerate(item)}
    texts = [expand(turn, rng, slots) for turn in block.turns]
    return list(zip(texts[::2], texts[1::2], strict=True))


def read_lines(name: str) -> list[str]:
    """The lines of texts/<name>.txt that are neither empty nor comments."""
    lines = (TEXTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
