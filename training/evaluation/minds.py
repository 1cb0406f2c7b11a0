"""What minds say to the same questions, side by side, in text.

    python -m duplex.training.evaluate minds --mind small large --out runs/evaluation

Four sets of a hundred, in training/texts, with the answers that are accepted:

- `everyday`: days, colours, opposites, sums, animals,
- `followups`: what is asked second hangs on what was said first,
- `personas`: 20 instructions with five questions each that show whether they are obeyed,
- `calls`: 70 utterances that want one of four functions with certain arguments, 30 that want none.

A mind reads what the agent would have heard: words without signs, after the agent's own
instructions. `small` is the base LM of the agent, SmolLM2-135M-Instruct; it calls no functions. An
answer is right if one of the accepted ones is in it, word for word. OUT receives minds.json and,
with every answer, minds.jsonl.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

from duplex import weights
from duplex.agent.agent import INSTRUCTIONS
from duplex.agent.wording import SPOKEN, heard_words
from duplex.mind.chat_url import ChatURL
from duplex.mind.llama import Llama
from duplex.mind.load import MINDS
from duplex.mind.thinker import NO_TOOLS, Call, Message, Source, Tools
from duplex.training.evaluation.facts import is_right
from duplex.training.evaluation.intervals import interval
from duplex.training.text.templates import TEXTS

SETS = ("everyday", "followups", "personas", "calls")
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
    lines = (TEXTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if not line.startswith("#")]


def heard(text: str) -> str:
    """A text as a mind reads it when it was spoken: "Now, take two." -> "Now take two"."""
    return heard_words(re.sub(r"[^\w' -]", "", text))


def answer(source: Source, messages: list[Message], tools: Tools = NO_TOOLS) -> tuple[str, list]:
    """What a mind says, and the calls that it wants."""
    pieces = list(source.stream(messages, tools, lambda: False))
    said = "".join(piece for piece in pieces if isinstance(piece, str))
    return " ".join(said.split()), [piece for piece in pieces if isinstance(piece, Call)]


def ask(source: Source, instructions: str, turns: list[str]) -> str:
    """The answer to the last of some turns of the user."""
    messages: list[Message] = [{"role": "system", "content": f"{instructions} {SPOKEN}"}]
    for turn in turns:
        messages.append({"role": "user", "content": heard(turn)})
        said, _ = answer(source, messages)
        messages.append({"role": "assistant", "content": said})
    return said


def judge_words(row: dict, said: str) -> bool:
    """Whether an answer is right: one of the accepted ones is in it, or it has so many words."""
    if "words" in row:
        return len(said.split()) == row["words"]
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


def measure(source: Source, name: str, rows: list[dict]) -> list[dict]:
    """The rows of a set with what the mind said, and whether it is right."""
    found = []
    for row in rows:
        calls: list[Call] = []
        if name == "calls":
            told = [
                {"role": "system", "content": f"{INSTRUCTIONS} {SPOKEN}"},
                {"role": "user", "content": heard(row["text"])},
            ]
            said, calls = answer(source, told, Tools(FUNCTIONS))
            right = judge_calls(row, calls)
        else:
            instructions = row.get("instructions", INSTRUCTIONS)
            turns = [row[key] for key in ("first", "then", "question") if key in row]
            said = ask(source, instructions, turns)
            right = judge_words(row, said)
        calls_told = [[call.name, call.arguments] for call in calls]
        found.append(row | {"set": name, "said": said, "calls": calls_told, "right": right})
    return found


def summary(rows: list[dict]) -> dict:
    """Share of right answers of one mind and set, its 95 % interval, and what was wrong."""
    scores = [(float(row["right"]), 1.0) for row in rows]
    low, high = interval(scores)
    result = {"right": sum(row["right"] for row in rows), "of": len(rows), "interval": [low, high]}
    due = [row for row in rows if row.get("tool")]
    if rows and "tool" in rows[0]:
        undue = [row for row in rows if row["tool"] is None]
        result |= {
            "due_right": sum(row["right"] for row in due),
            "due": len(due),
            "undue_calls": sum(bool(row["calls"]) for row in undue),
            "undue": len(undue),
        }
    return result


def find_source(name: str) -> Source:
    """A mind by its name: small, medium, large, a GGUF file or a URL."""
    if name.startswith(("http://", "https://")):
        return ChatURL(name)
    if name == "small":
        return Llama(lambda: next(weights.smollm2().glob("*.gguf")))
    known = {mind.name: mind.weights for mind in MINDS}
    if name in known:
        return Llama(lambda: next(weights.folder(known[name]).glob("*.gguf")))
    return Llama(lambda: Path(name))


def evaluate_minds(
    args: argparse.Namespace, find: Callable[[str], Source] = find_source
) -> dict[str, dict]:
    """Every mind on every set, printed as a table; {mind: {set: summary}}."""
    args.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict] = {}
    with open(args.out / "minds.jsonl", "w", encoding="utf-8") as file:
        for mind in args.mind:
            source = find(mind)
            results[mind] = {}
            for name in args.sets:
                if name == "calls" and mind == "small":
                    continue
                rows = measure(source, name, read_set(name)[: args.count])
                results[mind][name] = summary(rows)
                print(mind, name, results[mind][name], flush=True)
                for row in rows:
                    if not row["right"]:
                        print("  WRONG", row["id"] if "id" in row else row["text"], row["said"])
                    file.write(json.dumps({"mind": mind, **row}, ensure_ascii=False) + "\n")
                    file.flush()
    return results
