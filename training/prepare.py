"""Your own recorded conversations, made ready to fine-tune on.

    python -m duplex.training.prepare --data data.jsonl --out prepared

The layout is that of moshi-finetune: `data.jsonl` has lines {"path": "talk.wav", "duration": 61.2}
(the duration is not needed), paths are relative to it. Every wav has two channels, left the agent,
right the user, and a .json beside it:

    {"alignments": [["Hello", [0.3, 0.6], "SPEAKER_MAIN"], ["hi there", null, "USER"], ...]}

SPEAKER_MAIN is the agent, every other speaker the user. What stands in place of a word may be a
whole turn, and its times may be null: the words then get theirs by forced alignment. Are there no
words of the user, {"text": "..."} may be all that the user says; a .json with that text alone
teaches hearing only. What cannot be used is named and left out.
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
import torch
from tqdm import tqdm

from duplex.audio import SAMPLE_RATE
from duplex.checkpoint import load_config, load_tensors
from duplex.model.encoder import Encoder, EncoderConfig
from duplex.model.spoken_form import spoken_form
from duplex.training.common.endings import in_a_sentence
from duplex.training.common.options import add_part, existing_file
from duplex.training.common.progress import counter
from duplex.training.data.forced_alignment import forced_align
from duplex.training.data.pool import to_int16
from duplex.training.scenes.recordings import WINDOW_S, parse_conversation, window_starts

# (text, [start, end] in seconds or None, speaker)
Item = tuple[str, list[float] | None, str]


class Unusable(Exception):
    """One sentence: what is wrong with a conversation."""


def read_wave(path: Path) -> np.ndarray:
    """A stereo file as float32 [2, N] at the project's rate, left (agent) first.

    Raises Unusable.
    """
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
    """The .json beside a file. Raises Unusable."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Unusable(f"{path.name} is missing beside it") from None
    except ValueError as error:  # Not JSON, or not UTF-8.
        raise Unusable(f"{path.name} is not JSON ({error})") from None
    if not isinstance(found, dict) or not ({"alignments", "text"} & set(found)):
        raise Unusable(f'{path.name} has neither "alignments" nor "text"')
    return found


def read_items(found: dict, name: str) -> list[Item]:
    """The alignments of the .json with this name, their form checked. Raises Unusable."""
    alignments = found.get("alignments", [])
    if not isinstance(alignments, list) or not isinstance(found.get("text", ""), str):
        raise Unusable(f'{name}: "alignments" must be a list and "text" a string')
    items = [read_item(item, f"{name}: entry {n}") for n, item in enumerate(alignments, 1)]
    return [item for item in items if item[0]]


def read_item(item, place: str) -> Item:
    """One entry of the alignments. Raises Unusable, which tells its place."""
    try:
        text, times, speaker = item
        times = [float(times[0]), float(times[1])] if times else None
        is_good = isinstance(text, str) and isinstance(speaker, str)
        is_good = is_good and (not times or all(map(math.isfinite, times)))
    except (TypeError, ValueError, IndexError, KeyError):
        is_good = False
    if not is_good:
        raise Unusable(
            f"{place} of alignments is not [word, [start, end], speaker]: {json.dumps(item)[:80]}"
        )
    return text.strip(), times, speaker


def check_times(items: list[Item], name: str, seconds: float) -> None:
    """Check the words of one speaker in a recording of so many seconds. Raises Unusable.

    Each must end after it begins, begin after the one before, and lie inside the recording, within
    0.1 s: times are rounded, files cut.
    """
    before = 0.0
    for text, times, _ in items:
        if times is None:
            continue
        start, end = times
        if start < before or end < start:
            raise Unusable(
                f'{name}: words are out of order at "{text}" ({start:.2f} to {end:.2f} s, '
                f"after {before:.2f} s)"
            )
        if end > seconds + 0.1:
            raise Unusable(
                f'{name}: "{text}" ends at {end:.2f} s, beyond the end of the recording at '
                f"{seconds:.2f} s"
            )
        before = start


