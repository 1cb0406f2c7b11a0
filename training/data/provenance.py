"""Which sources of speech an encoder was trained on.

A measure of hearing is taken on sources that no training has seen, not only on speakers: those of
one corpus share microphones, rooms, texts and a way of reading. What was trained on is known from

- `sources.json`, a list of names in the encoder's folder: an export writes it,
- or `run.json` of a run's folder, which names its pools and the run it started from; the index of a
  pool has the source of each utterance.
"""

import json
from pathlib import Path

SOURCES_FILE = "sources.json"


def pool_sources(folder: Path) -> set[str]:
    """The sources of a pool's training part; of synthetic speech the synthesisers ("kokoro")."""
    found = set()
    with open(folder / "index.jsonl", encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            if entry["split"] == "train":
                source = entry.get("source", "synthetic")
                is_synthetic = source == "synthetic"
                found.add(entry["voice"].partition(":")[0] if is_synthetic else source)
    return found


def trained_on(folder: Path) -> list[str] | None:
    """The sources that the encoder in a folder was trained on, sorted; None where nothing tells.

    A run also knows the sources of the encoder that it started from. Where those, or one of its
    pools, cannot be read any more, nothing tells.
    """
    if (folder / SOURCES_FILE).exists():
        return json.loads((folder / SOURCES_FILE).read_text(encoding="utf-8"))
    if not (folder / "run.json").exists():
        return None
    arguments = json.loads((folder / "run.json").read_text(encoding="utf-8"))["arguments"]
    pools = [Path(pool) for pool, _ in arguments["pool"]]
    before = trained_on(Path(arguments["start"])) if arguments["start"] else []
    if before is None or not all((pool / "index.jsonl").exists() for pool in pools):
        return None
    return sorted(set(before).union(*map(pool_sources, pools)))


def write_sources(folder: Path, sources: list[str] | None) -> None:
    """Write down the sources of the encoder in a folder; without any, forget older ones."""
    path = folder / SOURCES_FILE
    path.unlink(missing_ok=True)
    if sources:
        path.write_text(json.dumps(sorted(sources), indent=1) + "\n", encoding="utf-8")
