"""The conversation of the OpenAI Realtime API: its items, in order, and what a new one means."""

from duplex.serving.commands import Audio, Forget, Write
from duplex.serving.openai import audio as openai_audio
from duplex.serving.openai.config import MAX_TEXT
from duplex.serving.openai.events import Refused, event, is_text, new_id

TEXTS = ("input_text", "text", "output_text")
# What the agent knows of a picture.
UNSEEN = "The user shows a picture. You cannot see pictures."


class Conversation:
    """Items by id; the oldest are forgotten beyond `max_items`."""

    def __init__(self, max_items: int = 1_000):
        self._max_items = max_items
        self._items: dict[str, dict] = {}
        self._order: list[str] = []
        # By id: what the agent is to forget with it, see commands.Forget.
        self._known_as: dict[str, list[Forget]] = {}

    def place(self, previous_item_id) -> int | None:
        """Where an item enters that a client wants behind another; None: at the end.

        Raises Refused.
        """
        if previous_item_id is None:
            return None
        if previous_item_id == "root":
            return 0
        if previous_item_id not in self._order:
            text = f"there is no item {previous_item_id!r:.80}"
            raise Refused("item_create_invalid_previous_item_id", text, "previous_item_id")
        return self._order.index(previous_item_id) + 1

    def add(
        self, item: dict, done: bool, shown: dict | None = None, place: int | None = None
    ) -> list[str]:
        """An item enters; shown: how it looks, if not as it is. place: as `place` gives it."""
        self._order.insert(len(self._order) if place is None else place, item["id"])
        self._items[item["id"]] = item
        if len(self._items) > self._max_items:
            self.remove(self._order[0])
        kinds = ["conversation.item.added"] + ["conversation.item.done"] * done
        before = self.previous(item)
        return [event(kind, previous_item_id=before, item=shown or item) for kind in kinds]

    def done(self, item: dict) -> str:
        """An item is complete."""
        return event("conversation.item.done", previous_item_id=self.previous(item), item=item)

    def previous(self, item: dict) -> str | None:
        """The id of the item before, also of one that would enter now."""
        place = len(self._order)
        if item["id"] in self._order:
            place = self._order.index(item["id"])
        return self._order[place - 1] if place else None

    def find(self, fields: dict, code: str) -> dict:
        """The item that an event names. Raises Refused with this code."""
        item_id = fields.get("item_id")
        item = self._items.get(item_id) if isinstance(item_id, str) else None
        if item is None:
            raise Refused(code, f"there is no item {item_id!r:.80}", "item_id")
        return item

    def know(self, item: dict, kind: str, key: int | str) -> None:
        """The agent knows this turn or text as the item, or as a part of it."""
        self._known_as.setdefault(item["id"], []).append(Forget(kind, key))

    def agent_turns(self, item: dict) -> list[int]:
        """The numbers of the agent's turns that an item has."""
        known = self._known_as.get(item["id"], [])
        return [forget.key for forget in known if forget.kind == "agent"]

    def delete(self, item: dict) -> list[Forget]:
        """An item is deleted: what the agent is to forget."""
        forgotten = self._known_as.get(item["id"], [])
        self.remove(item["id"])
        return forgotten

    def remove(self, item_id: str) -> None:
        """An item is part of the conversation no more."""
        del self._items[item_id]
        self._order.remove(item_id)
        self._known_as.pop(item_id, None)

    def new_id(self, wanted) -> str:
        """The id that a client wants for a new item, or one of ours. Raises Refused."""
        if wanted is None:
            return new_id("item")
        if not is_text(wanted, 1, 64):
            raise Refused("invalid_value", "item.id is a text of 1 to 64 characters", "item.id")
        if wanted in self._items:
            text = f"there is an item {wanted!r} already"
            raise Refused("item_create_duplicate_item_id", text, "item.id")
        return wanted


def message(role: str, *content: dict, status: str = "in_progress", item_id=None) -> dict:
    """A message that nobody has heard of yet."""
    return {
        "id": item_id or new_id("item"),
        "object": "realtime.item",
        "type": "message",
        "status": status,
        "role": role,
        "content": list(content),
    }


def call(call_id: str, name: str, arguments: str) -> dict:
    """A function that the agent wants called."""
    return {
        "id": new_id("item"),
        "object": "realtime.item",
        "type": "function_call",
        "status": "completed",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def read(item: dict, item_id: str, audio_kind: str) -> tuple[dict, list[Write | Audio]]:
    """A client's item as it is kept, and what it means to the agent. Raises Refused."""
    kind = item.get("type", "message")
    if kind in ("function_call", "function_call_output"):
        return _read_call(item, item_id, kind)
    role = "system" if item.get("role") == "developer" else item.get("role")
    content = item.get("content")
    if isinstance(content, str):
        content = [
            {"type": "output_text" if role == "assistant" else "input_text", "text": content}
        ]
    if kind != "message" or role not in ("user", "system", "assistant"):
        text = "items are messages of the roles user, system or assistant, and function calls"
        raise Refused("unsupported", text, "item.type")
    if not isinstance(content, list):
        raise Refused("invalid_value", "content is a list of objects", "item.content")
    kept = []
    commands = []
    for number, part in enumerate(content):
        command = _part(role, part, f"item.content[{number}]", audio_kind, item_id)
        commands += [command] if command else []
        names = ("type", "text", "transcript")
        kept.append({name: part[name] for name in names if part.get(name) is not None})
    return message(role, *kept, status="completed", item_id=item_id), commands


def _part(role: str, part, param: str, audio_kind: str, item_id: str) -> Write | Audio | None:
    """What one part of a message means; None: nothing to the agent."""
    if not isinstance(part, dict):
        raise Refused("invalid_value", "content is a list of objects", param)
    kind = part.get("type")
    if kind == "input_audio" and role == "user" and part.get("audio") is not None:
        return Audio(openai_audio.decode_whole(part["audio"], audio_kind, f"{param}.audio"))
    if kind == "input_image" and role == "user":
        # Whoever asks about it hears that it was not seen.
        return Write("system", UNSEEN, is_answered=False, name=item_id)
    if kind in TEXTS:
        text = part.get("text")
    elif kind in ("input_audio", "output_audio", "audio"):
        text = part.get("transcript") or ""
    else:
        raise Refused(
            "unsupported", "this agent takes text, audio and notice of images", f"{param}.type"
        )
    if not is_text(text, 0, MAX_TEXT):
        text = f"text is a text of at most {MAX_TEXT} characters"
        raise Refused("invalid_value", text, f"{param}.text")
    return Write(role, text, is_answered=False, name=item_id) if text.strip() else None


def _read_call(item: dict, item_id: str, kind: str) -> tuple[dict, list[Write]]:
    """What was called before the session, or elsewhere: the agent may know what it gave."""
    kept = {"id": item_id, "object": "realtime.item", "type": kind, "status": "completed"}
    names = ("call_id", "name", "arguments") if kind == "function_call" else ("call_id", "output")
    usual = {"arguments": "", "call_id": new_id("call") if kind == "function_call" else None}
    for name in names:
        value = usual.get(name) if item.get(name) is None else item[name]
        if not is_text(value, 0, MAX_TEXT):
            raise Refused("invalid_value", f"{name} is a text", f"item.{name}")
        kept[name] = value
    if kind == "function_call" or not kept["output"].strip():
        return kept, []
    return kept, [Write("system", kept["output"], is_answered=False, name=item_id)]
