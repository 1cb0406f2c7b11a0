"""Functions that a client offers to the agent, as all dialects take them."""

import json
import re

# Functions of one session, and the characters of all of them as JSON: the agent must read them.
MAX_TOOLS = 64
MAX_CHARACTERS = 16_000
CHOICES = ("auto", "none", "required")


def read_tools(value) -> tuple[dict, ...]:
    """Functions by name, description and parameters; tools of another type are passed over.

    Raises ValueError with a sentence for the client.
    """
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise ValueError("tools is a list of objects")
    found = [_read(tool) for tool in value if tool.get("type", "function") == "function"]
    if len(found) > MAX_TOOLS or len(json.dumps(found)) > MAX_CHARACTERS:
        raise ValueError(f"tools are at most {MAX_TOOLS}, of {MAX_CHARACTERS} characters as JSON")
    if len({tool["name"] for tool in found}) < len(found):
        raise ValueError("tools have a name each")
    return tuple(found)


def read_choice(value, tools: tuple[dict, ...]) -> str:
    """ "auto", "none", "required", or the name of a function. Raises ValueError."""
    while isinstance(value, dict):
        # As the Realtime API has it, or as the chat completions do, one level deeper.
        value = value.get("name", value.get("function"))
    names = [tool["name"] for tool in tools]
    if not isinstance(value, str) or value not in (*CHOICES, *names):
        raise ValueError(f"tool_choice is one of {', '.join(CHOICES)}, or names one of the tools")
    return value


def _read(tool: dict) -> dict:
    # As the chat completions have them, one level deeper.
    tool = tool["function"] if isinstance(tool.get("function"), dict) else tool
    name = tool.get("name")
    description = tool.get("description") or ""
    parameters = tool.get("parameters") or {"type": "object", "properties": {}}
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]{1,64}", name):
        raise ValueError("a tool's name has 1 to 64 letters, digits, _ and -")
    if not isinstance(description, str):
        raise ValueError(f"the description of {name} is a text")
    properties = parameters.get("properties") or {} if isinstance(parameters, dict) else None
    if not isinstance(properties, dict) or not all(
        isinstance(p, dict) for p in properties.values()
    ):
        raise ValueError(f"the parameters of {name} are a JSON schema of an object")
    return {"name": name, "description": description, "parameters": parameters}
