"""Function calls in the text of a model that has not learned to write them in one way.

In process a model is told of its functions in words and shown how they are called, and how not to.
A grammar holds what it writes: words, then calls whose arguments are as the functions want them. A
server at a URL does all that itself.
"""

import json
import re
import secrets
from collections.abc import Iterator

from duplex.mind.thinker import Call, Message, Tools

# What an answer may be where functions are called: words, then calls. Words have no sign with which
# some models would begin a call in a way of their own.
WORDS = r"/[^{`<]+/"
# What wants no function: a greeting, facts, and remarks, of which some tell what was.
TALK = (
    ("Hello", "Hello, nice to hear you."),
    ("How many days are in a week", "A week has 7 days."),
    ("My aunt called me on Sunday", "How nice. What did she say?"),
    ("Who wrote Hamlet", "William Shakespeare wrote it."),
    ("I was in the garden", "That sounds lovely."),
    ("What is a hammer", "A hammer is a tool to drive nails."),
    ("We saw a film yesterday", "Did you enjoy it?"),
    ("What is 2 plus 2", "2 plus 2 is 4."),
)
# Functions that are shown at most.
MAX_SHOWN = 8
# Nats for the beginning of a call, which the examples without one make too rare. Of 52 utterances
# for six functions, half of which want none, Qwen2.5-Coder-1.5B misses 9 calls with 0 nats, 2 with
# 1, none with 2.5, and with 2.5 to 3.3 calls once where none is due; with 4 three times. With three
# examples in TALK it would call eleven times with 2.5.
CALL_NATS = 3.25


def with_tools(messages: list[Message], tools: Tools) -> list[Message]:
    """The conversation in plain messages: functions, calls and results are texts."""
    plain = [_plain(message) for message in messages]
    if not tools.functions or tools.choice == "none":
        return plain
    told = describe(tools)
    if plain and plain[0]["role"] == "system":
        first = plain[0] | {"content": f"{plain[0]['content']}\n\n{told}"}
        return [first, *examples(tools), *plain[1:]]
    return [{"role": "system", "content": told}, *examples(tools), *plain]


def call_bias(tools: Tools) -> list[list]:
    """Texts with the nats that llama.cpp adds to them, that calls come as often as they should."""
    if not tools.functions or tools.choice != "auto":
        return []
    return [['{"', CALL_NATS], ["{", CALL_NATS]]


def call_grammar(messages: list[Message], tools: Tools) -> str:
    """What may be written, in the language of llguidance, which llama.cpp holds; empty: all.

    Once it is begun a call is one of a known function, with arguments by its schema. A result is to
    be told, not asked for again, and so is what has happened: then there are only words.
    """
    if not tools.functions:
        return ""
    if tools.choice == "none" or messages[-1]["role"] != "user":
        return f"start: {WORDS}"
    is_free = tools.choice in ("auto", "required")
    wanted = [one for one in tools.functions if is_free or one["name"] == tools.choice]
    # Lenient: where llguidance does not know a keyword of a schema, the rest of it still binds.
    schema = {"x-guidance": {"lenient": True}, "anyOf": [_call_schema(one) for one in wanted]}
    calls = json.dumps(schema)
    start = "words call* | call+" if tools.choice == "auto" else "call+"
    return f"start: {start}\nwords: {WORDS}\ncall: %json {calls}\n"


def _call_schema(function: dict) -> dict:
    """The JSON schema of a call; arguments that the function does not know there are none."""
    arguments = {"type": "object", **(function.get("parameters") or {})}
    if "properties" in arguments:
        arguments = {"additionalProperties": False, **arguments}
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def examples(tools: Tools) -> list[Message]:
    """A conversation before the conversation, in which functions are called and are not."""
    shown = [_example(function) for function in tools.functions[:MAX_SHOWN]]
    half = (len(shown) + 1) // 2
    turns = [*TALK[:3], *shown[:half], *TALK[3:], *shown[half:]]
    return [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]


