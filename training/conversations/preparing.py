"""Recordings become a pool to fine-tune on; what cannot be used is named and left out.

The folder holds the user's channels (duplex.training.data.pool) with the words of both sides, and
taken.jsonl and left_out.jsonl with a line for each recording. One that was interrupted goes on.
"""

import json
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from duplex.audio import SAMPLE_RATE
from duplex.training.common.progress import counter
from duplex.training.conversations.conversation import (
    Conversation,
    Listener,
    read_conversation,
)
from duplex.training.conversations.labels import LABELS, Unusable, find_file, label_paths
from duplex.training.conversations.listing import Listed, list_recordings
from duplex.training.conversations.picture import draw
from duplex.training.conversations.sound import blocks_of
from duplex.training.data.pool import PoolWriter
from duplex.training.scenes.recordings import WINDOW_S, parse_conversation, window_starts


@dataclass(frozen=True)
class Prepared:
    """How many recordings are in a folder, and how much of them."""

    taken: int
    left_out: int
    minutes: float


def prepare(data: Path, out: Path, listener: Listener) -> Prepared:
    """Make the pool folder `out` of what `data` lists, see `list_recordings`."""
    folder, listed = list_recordings(data)
    out.mkdir(parents=True, exist_ok=True)
    if not is_of(out, data):
        # What was mended since is looked at again.
        (out / "left_out.jsonl").unlink(missing_ok=True)
    (out / "data.json").write_text(json.dumps(state_of(folder, listed)))
    known = {row["place"] for row in rows_of(out, "left_out")}
    with PoolWriter(out) as pool:
        known |= {entry["source"] for entry in index_of(out)}
        for one in counter(listed, "prepared"):
            if known & {one.place, one.name}:
                continue
            try:
                take(one, folder, listener, pool)
            except (Unusable, ValueError) as error:  # ValueError comes from the alignment.
                named = f"{one.name}: " if one.name else ""
                sentence = f"{named}{error}"
                add_row(out, "left_out", {"place": one.place, "why": sentence})
                place = "" if one.place == one.name else f"{one.place}: "
                tqdm.write(f"{place}{sentence}. It is left out.", sys.stderr)
        samples = pool.offset
    (out / "scratch.raw").unlink(missing_ok=True)
    taken = len({entry["source"] for entry in index_of(out)})
    if taken:
        set_aside(out)
        (out / "READY").touch()
    left_out = len(rows_of(out, "left_out"))
    return Prepared(taken, left_out, samples / SAMPLE_RATE / 60)


def is_of(out: Path, data: Path) -> bool:
    """Whether the folder `out` was made of what `data` lists, and of these very files."""
    path = out / "data.json"
    return path.exists() and json.loads(path.read_text()) == state_of(*list_recordings(data))


def state_of(folder: Path, listed: list[Listed]) -> list[list]:
    """[name, bytes, time of change] of all recordings, and of the labels beside them."""
    found = []
    for one in listed:
        if not one.name:
            continue
        path = find_file(folder / one.name) or folder / one.name
        paths = [path, *(name for suffix in LABELS for name in label_paths(path, suffix))]
        stats = [(file.name, file.stat()) for file in paths if file.is_file()]
        found += [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
    return found


def take(
    one: Listed, folder: Path, listener: Listener, pool: PoolWriter, pictures: int = 3
) -> None:
    """Put a recording into the pool; the first ones are drawn. Raises Unusable."""
    if one.fault:
        raise Unusable(one.fault)
    out = pool.folder
    found = read_conversation(folder / one.name, listener, out / "scratch.raw")
    entry = entry_of(found, one.name)
    if not window_starts(parse_conversation({"samples": len(found.samples), **entry})):
        raise Unusable(
            f"no {WINDOW_S:.0f} s of it begin in silence and hold a whole turn of the user"
        )
    if pool.count < pictures:
        (out / f"picture{pool.count}.svg").write_text(draw(one.name, found), encoding="utf-8")
    text = " ".join(word for word, _, _ in found.user.words)
    pool.append_blocks(text, blocks_of(found.samples[:, 1]), entry)
    pool.flush()
    pool.count += 1
    add_row(out, "taken", {"place": one.place, **summary(found, one.name)})


def entry_of(found: Conversation, name: str) -> dict:
    """The fields of a conversation's index line."""
    agent = found.agent.words if found.agent else None
    split = "valid" if zlib.crc32(name.encode()) % 20 == 0 else "train"
    known = {"words": found.user.words, "agent": agent, "voice": "recorded"}
    return {**known, "split": split, "source": name}


def summary(found: Conversation, name: str) -> dict:
    """What the report says of a conversation."""
    return {
        "name": name,
        "seconds": round(len(found.samples) / SAMPLE_RATE, 1),
        "user words": len(found.user.words),
        "agent words": len(found.agent.words) if found.agent else None,
        "fit": [side.fit if side else None for side in (found.user, found.agent)],
        "notes": found.notes,
    }


def index_of(out: Path) -> list[dict]:
    """The lines of a pool's index."""
    lines = (out / "index.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def rows_of(out: Path, name: str) -> list[dict]:
    """The rows of taken.jsonl or left_out.jsonl; one that was cut off in writing is passed over."""
    path = out / f"{name}.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def add_row(out: Path, name: str, row: dict) -> None:
    """Append a row."""
    with open(out / f"{name}.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def set_aside(out: Path) -> None:
    """See that something is set aside to measure on: one conversation in twenty, by its name.

    Of a few at least one is; of one or two the end of the first that is long enough.
    """
    index = out / "index.jsonl"
    entries = index_of(out)
    if any(entry["split"] == "valid" for entry in entries) and len(entries) > 2:
        return
    if len(entries) > 2:
        least = min(entries, key=lambda entry: zlib.crc32(entry["source"].encode()))
        least["split"] = "valid"
    else:
        entries = [{**entry, "split": "train"} for entry in entries]
        parted = [(n, parts) for n, entry in enumerate(entries) if (parts := in_two(entry))]
        if not parted:
            return
        n, parts = parted[0]
        entries[n : n + 1] = parts
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    (out / "index.part").write_text(lines, encoding="utf-8")
    (out / "index.part").replace(index)


def in_two(entry: dict, share: float = 0.8) -> tuple[dict, dict] | None:
    """A conversation's first part to learn from and its end to measure on; None: it is too short.

    It is cut in a silence of both.
    """
    both = sorted((start, end) for _, start, end in entry["words"] + (entry["agent"] or []))
    seconds = entry["samples"] / SAMPLE_RATE
    cuts = []
    last = 0.0
    for start, end in both:
        if start - last > 0.5:
            cuts.append((last + start) / 2)
        last = max(last, end)
    if not cuts or seconds < 1.5 * WINDOW_S:
        return None
    cut = min(cuts, key=lambda second: abs(second - share * seconds))
    parts = (part_of(entry, 0.0, cut, "train"), part_of(entry, cut, seconds, "valid"))
    return parts if all(window_starts(parse_conversation(part)) for part in parts) else None


def part_of(entry: dict, start: float, end: float, split: str) -> dict:
    """The part of an index line between two times."""

    def inside(words: list) -> list:
        return [[word, a - start, b - start] for word, a, b in words if start <= a < end]

    offset = entry["offset"] + int(start * SAMPLE_RATE)
    words = inside(entry["words"])
    agent = None if entry["agent"] is None else inside(entry["agent"])
    text = " ".join(word for word, _, _ in words)
    samples = int((end - start) * SAMPLE_RATE)
    told = {"offset": offset, "samples": samples, "text": text, "words": words, "agent": agent}
    return {**entry, **told, "split": split}
