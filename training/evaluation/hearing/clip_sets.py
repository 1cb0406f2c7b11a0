"""What the listeners hear: sets of clips, by source.

Recorded speech is told in DATA/audio.jsonl and DATA/measure.jsonl, one object a line with `file`,
`kind`, `source`, `split`, `speaker` and `text`. What voices made by a synthesiser say stands in
duplex.training.evaluation.hearing.spoken_items.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr

from duplex.audio import SAMPLE_RATE
from duplex.training.data.augment import active_power, load_noise
from duplex.training.evaluation.hearing.disturbances import (
    Disturbance,
    as_wrong_bytes,
    babble,
    in_far_field,
    over_telephone,
    with_noise,
    wordless,
)

# Ticks of silence before a clip, as in any room.
LEAD_TICKS = 6
# Of a television's speech: 15 dB below that of Kokoro.say.
TELEVISION_DB = -37.0


@dataclass
class Clip:
    """A sound and what is said in it: all its words, or those that matter."""

    text: str
    wave: np.ndarray  # float32 [N]


@dataclass(frozen=True)
class ClipSet:
    """Clips of one source; `load` reads or makes them, the same ones each time."""

    name: str
    source: str
    load: Callable[[], list[Clip]]
    lead_ticks: int = LEAD_TICKS


def title(source: str) -> str:
    """A source's short name: "github:owner/name (corpus)" -> "corpus", or else "name"."""
    inner = re.search(r"\(([^()]+)\)$", source)
    return inner[1] if inner else source.rpartition("/")[2]


def is_known(source: str, known: list[str]) -> bool:
    """Whether one of the names of sources that were trained on is a part of this source's."""
    return any(name.lower() in source.lower() for name in known)


def read_index(data: Path, name: str) -> list[dict]:
    """The objects of one of DATA's lists."""
    return [json.loads(line) for line in (data / name).read_text(encoding="utf-8").splitlines()]


def never_heard(
    items: list[dict], known: list[str], min_clips: int = 10, max_s: float = 25.0
) -> dict[str, list[dict]]:
    """The recorded clips with a text that no training heard, by source, ordered by speaker.

    Of a known source those of its test speakers, of another one all; none longer than max_s.
    Sources of which fewer than min_clips are left say nothing and are left out.
    """
    found: dict[str, list[dict]] = {}
    for item in items:
        if item["kind"] != "speech" or not item.get("text") or item["seconds"] > max_s:
            continue
        if item.get("split") == "test" or not is_known(item["source"], known):
            found.setdefault(item["source"], []).append(item)
    return {
        source: sorted(clips, key=lambda item: (item.get("speaker") or "", item["file"]))
        for source, clips in found.items()
        if len(clips) >= min_clips
    }


def spread(items: list, count: int) -> list:
    """At most `count` of the items, evenly over all of them."""
    places = np.linspace(0, len(items), min(count, len(items)), endpoint=False)
    return [items[int(place)] for place in places]


def read_wave(path: Path) -> np.ndarray:
    """The first channel of a sound file, float32 [N] at 24 kHz."""
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(wave[:, 0], rate, SAMPLE_RATE).astype(np.float32)


def recorded(data: Path, items: list[dict], key: str = "text") -> Callable[[], list[Clip]]:
    """Reads these clips of DATA; key: of their words."""
    return lambda: [Clip(item[key], read_wave(data / item["file"])) for item in items]


def disturbed(
    load: Callable[[], list[Clip]], disturb: Disturbance, seed: int
) -> Callable[[], list[Clip]]:
    """The same clips, each put through a disturbance with random numbers of its own."""
    return lambda: [
        Clip(clip.text, disturb(clip.wave, np.random.default_rng([seed, number])))
        for number, clip in enumerate(load())
    ]


def recorded_sets(data: Path, known: list[str], count: int) -> list[ClipSet]:
    """A set a source of recorded speech, `count` clips of each; of known ones the test speakers."""
    return [
        ClipSet(
            title(source) + (" test" if is_known(source, known) else ""),
            source,
            recorded(data, spread(items, count)),
        )
        for source, items in never_heard(read_index(data, "audio.jsonl"), known).items()
    ]


