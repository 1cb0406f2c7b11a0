"""Where in the LM's context each turn and each client's text stands, so that it can be forgotten.

An entry's key is ("user", n) or ("agent", n) for the n-th turn of a side that began, from 0 on, or
("text", name) for a text that the client has named. Its value is the LM's positions.
"""

from dataclasses import dataclass, field

Key = tuple[str, int | str]


@dataclass
class Memory:
    """Of one session."""

    # The oldest are not known any more beyond `max_entries`; the LM has forgotten them long ago.
    entries: dict[Key, list[int]] = field(default_factory=dict)
    max_entries: int = 2_000
    # Turns of each side that have begun.
    begun: dict[str, int] = field(default_factory=lambda: {"user": 0, "agent": 0})


def begin(memory: Memory, side: str) -> None:
    """A turn of the "user" or the "agent" begins."""
    add(memory, (side, memory.begun[side]), [])
    memory.begun[side] += 1


def last(memory: Memory, side: str) -> Key:
    """The key of the turn of a side that began last."""
    return side, memory.begun[side] - 1


def add(memory: Memory, key: Key, positions: list[int]) -> None:
    """More positions of an entry, which may be new."""
    memory.entries.setdefault(key, []).extend(positions)
    if len(memory.entries) > memory.max_entries:
        del memory.entries[next(iter(memory.entries))]


def take(memory: Memory, key: Key) -> list[int]:
    """Remove an entry; its positions, none where it is not known."""
    return memory.entries.pop(key, [])