def _example(function: dict) -> tuple[str, str]:
    """What somebody may say who wants a function, and its call."""
    properties = (function.get("parameters") or {}).get("properties", {})
    values = {"number": 5, "integer": 5, "boolean": True, "array": [], "object": {}}
    arguments = {
        name: about["enum"][0] if about.get("enum") else values.get(about.get("type"), "Madrid")
        for name, about in properties.items()
    }
    wanted = function.get("description") or function["name"].replace("_", " ")
    said = ", ".join([wanted.rstrip("."), *(f"{n} {value}" for n, value in arguments.items())])
    call = json.dumps({"name": function["name"], "arguments": arguments})
    return said[:1].upper() + said[1:], call


def describe(tools: Tools) -> str:
    """What a model must know of its functions."""
    lines = [_signature(function) for function in tools.functions]
    example = json.dumps({"name": tools.functions[0]["name"], "arguments": {}})
    rule = "If one of them does or knows what the user wants, call it"
    if tools.choice == "required":
        rule = "Call one of them"
    elif tools.choice != "auto":
        rule = f"Call {tools.choice}"
    return "\n".join(
        [
            "You have these functions:",
            *lines,
            f"{rule}: then write nothing but one line like {example}. You are given its result in "
            "<tool_response>, and answer the user with it. For all else just answer.",
        ]
    )


def _signature(function: dict) -> str:
    """One line: get_weather(city: string): The weather in a city."""
    schema = function.get("parameters") or {}
    required = schema.get("required", [])
    parts = []
    for name, about in schema.get("properties", {}).items():
        kind = " or ".join(json.dumps(one) for one in about.get("enum", [])) or about.get("type")
        note = f" ({about['description']})" if about.get("description") else ""
        parts.append(f"{name}{'' if name in required else '?'}: {kind or 'any'}{note}")
    return f"{function['name']}({', '.join(parts)}): {function.get('description', '')}"


def as_text(text: str) -> str:
    """A text in which no mark of a chat template is left: "<|im_end|>" -> "< |im_end|>"."""
    return re.sub(r"<(?=[|/A-Za-z])", "< ", text)


def _plain(message: Message) -> Message:
    """A message as plain text, with its calls or its result."""
    message = message | {"content": as_text(message.get("content") or "")}
    if calls := message.get("tool_calls"):
        written = [
            json.dumps({"name": call["function"]["name"], "arguments": _arguments(call)})
            for call in calls
        ]
        text = "\n".join([*filter(None, [message.get("content")]), *written])
        return {"role": "assistant", "content": text}
    if message["role"] == "tool":
        text = f"<tool_response>\n{message['content']}\n</tool_response>"
        return {"role": "user", "content": text}
    return {name: message[name] for name in ("role", "content")}


def _arguments(call: dict):
    try:
        return json.loads(call["function"]["arguments"] or "{}")
    except ValueError:
        return {}


def read_calls(pieces: Iterator[str], tools: Tools) -> Iterator[str | Call]:
    """Words as they come, and the calls behind them when they are complete."""
    if not tools.functions:
        yield from pieces
        return
    held = ""
    for piece in pieces:
        held += piece
        begin = held.find("{")
        end = len(held) if begin < 0 else begin
        if end:
            yield held[:end]
            held = held[end:]
    yield from find_calls(held, tools)


def find_calls(text: str, tools: Tools) -> list[Call]:
    """The calls of known functions in a text, each once; one that is not complete is none."""
    known = {function["name"] for function in tools.functions}
    calls: dict[tuple[str, str], Call] = {}
    while (place := text.find("{")) >= 0:
        try:
            found, length = json.JSONDecoder().raw_decode(text[place:])
        except ValueError:
            break
        if found.get("name") in known:
            told = found["name"], json.dumps(found.get("arguments") or {})
            calls.setdefault(told, Call(f"call_{secrets.token_hex(8)}", *told))
        text = text[place + length :]
    return list(calls.values())
