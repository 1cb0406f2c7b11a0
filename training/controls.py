"""A speech pool with its controls: what the codec's decoder is to give for each of its frames.

    python -m duplex.training.controls --texts texts.txt --voices heart --hours 1.2 \\
        --out pools/heart_controls
    python -m duplex.training.controls --recorded pools/real --mixed-by runs/codec \\
        --out pools/real_controls

Hibari makes its voice as the codec does, of pulses and noise, and its network gives its own signal
processing both. So the decoder need not find out from the sound which of it is noise, and learns
phases, which no distance between magnitudes shows. Recorded speech is analyzed with WORLD (an hour
takes two cores ten minutes). Its spectra are right, but what it calls voiced is all or nothing, and
words are lost where it errs: with --mixed-by a codec says how pulses and noise are mixed.

What the controls are stands in duplex.training.data.vocoder_targets.
"""

import argparse
import multiprocessing
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from duplex.audio import CODEC_FRAME_SAMPLES
from duplex.model.tts.codec import Codec, load_codec
from duplex.model.tts.vocoder import BINS
from duplex.training.data.pool import Pool, write_pool
from duplex.training.data.synthesizers import HibariVoice, sample_voice, synthetic_utterances
from duplex.training.data.vocoder_targets import (
    FLOOR,
    analyze_with_world,
    controls_of_hibari,
    mix_by_codec,
)
from duplex.training.text.sources import read_texts


def controlled(
    texts: list[str], voices: str, seed: int, first: int
) -> Iterator[tuple[str, np.ndarray, dict]]:
    """Utterances for `write_pool` with their controls, as loud as they are to stay.

    voices: "heart", the agent's own, or "many", another for each text.
    """
    from hibari import dsp

    hibari = HibariVoice()

    def speak(text: str, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
        many = voices == "many"
        voice = sample_voice(rng) if many else {"speed": float(rng.uniform(0.85, 1.15))}
        parts, _, _ = hibari.spectra(text, **voice)
        harmonic, theta, _, residual, _, hz = parts
        rows = controls_of_hibari(harmonic, theta, residual, hz)
        wave = dsp.synth(*parts, rng)
        gain = min(1.0, 0.98 / max(np.abs(wave).max(), 1e-3))
        rows[:, : 2 * BINS] = (rows[:, : 2 * BINS] + np.log(gain)).clip(min=FLOOR)
        fields = {"voice": f"hibari:{voices}", "words": [], "controls": rows}
        return gain * wave[: len(rows) * CODEC_FRAME_SAMPLES], fields

    return synthetic_utterances(texts, speak, seed, first)


def recorded(
    folder: Path, codec: Codec | None, first: int, at_once: int = 64
) -> Iterator[tuple[str, np.ndarray, dict]]:
    """A pool's training utterances for `write_pool` with their controls, `at_once` at a time.

    codec: says how pulses and noise are mixed, see `mix_by_codec`.
    """
    pool = Pool(folder, "train")
    with multiprocessing.get_context("spawn").Pool() as workers:
        for begin in range(first, len(pool), at_once):
            numbers = range(begin, min(begin + at_once, len(pool)))
            waves = [whole_frames(pool, i) for i in numbers]
            found = workers.map(analyze_with_world, waves)
            for i, wave, rows in zip(numbers, waves, found, strict=True):
                entry = pool.entries[i]
                fields = {key: entry[key] for key in ("voice", "words", "source", "split")}
                rows = mix_by_codec(codec, wave, rows) if codec else rows
                yield entry["text"], wave, {**fields, "controls": rows}


def whole_frames(pool: Pool, i: int) -> np.ndarray:
    """Utterance i, cut to whole codec frames, softer where its peak is above 0.98."""
    frames = pool.entries[i]["samples"] // CODEC_FRAME_SAMPLES
    wave = pool.wave(i, 0, frames * CODEC_FRAME_SAMPLES)
    return wave * min(1.0, 0.98 / max(np.abs(wave).max(), 1e-3))


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--texts", type=Path, nargs="+", help="files with one text a line, for Hibari to say"
    )
    what.add_argument("--recorded", type=Path, help="pool of recorded speech to analyze instead")
    parser.add_argument(
        "--mixed-by",
        type=Path,
        metavar="FOLDER",
        help="with --recorded: the codec that says how pulses and noise are mixed",
    )
    parser.add_argument(
        "--voices",
        choices=["heart", "many"],
        default="heart",
        help="as duplex.training.speech; `many`: Hibari's alone",
    )
    parser.add_argument("--hours", type=float, default=1.2, help="of speech; 0.8 GB each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="the pool; a run resumes there")
    args = parser.parse_args(arguments)
    if args.mixed_by and not args.recorded:
        parser.error("--mixed-by needs --recorded: Hibari knows the mixture of its own speech")
    return args


def main() -> None:
    args = parse_arguments()
    if args.recorded:
        codec = load_codec(args.mixed_by) if args.mixed_by else None
        write_pool(partial(recorded, args.recorded, codec), args.out, args.hours)
        return
    texts = read_texts(args.texts)
    write_pool(partial(controlled, texts, args.voices, args.seed), args.out, args.hours)


if __name__ == "__main__":
    main()
