"""Times on the session's clock as the API counts them: in what was appended, and in an answer."""

from collections import deque
from dataclasses import dataclass, field

from duplex.audio import TICK_MS
from duplex.serving.sound.input_buffer import milliseconds


class InputClock:
    """Where in the appended audio the agent was at a time of the session.

    The audio of an append is heard from then on, or behind what still waited.
    """

    def __init__(self, max_appends: int = 512):
        """max_appends: that are remembered; a time before them is that of the oldest."""
        self._samples = 0
        # (ms of the session, ms of the audio that is heard from then on), while nothing waits.
        self._begins: deque[tuple[int, int]] = deque(maxlen=max_appends)

    def append(self, samples: int, session_ms: int) -> None:
        """So many samples are appended at a time of the session."""
        appended_ms = milliseconds(self._samples)
        if not self._begins or self._heard_ms(session_ms) >= appended_ms:
            self._begins.append((session_ms, appended_ms))
        self._samples += samples

    def audio_ms(self, session_ms: int) -> int:
        """A time of the session as ms of the appended audio."""
        return max(0, min(self._heard_ms(session_ms), milliseconds(self._samples)))

    def _heard_ms(self, session_ms: int) -> int:
        """As `audio_ms`, as if the last audio went on for ever."""
        if not self._begins:
            return 0
        earlier = [begin for begin in self._begins if begin[0] <= session_ms]
        begin_ms, audio_ms = earlier[-1] if earlier else self._begins[0]
        return audio_ms + session_ms - begin_ms


@dataclass
class Sound:
    """Of one answer, on the session's clock in ms."""

    first_ms: int
    last_ms: int
    # The words, and when each ended.
    words: list[tuple[str, int]] = field(default_factory=list)


class Sounds:
    """When the last `max_items` answers of the agent sounded, and their words, by item."""

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
