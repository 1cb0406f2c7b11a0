"""Questions for minds: sets, what is asked in text, and what is right.

Sets of a hundred, in training/texts, with the answers that are accepted:

- `everyday`: days, colours, opposites, sums, animals,
- `followups`: what is asked second hangs on what was said first,
- `personas`: 20 instructions with five questions each that show whether they are obeyed,
- `calls`: 70 utterances that want one of four functions with certain arguments, 30 that want none,
- `noises`: 50 notes and sounds, which in text are labels; what is asked needs both,
- `context`: 100 talks of texts/context.txt, in which what is asked last was told by voice, by text,
  by both in part, or not at all, a quarter each,
- `told`: 50 talks; of 20 what is asked last was told before in other words, of 20 it was not told,
  and 10 need nothing that was told.

Rules are chosen on `told_chosen_on` (80) and `noises_chosen_on` (24), which are like `told` and
`noises`.

A mind reads what the agent would have heard: words without signs, after the agent's own
instructions. `small` is the base LM of the agent, SmolLM2-135M-Instruct; it calls no functions. An
answer is right if one of the accepted ones is in it, word for word. OUT receives minds.json and,
with every answer, minds.jsonl.
"""

import json
import re
from collections.abc import Iterator

from duplex.agent.agent import INSTRUCTIONS
from duplex.agent.thinking.conversation import Conversation, messages
from duplex.agent.thinking.wording import SOUND, SPOKEN, heard_words
from duplex.mind.thinker import NO_TOOLS, Call, Message, Source, Tools
from duplex.training.evaluation.minds.context import NOT_TOLD, question_rows
from duplex.training.evaluation.minds.facts import is_right
from duplex.training.text.templates import TEXTS

SETS = ("everyday", "followups", "personas", "calls", "noises", "context", "told")
# Whoever changes rules looks at these.
CHOSEN_ON = ("told_chosen_on", "noises_chosen_on")
# Of a talk: as many as there are.
MAX_CHARS = 10**6
NO_ARGUMENTS = {"type": "object", "properties": {}}
# The functions of the set `calls`.
FUNCTIONS = (
    {
        "name": "get_time",
        "description": "the time of day and the date",
        "parameters": NO_ARGUMENTS,
    },
    {
        "name": "set_timer",
        "description": "start a timer",
        "parameters": {
            "type": "object",
            "properties": {"minutes": {"type": "number"}},
            "required": ["minutes"],
        },
    },
    {
        "name": "get_weather",
        "description": "the weather in a city now",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
    {
        "name": "get_song",
        "description": "title, artist, album and year of the song that is playing",
        "parameters": NO_ARGUMENTS,
    },
)


def read_set(name: str) -> list[dict]:
    """The rows of a set, without its remarks."""
    if name == "context":
        return question_rows(100)
    lines = (TEXTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if not line.startswith("#")]


def heard(text: str) -> str:
    """A text as a mind reads it when it was spoken: "Now, take two." -> "Now take two"."""
    return heard_words(re.sub(r"[^\w' -]", "", text))


def answer(source: Source, asked: list[Message], tools: Tools = NO_TOOLS) -> tuple[str, list]:
    """What a mind says, and the calls that it wants."""
    pieces = list(source.stream(asked, tools, lambda: False))
    said = "".join(piece for piece in pieces if isinstance(piece, str))
    return " ".join(said.split()), [piece for piece in pieces if isinstance(piece, Call)]


def ask(source: Source, talk: Conversation, turns: list[str]) -> str:
    """The answer to the last of some turns of the user, after what the talk has; it is told both.

    Its messages are those that the agent would make of it.
    """
    for turn in turns:
        talk.add("user", heard(turn))
        said, _ = answer(source, messages(talk, MAX_CHARS))
        talk.add("assistant", said)
    return said


def said_in(row: dict) -> list[str]:
    """What the user of a row says, turn by turn."""
    if "turns" in row:
        return row["turns"]
    return [row[key] for key in ("first", "then", "question", "text") if key in row]


def judge_words(row: dict, said: str) -> bool:
    """Whether an answer is right: one of the accepted ones is in it, or it has so many words.

    Where nobody told what is asked it must say so, where nothing need be told it must not.
    """
    if "words" in row:
        return len(said.split()) == row["words"]
    if "answers" not in row:
        return is_right(NOT_TOLD, said) is (row["mode"] == "untold")
    return is_right(row["answers"], said)


def judge_calls(row: dict, calls: list[Call]) -> bool:
    """Whether the right function was called with the right arguments, or none where none is due."""
    if row["tool"] is None:
        return not calls
    if len(calls) != 1 or calls[0].name != row["tool"]:
        return False
    found = json.loads(calls[0].arguments)
    return all(_is_same(found.get(name), value) for name, value in row["arguments"].items())


def _is_same(found, wanted) -> bool:
    if isinstance(wanted, str):
        return wanted in str(found).lower()
    try:
        return float(found) == wanted
    except (TypeError, ValueError):
        return False


def measure(source: Source, name: str, rows: list[dict], rules: str = SPOKEN) -> Iterator[dict]:
    """The rows of a set with what the mind said, and whether it is right, as they are answered.

    rules: before the instructions; the small mind has none.
    """
    for row in rows:
        calls: list[Call] = []
        if name == "calls":
            told = [
                {"role": "system", "content": f"{rules} {INSTRUCTIONS}"},
                {"role": "user", "content": heard(row["text"])},
            ]
            said, calls = answer(source, told, Tools(FUNCTIONS))
            right = judge_calls(row, calls)
        else:
            instructions = row.get("instructions", INSTRUCTIONS)
            talk = Conversation()
            talk.add("system", f"{rules} {instructions}".strip())
            talk.add("system", row.get("note", ""))
            talk.add("user", SOUND.format(row["sound"]) if "sound" in row else "")
            said = ask(source, talk, said_in(row))
            right = judge_words(row, said)
        calls_told = [[call.name, call.arguments] for call in calls]
        yield row | {"set": name, "said": said, "calls": calls_told, "right": right}
