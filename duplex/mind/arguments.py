"""Arguments of a call as its function wants them: small models get types and names nearly right."""

import re


def repaired(function: dict, arguments: dict) -> dict:
    """The arguments by the function's schema: {"minutes": "10 min"} -> {"minutes": 10}.

    What cannot be repaired stays as it is; what the function does not know is left out, but a lone
    one is taken for the lone one that is missing.
    """
    properties = (function.get("parameters") or {}).get("properties")
    if properties is None:
        return arguments
    required = function["parameters"].get("required", [])
    missing = [name for name in required if name not in arguments]
    unknown = [name for name in arguments if name not in properties]
    if len(missing) == 1 and len(unknown) == 1:
        arguments = {**arguments, missing[0]: arguments[unknown[0]]}
    return {
        name: _typed(value, properties[name])
        for name, value in arguments.items()
        if name in properties
    }


def _typed(value, about: dict):
    """A value in the type that its schema names."""
    if options := about.get("enum"):
        alike = [one for one in options if str(one).lower() == str(value).strip().lower()]
        return alike[0] if alike else value
    kind = about.get("type")
    if kind in ("number", "integer") and isinstance(value, str):
        found = re.search(r"-?\d+(?:\.\d+)?", value)
        number = float(found[0]) if found else None
        if number is None:
            return value
        return int(number) if number == int(number) else number
    if kind == "boolean" and isinstance(value, str):
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        return words.get(value.strip().lower(), value)
    if kind == "string" and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value
