"""Events of the OpenAI Realtime API as messages, and what every reader of client events needs."""

import secrets

from duplex.serving.native.messages import encode_object


class Refused(Exception):
    """A client event that cannot be carried out.

    code: for programs. text: one sentence for people. param: the field at fault.
    """

    def __init__(self, code: str, text: str, param: str | None = None):
        super().__init__(text)
        self.code = code
        self.param = param


def new_id(kind: str) -> str:
    """An id that nobody has yet; kind: "item", "resp", "event"."""
    return f"{kind}_{secrets.token_hex(10)}"


def event(kind: str, **fields) -> str:
    """A server event as a message."""
    return encode_object({"type": kind, "event_id": new_id("event"), **fields})


def error(code: str, text: str, param: str | None = None, event_id: str | None = None) -> str:
    """An error event; event_id: of the client's event that is at fault."""
    is_ours = code in ("server_error", "server_shutting_down")
    fields = {
        "type": "server_error" if is_ours else "invalid_request_error",
        "code": code,
        "message": text,
        "param": param,
        "event_id": event_id,
    }
    return event("error", error=fields)


def is_text(value, shortest: int, longest: int) -> bool:
    """Whether it is a text of so many characters."""
    return isinstance(value, str) and shortest <= len(value) <= longest


def is_whole(value, lowest: int, highest: int) -> bool:
    """Whether it is a whole number in this range; a truth value is none, 40.0 is one."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return type(value) is int and lowest <= value <= highest


def object_at(fields: dict, path: str) -> dict:
    """The object at the end of a path of names, which are joined by dots.

    What is not there or null is an empty object. Raises Refused.
    """
    value = fields
    for name in path.split("."):
        value = value.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise Refused("invalid_value", f"{path} is an object", path)
    return value
