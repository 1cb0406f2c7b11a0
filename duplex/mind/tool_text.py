"""Function calls in the text of a model that has not learned to write them in one way.

In process a model is told of its functions in words, and what it writes is read leniently: some put
a call into a fence, some into <tool_call> marks, some double its braces. A server at a URL does all
that itself.
"""

import json
import re
import secrets
from collections.abc import Iterator

from duplex.mind.thinker import Call, Message, Tools

# Where a call may begin in an answer.
BEGINNING = re.compile(r"<tool_call>|```|\{")


def with_tools(messages: list[Message], tools: Tools) -> list[Message]:
    """The conversation in plain messages: functions, calls and results are texts."""
    plain = [_plain(message) for message in messages]
    if not tools.functions or tools.choice == "none":
        return plain
    told = describe(tools)
    if plain and plain[0]["role"] == "system":
        first = plain[0] | {"content": f"{plain[0]['content']}\n\n{told}"}
        return [first, *plain[1:]]
    return [{"role": "system", "content": told}, *plain]


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
    """Words as they come, and the calls among them, which are held back until they are complete."""
    if not tools.functions:
        yield from pieces
        return
    held = ""
    for piece in pieces:
        held += piece
        begin = BEGINNING.search(held)
        if begin is None:
            # A mark may have begun at the end.
            begins = re.search(r"<[a-z_]*$|`+$", held)
            end = begins.start() if begins else len(held)
        else:
            end = begin.start()
        if end:
            yield held[:end]
            held = held[end:]
    if held:
        yield from find_calls(held, tools) or [held]


def find_calls(text: str, tools: Tools) -> list[Call]:
    """The calls of known functions in a text."""
    names = [function["name"] for function in tools.functions]
    text = text.replace("{{", "{")
    calls = []
    place = text.find("{")
    while place >= 0:
        try:
            found, length = json.JSONDecoder().raw_decode(text[place:])
        except ValueError:
            length = 1
            found = None
        if isinstance(found, dict) and found.get("name") in names:
            arguments = found.get("arguments", found.get("parameters")) or {}
            calls.append(Call(f"call_{secrets.token_hex(8)}", found["name"], json.dumps(arguments)))
        place = text.find("{", place + length)
    return calls