def timed_words(
    items: list[Item], channel: np.ndarray, encoder: Encoder, longest_s: float = 1200.0
) -> list[list]:
    """All that one speaker says as [[word, start, end], ...]; words without times are aligned.

    channel float32 [N]. Without times it may be `longest_s` long: the alignment's table grows with
    the square of the length. Raises Unusable where it is longer, ValueError where words do not fit.
    """
    seconds = len(channel) / SAMPLE_RATE
    if any(times is None for _, times, _ in items):
        if seconds > longest_s:
            raise Unusable(
                f"is {seconds:.0f} s long; beyond {longest_s:.0f} s every turn needs its "
                "[start, end]"
            )
        return forced_align(channel, " ".join(text for text, _, _ in items), encoder)
    words = []
    for text, (start, end), _ in items:
        if len(text.split()) == 1:
            words.append([text, start, min(end, seconds)])
            continue
        part = channel[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
        for word, first, last in forced_align(part, text, encoder):
            words.append([word, round(start + first, 3), round(start + last, 3)])
    return words


def prepare_line(line: str, folder: Path, encoder: Encoder) -> tuple[np.ndarray, dict]:
    """One line of data.jsonl, whose paths are relative to `folder`.

    Returns the user's channel float32 [N], and its index line without the offset. Raises Unusable.
    """
    try:
        named = json.loads(line)["path"]
        path = folder / named
    except (ValueError, TypeError, KeyError):
        raise Unusable('is not JSON with a "path"') from None
    try:
        wave, entry = prepare_conversation(path, encoder)
    except (Unusable, ValueError) as error:  # ValueError comes from the alignment.
        raise Unusable(f"{named}: {error}") from None
    # One conversation in twenty is set aside.
    entry["split"] = "train" if zlib.crc32(named.encode()) % 20 else "valid"
    entry["source"] = named
    if not window_starts(parse_conversation(entry)):
        raise Unusable(
            f"{named}: no {WINDOW_S:.0f} s of it begin in silence and hold a whole turn of the user"
        )
    return wave, entry


def prepare_conversation(path: Path, encoder: Encoder) -> tuple[np.ndarray, dict]:
    """The user's channel float32 [N] of a recording, and who says what. Raises Unusable."""
    found = read_json(path.with_suffix(".json")) if path.is_file() else {}
    agent_wave, user_wave = read_wave(path)
    seconds = len(user_wave) / SAMPLE_RATE
    name = path.with_suffix(".json").name
    items = read_items(found, name)
    label = "SPEAKER_MAIN"
    agent = [item for item in items if item[2] == label]
    user = [item for item in items if item[2] != label]
    if items and not agent:
        raise Unusable(f"{name} has no word of {label}, which is the agent")
    if not user and found.get("text"):
        user = [(found["text"], None, "")]
    check_times(agent, name, seconds)
    check_times(user, name, seconds)
    words = timed_words(user, user_wave, encoder)
    if not any(spoken_form(word) for word, _, _ in words):
        raise Unusable(f'{name} has no words of the user: neither in its alignments nor as "text"')
    answers = timed_words(agent, agent_wave, encoder) if items else None
    text = " ".join(word for word, _, _ in words)
    known = {"text": text, "words": words, "agent": answers, "voice": "recorded"}
    return user_wave, {"samples": len(user_wave), **known}


def prepare(data: Path, out: Path, encoder: Encoder) -> int:
    """Make the pool folder `out`. Returns how many conversations are in it.

    What is left out is told on the standard error, in a sentence each.
    """
    out.mkdir(parents=True, exist_ok=True)
    used = skipped = offset = 0
    lines = data.read_text(encoding="utf-8", errors="replace").split("\n")
    with (
        open(out / "audio.i16", "wb") as audio,
        open(out / "index.jsonl", "w", encoding="utf-8") as index,
    ):
        for number, line in enumerate(counter(lines, "prepared"), 1):
            if not line.strip():
                continue
            try:
                wave, entry = prepare_line(line, data.parent, encoder)
            except Unusable as error:
                tqdm.write(f"{data.name} line {number}: {error}. It is left out.", sys.stderr)
                skipped += 1
                continue
            audio.write(to_int16(wave).tobytes())
            index.write(json.dumps({"offset": offset, **entry}, ensure_ascii=False) + "\n")
            offset += len(wave)
            used += 1
    if used:
        (out / "READY").touch()
    minutes = offset / SAMPLE_RATE / 60
    print(f"{used} conversations prepared, {minutes:.1f} minutes; {skipped} skipped")
    return used


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=existing_file,
        required=True,
        metavar="FILE",
        help="JSON lines with the path of each conversation",
    )
    add_part(parser, "encoder")
    parser.add_argument("--threads", type=int, default=1, help="of the processor (default 1)")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    args = parser.parse_args(arguments)
    if (args.out / "READY").exists():
        parser.error(f"{args.out} holds a pool already; name another folder")
    # More threads than free cores take twenty times as long.
    torch.set_num_threads(args.threads)
    encoder = Encoder(load_config(EncoderConfig, args.encoder)).eval()
    encoder.load_state_dict(load_tensors(args.encoder))
    with in_a_sentence(args.out):
        return 0 if prepare(args.data, args.out, encoder) else 2


if __name__ == "__main__":
    sys.exit(main())
