"""Draws exchanges of every kind: what users say, and what the agent answers."""

import json
import random
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from duplex.training.text.company import (
    NAMES,
    company_turns,
    read_chats,
    side_talk,
    television,
)
from duplex.training.text.countries import country_exchange, load_countries
from duplex.training.text.numbers import number_exchange, small_sum
from duplex.training.text.repeats import (
    answer_again,
    own_phrases,
    remark,
    say_after_me,
    short_sentences,
)
from duplex.training.text.templates import Block, expand, read_blocks, read_lines, sample_dialogue

# Per cent of the single exchanges. Three in a hundred of all others are followed by a repeat.
SHARES = {
    "social": 12,
    "country": 15,
    "numbers": 13,
    "sum": 6,
    "opinion": 12,
    "repeat": 10,
    "fact": 15,
    "smalltalk": 12,
    "remark": 4,
    "answer": 5,
    "story": 3,
}


@dataclass(frozen=True)
class Exchange:
    """Consecutive (user, agent) pairs on one matter, or on several in a row."""

    # Without an agent's text what the user says is for somebody else.
    turns: tuple[tuple[str, str | None], ...]
    kind: str
    split: str
    source: str = "own"
    licence: str = "Apache-2.0"
    slow: tuple[str, ...] = ()  # User texts that tell something.
    note: str = ""  # Text in the context.
    speakers: tuple[int, ...] = ()  # Who says each user text, where there are several people.


def split_of(key: str) -> str:
    """The split of an exchange: held out by what it is about.

    Very short texts are too common to be kept away from training. About 2 per cent remain held out:
    dialogues with parts of both splits are dropped.
    """
    if len(key.split()) < 4 and " " in key:
        return "train"
    return "valid" if zlib.crc32(key.encode()) % 1000 < 35 else "train"


def with_opening(user: str, openings: list[str], rng: random.Random) -> str:
    """The text, now and then with a hesitation or an address before a question."""
    opening_words = set(
        "What What's Which Who Who's Where Where's How Why When Can Could Do Does Is Are Tell "
        "Count "
        "Repeat Say Should Would".split()
    )
    first = user.split(" ")[0].rstrip(",")
    if first not in opening_words or rng.random() > 0.08:
        return user
    opening = rng.choice(openings)
    return opening + (user if opening.endswith(". ") else user[0].lower() + user[1:])


