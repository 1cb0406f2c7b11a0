"""Who says what in a recording, as people have it: files of labels in several forms.

Beside talk.wav may stand talk.json or talk.txt:

    {"alignments": [["Hello", [0.3, 0.6], "SPEAKER_MAIN"], ["hi there", null, "USER"], ...]}
    {"segments": [{"text": "Hello", "start": 0.3, "end": 0.6, "speaker": "SPEAKER_00"}, ...]}
    {"text": "all that the user says"}
    agent: Hello.          (a line of talk.txt; times before it are read: [00:01.5 - 00:03.0])

What stands in place of a word may be a whole turn; times may be null.
"""

import json
import math
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

# (text, [start, end] in seconds or None, speaker)
Item = tuple[str, list[float] | None, str]

AGENT_LABELS = {"speaker_main", "agent", "assistant", "bot", "duplex"}
USER_LABELS = {"user", "you", "caller", "customer", "human"}


class Unusable(Exception):
    """One sentence: what is wrong with a conversation."""


@dataclass
class Told:
    """What a recording's labels tell. `notes`: what of them was mended or left out."""

    items: list[Item] = field(default_factory=list)
    text: str = ""  # All that the user says, where there are no items.
    notes: list[str] = field(default_factory=list)
    name: str = "no labels"


def find_file(path: Path) -> Path | None:
    """The file, though its name may be composed of other code points (é or e and an accent)."""
    if path.is_file():
        return path
    if not path.parent.is_dir():
        return None
    wanted = unicodedata.normalize("NFC", path.name)
    same = (p for p in path.parent.iterdir() if unicodedata.normalize("NFC", p.name) == wanted)
    return next((p for p in same if p.is_file()), None)


def read_told(path: Path) -> Told:
    """The labels beside a recording; nothing where there are none. Raises Unusable."""
    for suffix, read in ((".json", read_json), (".txt", read_transcript)):
        file = find_file(path.with_suffix(suffix))
        if file:
            try:
                content = file.read_text(encoding="utf-8-sig")
            except (OSError, ValueError) as error:
                raise Unusable(f"{file.name} cannot be read ({error})") from None
            told = read(content, file.name)
            told.name = file.name
            return told
    return Told()


def read_json(content: str, name: str) -> Told:
    """Labels as JSON. Raises Unusable."""
    try:
        found = json.loads(content)
    except ValueError as error:
        raise Unusable(f"{name} is not JSON ({error})") from None
    if isinstance(found, list):
        found = {"alignments": found}
    keys = ("alignments", "segments", "text")
    if not isinstance(found, dict) or not set(keys) & set(found):
        raise Unusable(f'{name} has neither "alignments" nor "segments" nor "text"')
    entries = found.get("alignments", found.get("segments", []))
    text = found.get("text") or ""
    if not isinstance(entries, list) or not isinstance(text, str):
        raise Unusable(f'{name}: "alignments" must be a list and "text" a string')
    # A transcript of both has its text once more as a whole.
    told = Told(text="" if "segments" in found and entries else text)
    bad = [n for n, entry in enumerate(entries, 1) if not read_entry(entry, told.items)]
    if 10 * len(bad) > len(entries):
        entry = json.dumps(entries[bad[0] - 1], ensure_ascii=False)[:80]
        raise Unusable(
            f"{name}: entry {bad[0]} of alignments is not [word, [start, end], speaker]: {entry}"
        )
    if bad:
        told.notes.append(f"{len(bad)} entries cannot be read")
    return told


def read_entry(entry, items: list[Item]) -> bool:
    """Append what an entry says, if it says anything. Returns whether it could be read."""
    try:
        if isinstance(entry, dict):
            text = entry["text"] if "text" in entry else entry["word"]
            times = [entry.get("start"), entry.get("end")]
            speaker = entry.get("speaker") or ""
        else:
            text, times, speaker = entry
        if text is None:
            return True
        known = times and None not in times
        times = [float(times[0]), float(times[1])] if known else None
    except (TypeError, ValueError, IndexError, KeyError):
        return False
    if not isinstance(text, str) or not isinstance(speaker, str):
        return False
    if times and not all(map(math.isfinite, times)):
        return False
    if text.strip():
        items.append((text.strip(), times, speaker))
    return True


def read_transcript(content: str, name: str) -> Told:
    """Lines "SPEAKER: text", perhaps after their times; without speakers it is all the user's."""
    stamp = r"(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)"
    line_form = re.compile(
        rf"\s*\[?(?:{stamp}(?:\s*-+>?\s*{stamp})?)?\]?\s*([^\W\d][\w .#-]{{0,30}}?)\s*:\s+(.+)"
    )
    told = Told()
    for line in content.splitlines():
        match = line_form.fullmatch(line.rstrip())
        if match:
            *digits, speaker, text = match.groups()
            start = seconds_of(digits[:3])
            end = seconds_of(digits[3:])
            times = None if start is None or end is None else [start, end]
            told.items.append((text.strip(), times, speaker))
        elif told.items and line.strip():
            text, times, speaker = told.items[-1]
            told.items[-1] = (f"{text} {line.strip()}", times, speaker)
    if not told.items:
        told.text = " ".join(content.split())
    return told


def seconds_of(digits: list[str | None]) -> float | None:
    """(hours, minutes, seconds) as they are written -> seconds."""
    hours, minutes, seconds = digits
    if minutes is None:
        return None
    return 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", "."))
