"""Who says what in a recording, as people have it: files of labels in several forms.

Beside talk.wav may stand talk.json, talk.txt, talk.srt or talk.vtt:

    {"alignments": [["Hello", [0.3, 0.6], "SPEAKER_MAIN"], ["hi there", null, "USER"], ...]}
    {"segments": [{"text": "Hello", "start": 0.3, "end": 0.6, "speaker": "SPEAKER_00"}, ...]}
    {"chunks": [{"text": "Hello", "timestamp": [0.3, 0.6]}, ...]}
    {"text": "all that the user says"}
    agent: Hello.          (a line of talk.txt; times before it are read: [00:01.5 - 00:03.0])
    0.3 0.6 Hello.         (the same with tabs between, as Audacity writes it)

What stands in place of a word may be a whole turn; times may be null.
"""

import html
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from duplex.training.common.plain_text import read_text

# (text, [start, end] in seconds or None, speaker)
Item = tuple[str, list[float] | None, str]

AGENT_LABELS = {"speaker_main", "agent", "assistant", "bot", "duplex"}
USER_LABELS = {"user", "you", "caller", "customer", "human"}

# Files that may stand beside a recording; the first one is read.
LABELS = (".json", ".txt", ".srt", ".vtt")
# Names of lists of entries in a .json.
LISTS = ("alignments", "segments", "utterances", "chunks", "words")
# Hours, minutes and seconds; who speaks, before what is said; the same in WebVTT.
STAMP = r"(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)"
SPEAKER = r"([^\W\d][\w .#'’-]{0,30}?)\s*:\s+(.+)"
VOICE = r"<v(?:\.[^ >]*)?\s+([^>]+)>"


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
    """The file, though its name may be written otherwise.

    It may be composed of other code points (é or e and an accent), in upper case, or have
    backslashes between folders.
    """
    if path.is_file():
        return path
    if "\\" in path.name:
        return find_file(path.parent / path.name.replace("\\", "/"))
    if not path.parent.is_dir():
        return None

    def comparable(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()

    wanted = comparable(path.name)
    same = (p for p in path.parent.iterdir() if comparable(p.name) == wanted)
    return next((p for p in same if p.is_file()), None)


def label_paths(path: Path, suffix: str) -> tuple[Path, Path]:
    """Where labels of a recording may be: talk.srt, then talk.wav.srt."""
    return path.with_suffix(suffix), path.with_name(path.name + suffix)


def read_told(path: Path) -> Told:
    """The labels beside a recording; nothing where there are none. Raises Unusable."""
    readers = (read_json, read_transcript, read_captions, read_captions)
    for suffix, read in zip(LABELS, readers, strict=True):
        names = label_paths(path, suffix)
        file = next((found for name in names if (found := find_file(name))), None)
        if file:
            try:
                content = read_text(file)
            except OSError as error:
                raise Unusable(f"{file.name} cannot be read ({error.strerror})") from None
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
    if not isinstance(found, dict) or not {*LISTS, "text"} & set(found):
        raise Unusable(f'{name} has neither "alignments" nor "segments" nor "text"')
    kind = next((key for key in LISTS if found.get(key) is not None), "alignments")
    entries = found.get(kind) or []
    text = found.get("text") or ""
    if not isinstance(entries, list) or not isinstance(text, str):
        raise Unusable(f'{name}: "{kind}" must be a list and "text" a string')
    # A transcript of both has its text once more as a whole.
    told = Told(text="" if kind != "alignments" and entries else text)
    bad = [n for n, entry in enumerate(entries, 1) if not read_entry(entry, told.items)]
    if 10 * len(bad) > len(entries):
        entry = json.dumps(entries[bad[0] - 1], ensure_ascii=False)[:80]
        raise Unusable(
            f"{name}: entry {bad[0]} of {kind} is not [word, [start, end], speaker]: {entry}"
        )
    if bad:
        told.notes.append(f"{len(bad)} entries cannot be read")
    return told


def read_entry(entry, items: list[Item]) -> bool:
    """Append what an entry says, if it says anything. Returns whether it could be read."""
    try:
        if isinstance(entry, dict):
            text = entry["text"] if "text" in entry else entry["word"]
            times = entry.get("timestamp") or [entry.get("start"), entry.get("end")]
            speaker = entry.get("speaker", "")
        else:
            text, times, speaker = entry
        speaker = "" if speaker is None else str(speaker)
        if text is None:
            return True
        known = times and None not in times
        times = [float(times[0]), float(times[1])] if known else None
    except (TypeError, ValueError, IndexError, KeyError):
        return False
    if not isinstance(text, str):
        return False
    if times and not all(map(math.isfinite, times)):
        return False
    if text.strip():
        items.append((text.strip(), times, speaker))
    return True


def read_transcript(content: str, name: str) -> Told:
    """Lines "SPEAKER: text", perhaps after their times; without speakers it is all the user's."""
    marks = re.findall(r"^(\d+[.,]?\d*)\t(\d+[.,]?\d*)\t(.*)$", content, re.MULTILINE)
    if marks:
        return told_of_cues(
            [[in_seconds(start), in_seconds(end), text] for start, end, text in marks]
        )
    line_form = re.compile(rf"\s*\[?(?:{STAMP}(?:\s*-+>?\s*{STAMP})?)?\]?\s*{SPEAKER}")
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


def read_captions(content: str, name: str) -> Told:
    """SubRip or WebVTT; who speaks may stand before a text, or in its <v NAME>. Raises Unusable."""
    cues: list[list] = []
    is_text = False
    for line in content.splitlines():
        times = re.match(rf"\s*{STAMP}\s*-->\s*{STAMP}", line)
        if times:
            cues.append([seconds_of(times.groups()[:3]), seconds_of(times.groups()[3:]), ""])
        elif is_text and line.strip():
            cues[-1][2] += f" {line.strip()}"
        is_text = bool(times) or (is_text and bool(line.strip()))
    if not cues:
        raise Unusable(f"{name} holds no captions")
    voices = set()
    for cue in cues:
        voices.update(re.findall(VOICE, cue[2]))
        cue[2] = re.sub(VOICE, r"\1: ", cue[2])
        cue[2] = html.unescape(re.sub(r"<[^>]*>|\{\\[^}]*\}", "", cue[2])).strip()
    return told_of_cues(cues, voices)


def told_of_cues(cues: list[list], voices: Set[str] = frozenset()) -> Told:
    """[start, end, text], where a text may begin with "NAME:".

    A name is known, one of the voices, or stands more than once: "It is this: cake" has none.
    """
    found = [re.fullmatch(SPEAKER, text.lstrip("- ")) for _, _, text in cues]
    counts = Counter(match[1].lower() for match in found if match)
    names = {name for name, count in counts.items() if count > 1} | AGENT_LABELS | USER_LABELS
    names |= {name.lower() for name in voices}
    told = Told()
    for (start, end, text), match in zip(cues, found, strict=True):
        is_named = match is not None and match[1].lower() in names
        speaker, text = match.groups() if is_named else ("", text.lstrip("- "))
        if text.strip():
            told.items.append((text.strip(), [start, end], speaker))
    return told


def seconds_of(digits: Sequence[str | None]) -> float | None:
    """(hours, minutes, seconds) as they are written -> seconds."""
    hours, minutes, seconds = digits
    if minutes is None:
        return None
    return 3600 * int(hours or 0) + 60 * int(minutes) + in_seconds(seconds)


def in_seconds(text: str) -> float:
    """A decimal number, with a point or a comma."""
    return float(text.replace(",", "."))
