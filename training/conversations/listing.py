"""Which recordings there are: lines of data.jsonl, all sound files of a folder, or one file."""

import gzip
import json
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path

from duplex.training.common.plain_text import decode_text

# What libsndfile reads, then what only ffmpeg does.
SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".w64", ".au", ".caf"}
SUFFIXES |= {".m4a", ".mp4", ".webm", ".mka", ".aac", ".wma", ".amr", ".3gp"}
EXAMPLE = '{"path": "talk.wav"}'


@dataclass(frozen=True)
class Listed:
    """A recording as it is named; `place` says where. `fault`: why the line cannot be used."""

    place: str
    name: str = ""
    fault: str = ""


def list_recordings(data: Path) -> tuple[Path, list[Listed]]:
    """The folder that names are relative to, and what is listed.

    data: a folder, a sound file, or JSON lines {"path": ...}, perhaps compressed (.gz), of any
    common encoding, or as one JSON list. SystemExit where it is none of them.
    """
    if data.is_dir():
        lists = [data / name for name in ("data.jsonl", "data.jsonl.gz")]
        found = next((path for path in lists if path.is_file()), None)
        if found is None:
            return data, sound_files(data)
        data = found
    if data.suffix.lower() in SUFFIXES:
        return data.parent, [Listed(data.name, data.name)]
    listed = read_list(data)
    if not listed:
        raise SystemExit(f"{data} is empty: it lists no recording, as {EXAMPLE} would.")
    if all(one.fault for one in listed):
        raise SystemExit(f"{data} is no list of recordings: no line is JSON like {EXAMPLE}.")
    return data.parent, once_each(listed)


def once_each(listed: list[Listed]) -> list[Listed]:
    """The same, where what is listed twice is a fault."""
    known: set[str] = set()
    found = []
    for one in listed:
        name = normpath(one.name) if one.name else ""
        found.append(Listed(one.place, fault=f"{name} is listed twice") if name in known else one)
        known |= {name} if name else set()
    return found


def sound_files(folder: Path) -> list[Listed]:
    """All sound files below a folder but the hidden ones. SystemExit where there are none."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    names = [
        str(path)
        for path in paths
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith((".", "__MACOSX")) for part in path.parts)
    ]
    if not names:
        raise SystemExit(f"{folder} holds no recording: no .wav, .flac, .mp3 or the like.")
    return [Listed(name, name) for name in names]


def read_list(data: Path) -> list[Listed]:
    """The recordings that a file names. SystemExit where it cannot be unpacked."""
    content = data.read_bytes()
    if content[:4] == b"PK\x03\x04":
        raise SystemExit(f"{data} is a zip archive: unpack it, and name the folder.")
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise SystemExit(f"{data} cannot be unpacked: {error}.") from error
    text = decode_text(content)
    try:
        entries = json.loads(text) if text.lstrip().startswith("[") else None
    except ValueError:
        entries = None
    if entries is not None:
        return [
            read_entry(entry, f"{data.name} entry {number}")
            for number, entry in enumerate(entries, 1)
        ]
    return [
        read_line(line, f"{data.name} line {number}")
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]


def read_line(line: str, place: str) -> Listed:
    """One line of data.jsonl."""
    try:
        return read_entry(json.loads(line), place)
    except ValueError:
        return read_entry(None, place)


def read_entry(entry, place: str) -> Listed:
    """What one entry names."""
    name = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name.strip():
        return Listed(place, fault='is not JSON with a "path"')
    return Listed(place, name)
