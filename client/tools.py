"""Plain Python functions that the agent may have called: described, run, their results told.

    def get_weather(city: str) -> str:
        '''The weather in a city.

        Args:
            city: its name
        '''

`duplex talk --tools FILE.py` offers the functions of a file, `connect(..., tools=[get_weather])`
those of a program. Each call runs in a thread of its own.
"""

import asyncio
import importlib.util
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from duplex.errors import ClientError
from duplex.serving.commands import GiveResult, SetTools

# What the agent says while a function takes its time, if the user wants nothing else.
NOTICE = "One moment, please."


def load_tools(path: Path) -> list[Callable]:
    """The functions that a Python file defines and whose names begin with a letter.

    Raises ClientError.
    """
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ClientError(f"cannot take the functions of {path} ({reason})") from error
    found = [value for name, value in vars(module).items() if not name.startswith("_")]
    functions = [one for one in found if inspect.isfunction(one) and one.__module__ == path.stem]
    if not functions:
        raise ClientError(f"{path} defines no function")
    return functions


def describe(functions: Sequence[Callable], notice: str = NOTICE) -> SetTools:
    """The command that offers functions: names, docstrings and annotations. Raises ClientError."""
    from transformers.utils import get_json_schema

    tools = []
    for function in functions:
        try:
            schema = get_json_schema(function)["function"]
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ClientError(f"{function.__name__} cannot be offered: {reason}") from error
        tools.append({name: schema[name] for name in ("name", "description", "parameters")})
    return SetTools(tuple(tools), notice=notice)


async def run(functions: Sequence[Callable], event: dict) -> GiveResult:
    """The result of a call, by the fields of its event; of one that fails, why."""
    known = {function.__name__: function for function in functions}
    try:
        function = known[event["name"]]
        arguments = json.loads(event["arguments"])
        result = await asyncio.to_thread(function, **arguments)
        text = result if isinstance(result, str) else json.dumps(result, default=str)
    except Exception as error:
        text = f"error: {type(error).__name__}: {error}"
    return GiveResult(event["call_id"], text)
