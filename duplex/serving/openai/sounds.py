"""The sound of the agent's answers: when it began and ended, and which words were in it."""

from dataclasses import dataclass, field

from duplex.audio import TICK_MS


@dataclass
class Sound:
    """Of one answer, on the session's clock in ms."""

    first_ms: int
    last_ms: int
    # The words, and when each ended.
    words: list[tuple[str, int]] = field(default_factory=list)


class Sounds:
    """By item, of the last `max_items` answers."""

    def __init__(self, max_items: int = 64):
        self._max_items = max_items
        self._sounds: dict[str, Sound] = {}

    def find(self, item: dict) -> Sound | None:
        """The sound of an item; None where there was none."""
        return self._sounds.get(item["id"])

    def add_tick(self, item: dict, now_ms: int) -> None:
        """A tick of voice that begins now."""
        sound = self._sounds.setdefault(item["id"], Sound(now_ms, now_ms))
        sound.last_ms = now_ms + TICK_MS
        if len(self._sounds) > self._max_items:
            del self._sounds[next(iter(self._sounds))]

    def add_word(self, item: dict, text: str, end_ms: int) -> None:
        """A word that has sounded."""
        sound = self._sounds.setdefault(item["id"], Sound(end_ms, end_ms))
        sound.words.append((text.strip(), end_ms))

    def cut(self, item: dict, heard_ms: int) -> None:
        """Take the words out of an item's transcript that sound after this time."""
        part = item["content"][0]
        place = 0
        for word, end_ms in self._sounds[item["id"]].words:
            begin = part["transcript"].find(word, place)
            if begin >= 0 and end_ms > heard_ms:
                part["transcript"] = part["transcript"][:begin].rstrip()
                return
            place = max(place, begin + len(word))