def disturbed_sets(data: Path, known: list[str], count: int, seed: int) -> list[ClipSet]:
    """The clips of the largest source that was not trained on, in babble, far away, by telephone.

    The babble is of DATA's recordings of several talkers, for all its noises are trained with. If
    all sources are known, the clips are those of the largest one's test speakers.
    """
    index = read_index(data, "audio.jsonl")
    sources = never_heard(index, known)
    if not sources:
        return []
    source = max(sources, key=lambda name: (not is_known(name, known), len(sources[name])))
    load = recorded(data, spread(sources[source], count))
    others = [data / item["file"] for item in index if item["kind"] == "multi"]
    conditions: dict[str, Disturbance] = {}
    if others:
        conditions |= {f"babble, {snr} dB": in_babble(others, snr, seed) for snr in (10, 5)}
    conditions |= {"far field": in_far_field, "telephone": over_telephone}
    return [
        ClipSet(f"{title(source)}, {name}", source, disturbed(load, disturb, seed))
        for name, disturb in conditions.items()
    ]


def in_babble(recordings: list[Path], snr_db: float, seed: int) -> Disturbance:
    """Adds a minute's babble of these recordings, which are read when they are needed."""

    @lru_cache(1)
    def noise() -> Disturbance:
        voices = [read_wave(path) for path in recordings]
        return with_noise(snr_db, [babble(voices, 60, np.random.default_rng(seed))])

    return lambda wave, rng: noise()(wave, rng)


def order_sets(data: Path, count: int) -> list[ClipSet]:
    """Spoken orders of which only the words that matter are known: DATA/measure.jsonl."""
    if not (data / "measure.jsonl").exists():
        return []
    items = [item for item in read_index(data, "measure.jsonl") if item.get("words")]
    return [
        ClipSet(f"{title(source)}, orders", source, recorded(data, spread(group, count), "words"))
        for source in dict.fromkeys(item["source"] for item in items)
        if (group := [item for item in items if item["source"] == source])
    ]


def wordless_sets(data: Path, known: list[str], minutes: float, seed: int) -> list[ClipSet]:
    """What is not said to the agent.

    DATA's noises, tones, music and silence; mu-law taken for samples; talkers across a
    room, as from a television.
    """

    def noises() -> list[Clip]:
        rng = np.random.default_rng(seed)
        return [Clip("", wave) for wave in wordless(load_noise(data), minutes, rng)]

    def wrong_bytes() -> list[Clip]:
        sources = never_heard(read_index(data, "audio.jsonl"), known)
        items = spread(max(sources.values(), key=len), 60)
        waves = [as_wrong_bytes(read_wave(data / item["file"])) for item in items]
        joined = np.concatenate(waves)
        return [Clip("", wave) for wave in np.array_split(joined, max(1, len(joined) // 240_000))]

    def television() -> list[Clip]:
        rng = np.random.default_rng(seed)
        items = [item for item in read_index(data, "audio.jsonl") if item["kind"] == "multi"]
        sound = np.concatenate([read_wave(data / item["file"]) for item in items])
        stretches = spread(np.array_split(sound, max(1, len(sound) // (20 * SAMPLE_RATE))), 12)
        return [Clip("", at_level(in_far_field(wave, rng), TELEVISION_DB)) for wave in stretches]

    sets = [
        ClipSet("noise, tones, music, silence", "noise", noises),
        ClipSet("mu-law read as 16-bit samples", "noise", wrong_bytes),
    ]
    if any(item["kind"] == "multi" for item in read_index(data, "audio.jsonl")):
        sets.append(ClipSet("television, 15 dB below a talker", "noise", television))
    return sets


def at_level(wave: np.ndarray, level_db: float) -> np.ndarray:
    """The wave with its speech at a level below full scale."""
    return wave * np.float32(10 ** (level_db / 20) / np.sqrt(active_power(wave)))


def seconds(clip: Clip) -> float:
    """How long a clip is."""
    return len(clip.wave) / SAMPLE_RATE
