"""Your own recorded conversations, made ready to fine-tune on.

    python -m duplex.training.prepare --data data.jsonl --encoder duplex/pretrained/encoder --out prepared/

The layout is that of moshi-finetune: `data.jsonl` has lines {"path": "talk.wav", "duration": 61.2} (the duration is not needed),
paths are relative to it. Every wav has two channels, left the agent, right the user, and a .json beside it:

    {"alignments": [["Hello", [0.3, 0.6], "SPEAKER_MAIN"], ["hi there", null, "USER"], ...]}

SPEAKER_MAIN is the agent, every other speaker the user. What stands in place of a word may be a whole turn, and its times may be
null: the words then get theirs by forced alignment. Are there no words of the user, {"text": "..."} may be all that the user says;
a .json with that text alone teaches hearing only. What cannot be used is named and left out.
"""

import argparse
import json
import math
import sys
import zlib
from pathlib import Path

import numpy as np
import soundfile
import soxr
from duplex.training.data.forced_alignment import forced_align
from duplex.training.data.normalize import heard_form
from duplex.training.scenes.recordings import WINDOW_S, understand, window_starts

from duplex.audio import SAMPLE_RATE
from duplex.checkpoint import load_config, load_tensors
from duplex.model.encoder import Encoder, EncoderConfig

AGENT_LABEL = "SPEAKER_MAIN"
BEYOND_S = 0.1  # by so much a word may outlast its recording: times are rounded, files cut
LONGEST_UNTIMED_S = 1200.0  # the alignment's table grows with the square of the length
VALID_IN = 20  # one conversation in so many is set aside


class Unusable(Exception):
    """One sentence: what is wrong with a conversation."""


def read_wave(path: Path) -> np.ndarray:
    """A stereo file -> float32 [2, N] at the project's rate, left (agent) first."""
    if not path.is_file():
        raise Unusable("there is no such file")
    try:
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise Unusable(f"cannot be read as sound ({error.error_string.rstrip('.')})") from None
    if wave.shape[1] != 2:
        count = "is mono" if wave.shape[1] == 1 else f"has {wave.shape[1]} channels"
        raise Unusable(f"{count}, it needs two channels, left the agent and right the user")
    if not np.isfinite(wave).all() or not np.abs(wave[:, 1]).max(initial=0.0) > 0:
        raise Unusable("has no sound of the user in its right channel")
    return np.ascontiguousarray(soxr.resample(wave, rate, SAMPLE_RATE).astype(np.float32).T)


def read_json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Unusable(f"{path.name} is missing beside it") from None
    except ValueError as error:  # not JSON, or not UTF-8
        raise Unusable(f"{path.name} is not JSON ({error})") from None
    if not isinstance(found, dict) or not ({"alignments", "text"} & set(found)):
        raise Unusable(f'{path.name} has neither "alignments" nor "text"')
    return found


def read_items(found: dict, name: str) -> list[tuple[str, list[float] | None, str]]:
    """The alignments of a .json, their form checked -> [(text, [start, end] or None, speaker), ...]"""
    if not isinstance(found.get("alignments", []), list) or not isinstance(
        found.get("text", ""), str
    ):
        raise Unusable(f'{name}: "alignments" must be a list and "text" a string')
    items = []
    for n, item in enumerate(found.get("alignments", [])):
        try:
            text, times, speaker = item
            times = times and [float(times[0]), float(times[1])]
            good = (
                isinstance(text, str)
                and isinstance(speaker, str)
                and (not times or all(map(math.isfinite, times)))
            )
        except (TypeError, ValueError, IndexError, KeyError):
            good = False
        if not good:
            raise Unusable(
                f"{name}: entry {n + 1} of alignments is not [word, [start, end], speaker]: {json.dumps(item)[:80]}"
            )
        if text.strip():
            items.append((text.strip(), times or None, speaker))
    return items


def check_times(items: list, name: str, seconds: float) -> None:
    """Words of one speaker: each must end after it begins, begin after the one before, and lie inside the recording."""
    before = 0.0
    for text, times, _ in items:
        if times is None:
            continue
        start, end = times
        if start < before or end < start:
            raise Unusable(
                f'{name}: words are out of order at "{text}" ({start:.2f} to {end:.2f} s, after {before:.2f} s)'
            )
        if end > seconds + BEYOND_S:
            raise Unusable(
                f'{name}: "{text}" ends at {end:.2f} s, beyond the end of the recording at {seconds:.2f} s'
            )
        before = start


