"""Which recordings there are: lines of data.jsonl, or all sound files of a folder."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}


@dataclass(frozen=True)
class Listed:
    """A recording as it is named; `place` says where. `fault`: why the line cannot be used."""

    place: str
    name: str = ""
    fault: str = ""


def list_recordings(data: Path) -> tuple[Path, list[Listed]]:
    """The folder that names are relative to, and what is listed.

    data: a folder, or JSON lines {"path": ...}, perhaps compressed (.gz) or with a byte-order mark.
    SystemExit where it can be neither.
    """
    if data.is_dir():
        lists = [data / name for name in ("data.jsonl", "data.jsonl.gz")]
        found = next((path for path in lists if path.is_file()), None)
        if found is None:
            files = sorted(p for p in data.rglob("*") if p.suffix.lower() in SUFFIXES)
            names = [str(path.relative_to(data)) for path in files]
            return data, [Listed(name, name) for name in names]
        data = found
    content = data.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise SystemExit(f"{data} cannot be unpacked: {error}.") from error
    lines = content.decode("utf-8-sig", errors="replace").split("\n")
    listed = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            listed.append(read_line(line, f"{data.name} line {number}"))
    return data.parent, listed


def read_line(line: str, place: str) -> Listed:
    """One line of data.jsonl."""
    try:
        name = json.loads(line)["path"]
    except (ValueError, TypeError, KeyError):
        name = None
    if not isinstance(name, str) or not name.strip():
        return Listed(place, fault='is not JSON with a "path"')
    return Listed(place, name)
