"""Synthetic speech with exact word times: texts in, a speech pool out.

    python -m duplex.training.speech --texts texts.txt --out pools/heart --voices heart --hours 6
    python -m duplex.training.speech --texts texts.txt --out pools/many --voices many --hours 12
    python -m duplex.training.speech --texts texts.txt --out pools/kokoro --voices kokoro \\
        --kokoro package/voices --hours 3
    python -m duplex.training.speech --real DATA --out pools/real

`heart` is the agent's own voice (Hibari, Apache-2.0). `many` draws a new voice for every utterance:
Hibari with another larynx and another tract, and smaller shares of Piper "joe", of flite's four
speakers and of espeak-ng (the last two are system programs). `kokoro` draws one of Kokoro's voices
or a mixture of two (Apache-2.0; the vectors are in the npm package kokoro-js: `npm pack
kokoro-js@1.2.1`): American and British ones, and accents of seven other languages.

--real reads recorded speech, named in DATA/audio.jsonl. The files of a pool are told in
duplex.training.data.pool.
"""

import argparse
import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
import soxr

from duplex.audio import SAMPLE_RATE
from duplex.training.data.pool import write_pool
from duplex.training.data.synthesizers import (
    heart_speaker,
    load_kokoro_voice,
    many_speakers,
    synthetic_utterances,
)
from duplex.training.text.sources import read_texts


def real_utterances(
    data: Path, left_out: list[str], first: int
) -> Iterator[tuple[str, np.ndarray, dict]]:
    """Recorded speech of at most 25 s with its prompts, from number `first` on.

    The test speakers are of the split `valid` and are never trained on.
    """
    return islice(read_recorded(data, left_out), first, None)


def read_recorded(data: Path, left_out: list[str]) -> Iterator[tuple[str, np.ndarray, dict]]:
    """Text, wave float32 [N] and index fields of all prompts read in DATA/audio.jsonl.

    left_out: sources that are not read, each named by a part of its name.
    """
    for line in (data / "audio.jsonl").read_text().splitlines():
        item = json.loads(line)
        if item["kind"] != "speech" or not item.get("text"):
            continue
        if any(part in item["source"] for part in left_out):
            continue
        wave, rate = soundfile.read(data / item["file"], dtype="float32", always_2d=True)
        if len(wave) / rate > 25:
            continue
        wave = soxr.resample(wave[:, 0], rate, SAMPLE_RATE).astype(np.float32)
        fields = {
            "voice": f"real:{item.get('speaker')}",
            "words": [],
            "source": item["source"],
            "split": "valid" if item.get("split") == "test" else "train",
        }
        yield item["text"], wave, fields


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--texts", type=Path, nargs="+", help="files with one text a line")
    what.add_argument("--real", type=Path, help="folder of recorded speech with audio.jsonl")
    parser.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="SOURCE",
        help="with --real: a source, or a part of its name, that is kept for measuring; repeatable",
    )
    parser.add_argument("--out", type=Path, required=True, help="the pool; a run resumes there")
    parser.add_argument("--voices", choices=["heart", "many", "kokoro"], default="many")
    parser.add_argument("--piper", help="path of a Piper voice (.onnx with its .json beside it)")
    parser.add_argument("--kokoro", type=Path, help="folder of Kokoro's voice vectors (*.bin)")
    parser.add_argument("--hours", type=float, default=8.0, help="of speech in the pool")
    parser.add_argument(
        "--each", type=int, default=1, help="texts in a row by one voice (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    if args.voices == "kokoro" and not args.kokoro:
        parser.error("--voices kokoro needs --kokoro, the folder of its voice vectors")
    for path in args.texts or []:
        if not path.is_file():
            parser.error(f"there is no file {path}")
    if args.real and not (args.real / "audio.jsonl").is_file():
        parser.error(f"{args.real} holds no audio.jsonl, which lists its recordings")
    return args


def main() -> None:
    args = parse_arguments()
    if args.real:
        write_pool(partial(real_utterances, args.real, args.leave_out), args.out, args.hours)
        return
    if args.voices == "kokoro":
        speak = load_kokoro_voice(args.kokoro).say
    else:
        speak = heart_speaker() if args.voices == "heart" else many_speakers(args.piper)
    utterances = partial(
        synthetic_utterances, read_texts(args.texts), speak, args.seed, each=args.each
    )
    write_pool(utterances, args.out, args.hours)


if __name__ == "__main__":
    main()