def read_answers(path: Path) -> list[dict]:
    """The more confident two thirds of the base LM's answers: the others are mostly untrue."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = sorted((row for row in rows if row["answer"]), key=lambda row: -row["score"])
    return rows[: max(1, len(rows) * 2 // 3)]


class Writer:
    """Draws exchanges of every kind.

    Each dialogue has its own random numbers: a changed template or new answers change only the
    dialogues they are in, and speech made of the other texts stays of use.
    """

    def __init__(self, data: Path, answers: Path, seed: int):
        """answers: the file of duplex.training.answers; without it there are none."""
        kinds = ("social", "opinion", "smalltalk", "fact_tables", "story")
        self.seed = seed
        self.rng = random.Random(seed)
        self.blocks = {kind: read_blocks(kind) for kind in kinds}
        self.countries = load_countries(data)
        self.facts = [Block(turns=line.split(" = ")) for line in read_lines("facts")]
        self.web = [Block(turns=line.split(" = ")) for line in read_lines("webquestions")]
        self.jokes = read_lines("jokes")
        self.fun_facts = read_lines("funfacts")
        self.asides = read_lines("asides")
        self.sentences = short_sentences(data)
        self.phrases = own_phrases()
        self.answers = read_answers(answers) if answers.exists() else []
        self.chats = read_chats(data)

    def from_blocks(self, kind: str) -> Exchange:
        """An exchange of texts/KIND.txt."""
        blocks = self.blocks[kind]
        block = self.rng.choices(blocks, [block.weight for block in blocks])[0]
        common = {}
        for name, lines in (("joke", self.jokes), ("fact", self.fun_facts)):
            common[name], common["second_" + name] = self.rng.sample(lines, 2)
        turns = sample_dialogue(block, self.rng, common)
        return Exchange(tuple(turns), kind.removesuffix("_tables"), split_of(turns[0][0]))

    def computed(self, kind: str) -> Exchange:
        """An exchange whose answers are computed or looked up."""
        makers = {
            "numbers": number_exchange,
            "sum": small_sum,
            "country": partial(country_exchange, self.countries),
        }
        key, turns = makers[kind](self.rng)
        exchange = Exchange(tuple(turns), kind, split_of(key))
        if kind == "country":
            source = "own; samayo/country-json"
            return replace(exchange, source=source, licence="Apache-2.0; MIT")
        return exchange

    def fact(self) -> Exchange:
        """A question about the world."""
        if self.rng.random() < 0.5:
            return self.from_blocks("fact_tables")
        is_web = self.rng.random() < 0.08
        turns = sample_dialogue(self.rng.choice(self.web if is_web else self.facts), self.rng)
        exchange = Exchange(tuple(turns), "fact", split_of(turns[0][0]))
        return replace(exchange, source="WebQuestions", licence="CC-BY 4.0") if is_web else exchange

    def repeat(self) -> Exchange:
        """Something said after the user, or an exchange and its last answer once more."""
        if self.rng.random() >= 0.55:
            kinds = [kind for kind in SHARES if kind != "repeat"]
            return self.again(self.single(self.rng.choice(kinds)))
        if self.rng.random() < 0.2:
            turns = (say_after_me(self.rng.choice(self.phrases), self.rng),)
            return Exchange(turns, "repeat", split_of(turns[0][0]))
        sentence = self.rng.choice(self.sentences)
        turns = (say_after_me(sentence, self.rng),)
        return Exchange(turns, "repeat", split_of(sentence), "Tatoeba", "CC-BY 2.0 FR")

    def remark(self) -> Exchange:
        """Something that the user tells, and a remark on it."""
        found = None
        while found is None:
            found = remark(self.sentences, self.rng)
        sentence, turn = found
        return Exchange((turn,), "remark", split_of(sentence), "Tatoeba", "CC-BY 2.0 FR")

    def again(self, first: Exchange) -> Exchange:
        """The exchange, and the agent's last answer said once more."""
        turns = first.turns + (answer_again(first.turns[-1][1], self.rng),)
        kind = first.kind if first.kind.endswith("repeat") else first.kind + "+repeat"
        return Exchange(turns[-3:], kind, first.split, first.source, first.licence)

    def answer(self) -> Exchange:
        """A question, and the base LM's answer."""
        row = self.rng.choice(self.answers)
        turns = ((row["question"], row["answer"]),)
        split = split_of(row["question"])
        return Exchange(turns, "answer", split, "SmolLM2-135M-Instruct", "Apache-2.0")

    def single(self, kind: str) -> Exchange:
        """An exchange of a kind of SHARES; fewer than 700 answers get a smaller share."""
        if kind == "answer":
            is_left = self.answers and self.rng.random() <= len(self.answers) / 700
            kind = kind if is_left else "smalltalk"
        if kind in self.blocks:
            return self.from_blocks(kind)
        if kind in ("country", "numbers", "sum"):
            return self.computed(kind)
        makers = {
            "fact": self.fact,
            "repeat": self.repeat,
            "remark": self.remark,
            "answer": self.answer,
        }
        return makers[kind]()

    def aside(self) -> Exchange:
        """Something said to another person."""
        template = self.rng.choice(self.asides)
        text = expand(template, self.rng, {"name": self.rng.choice(NAMES)})
        return Exchange(((text, None),), "aside", split_of(text))

    def any(self) -> Exchange:
        """An exchange of any kind, each in its share."""
        return self.single(self.rng.choices(list(SHARES), list(SHARES.values()))[0])

    def company(self, number: int) -> Exchange | None:
        """Two to four people or a television, and one to three exchanges with the agent.

        None if these belong to different splits.
        """
        self.rng = random.Random(f"{self.seed} company {number}")
        people = list(range(1, self.rng.choice([2, 2, 2, 3, 4]) + 1))
        parts = [self.any() for _ in range(self.rng.randint(1, 3))]
        splits = {part.split for part in parts}
        if len(splits) > 1:
            return None
        asides = [self.aside().turns[0][0] for _ in range(3)]
        talk = []
        for _ in range(self.rng.randint(1, 2)):
            is_television = self.rng.random() < 0.3
            run = (
                television(self.sentences, self.rng)
                if is_television
                else side_talk(self.chats, asides, people, self.rng)
            )
            talk.append(run)
        pairs, speakers = company_turns([part.turns for part in parts], talk, people, self.rng)
        return Exchange(
            tuple(pairs),
            "company",
            splits.pop(),
            joined(["BYU chitchat", "Tatoeba", *(part.source for part in parts)]),
            joined(["MIT", "CC-BY 2.0 FR", *(part.licence for part in parts)]),
            speakers=tuple(speakers),
        )

    def dialogue(self, number: int) -> Exchange | None:
        """One exchange, or two or three joined; None if they belong to different splits.

        It has four turns of the user at most. One dialogue in ten has an aside.
        """
        self.rng = random.Random(f"{self.seed} {number}")
        parts = [self.any()]
        while self.rng.random() < 0.17 and sum(len(part.turns) for part in parts) < 3:
            parts.append(self.any())
        if self.rng.random() < 0.03 and sum(len(part.turns) for part in parts) < 3:
            parts[-1] = self.again(parts[-1])
        if self.rng.random() < 0.1:
            parts.insert(self.rng.randint(0, len(parts)), self.aside())
        if len({part.split for part in parts}) > 1:
            return None
        pairs = [turn for part in parts for turn in part.turns][:4]
        turns = []
        first = "Um, |Uh, |So, |Okay, |Well, |Hey Duplex, |Duplex, |Hello, |Hey, "
        later = "Um, |So, |Okay, |And |By the way, |Thanks. |Great. |And now, |One more thing, "
        for user, agent in pairs:
            openings = (later if turns else first).split("|")
            turns.append((with_opening(user, openings, self.rng) if agent else user, agent))
        slow = [part for part in parts if part.kind.split("+")[0] in ("remark", "story")]
        return Exchange(
            tuple(turns),
            "+".join(part.kind for part in parts),
            parts[0].split,
            joined(part.source for part in parts),
            joined(part.licence for part in parts),
            tuple(part.turns[0][0] for part in slow),
        )


def joined(names: Iterable[str]) -> str:
    """The names of all, each once: ["a; b", "b; c"] -> "a; b; c"."""
    return "; ".join(sorted({part for name in names for part in name.split("; ")}))