def timed_words(items: list, channel: np.ndarray, encoder: Encoder) -> list[list]:
    """All that one speaker says -> [[word, start, end], ...]; where words have no times of their own, they are aligned."""
    seconds = len(channel) / SAMPLE_RATE
    if any(times is None for _, times, _ in items):
        if seconds > LONGEST_UNTIMED_S:
            raise Unusable(
                f"is {seconds:.0f} s long; beyond {LONGEST_UNTIMED_S:.0f} s every turn needs its [start, end]"
            )
        return forced_align(channel, " ".join(text for text, _, _ in items), encoder)
    words = []
    for text, (start, end), _ in items:
        if len(text.split()) == 1:
            words.append([text, start, min(end, seconds)])
            continue
        part = channel[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
        words += [
            [w, round(start + a, 3), round(start + b, 3)]
            for w, a, b in forced_align(part, text, encoder)
        ]
    return words


def prepare_one(line: str, folder: Path, encoder: Encoder) -> tuple[np.ndarray, dict]:
    """One line of data.jsonl -> the user's channel float32 [N], and its index line without the place. Raises Unusable."""
    try:
        named = json.loads(line)["path"]
        path = folder / named
    except (ValueError, TypeError, KeyError):
        raise Unusable('is not JSON with a "path"') from None
    try:
        found = read_json(path.with_suffix(".json")) if path.is_file() else {}
        agent_wave, user_wave = read_wave(path)
        seconds = len(user_wave) / SAMPLE_RATE
        name = path.with_suffix(".json").name
        items = read_items(found, name)
        agent, user = (
            [i for i in items if (i[2] == AGENT_LABEL) == mine] for mine in (True, False)
        )
        if items and not agent:
            raise Unusable(f"{name} has no word of {AGENT_LABEL}, which is the agent")
        user = user or [(found["text"], None, "")] if found.get("text") else user
        for side in (agent, user):
            check_times(side, name, seconds)
        words = timed_words(user, user_wave, encoder)
        if not any(heard_form(word) for word, _, _ in words):
            raise Unusable(
                f'{name} has no words of the user: neither in its alignments nor as "text"'
            )
        answers = timed_words(agent, agent_wave, encoder) if items else None
    except (Unusable, ValueError) as error:  # ValueError: from the alignment
        raise Unusable(f"{named}: {error}") from None
    fields = {
        "voice": "recorded",
        "split": "train" if zlib.crc32(named.encode()) % VALID_IN else "valid",
        "source": named,
    }
    text = " ".join(word for word, _, _ in words)
    entry = {"samples": len(user_wave), "text": text, "words": words, "agent": answers, **fields}
    if not window_starts(understand(entry)):
        raise Unusable(
            f"{named}: no {WINDOW_S:.0f} s of it begin in silence and hold a whole turn of the user"
        )
    return user_wave, entry


def prepare(data: Path, out: Path, encoder: Encoder) -> tuple[int, int]:
    """Make the pool folder `out` -> conversations used, and skipped, each of these with a sentence on the standard error."""
    out.mkdir(parents=True, exist_ok=True)
    used = skipped = offset = 0
    with (
        open(out / "audio.i16", "wb") as audio,
        open(out / "index.jsonl", "w", encoding="utf-8") as index,
    ):
        for number, line in enumerate(
            data.read_text(encoding="utf-8", errors="replace").split("\n"), 1
        ):
            if not line.strip():
                continue
            try:
                wave, entry = prepare_one(line, data.parent, encoder)
            except Unusable as error:
                print(f"{data.name} line {number}: {error}. It is left out.", file=sys.stderr)
                skipped += 1
                continue
            audio.write(
                (wave * min(1.0, 0.98 / np.abs(wave).max()) * 32767).astype("<i2").tobytes()
            )
            index.write(json.dumps({"offset": offset, **entry}, ensure_ascii=False) + "\n")
            offset += len(wave)
            used += 1
    if used:
        (out / "READY").touch()
    print(
        f"{used} conversations prepared, {offset / SAMPLE_RATE / 60:.1f} minutes; {skipped} skipped"
    )
    return used, skipped


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="JSON lines with the path of each conversation"
    )
    parser.add_argument("--encoder", type=Path, required=True, help="folder of the trained encoder")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    args = parser.parse_args(arguments)
    if not args.data.is_file():
        parser.error(f"there is no file {args.data}")
    if not (args.encoder / "config.json").is_file():
        parser.error(
            f"--encoder needs a folder with config.json, and there is none in {args.encoder}"
        )
    if (args.out / "READY").exists():
        parser.error(f"{args.out} holds a pool already; name another folder")
    encoder = Encoder(load_config(EncoderConfig, args.encoder)).eval()
    encoder.load_state_dict(load_tensors(args.encoder))
    used, _ = prepare(args.data, args.out, encoder)
    return 0 if used else 2


if __name__ == "__main__":
    sys.exit(main())
