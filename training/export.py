"""Put trained parts together into an agent folder that ships.

    python -m duplex.training.export --lm runs/mine --out runs/agent
    python -m duplex.training.export --encoder runs/encoder --lexicon runs/lexicon --lm runs/lm \\
        --talker runs/talker --codec runs/codec --tokenizer FOLDER --out runs/agent

A part that is not given stays what it is in --out; where it has none it is the shipped agent's.
Large matrices are stored in 8 bits with a scale a row. Of the codec only those are that a CPU would
quantize anyway (duplex.cpu.vocoder): its encoder and codebooks decide codes, so they are kept in
float16. All files are then compressed without loss.
"""

import argparse
import gzip
import json
from dataclasses import asdict
from pathlib import Path

from duplex.checkpoint import quantize, read, write_compressed
from duplex.model.tokens import COMPRESSED_TOKENIZER
from duplex.model.tts.codec import load_codec, stored_tensors
from duplex.training.common.endings import in_a_sentence
from duplex.training.common.options import folder_of, tokenizer_folder
from duplex.training.common.packing import export_part, fill_up, write_part
from duplex.training.data.provenance import trained_on, write_sources

PARTS = "encoder lexicon lm turn_end draft talker codec speaker sounds".split()


def export_codec(run: Path, folder: Path) -> None:
    """Write a codec whose decoder is in 8 bits."""
    codec = load_codec(run)
    # The matrices that duplex.cpu.vocoder quantizes.
    prefixes = ("decoder.from_latent.", "decoder.blocks.", "decoder.to_spectrum.")
    write_part(quantize(stored_tensors(codec), prefixes), asdict(codec.config), folder)


def export_lexicon(run: Path, folder: Path) -> None:
    """Write a lexicon's tensors as they are, compressed."""
    folder.mkdir(parents=True, exist_ok=True)
    write_compressed(read(run / "model.safetensors"), folder / "model.safetensors")


def export_head(run: Path, folder: Path) -> None:
    """Write a head in float16: 8 bits cost that of speakers half a point of equal error."""
    config = json.loads((run / "config.json").read_text())
    tensors = {name: value.half() for name, value in read(run / "model.safetensors").items()}
    write_part(tensors, config, folder)


def export_tokenizer(folder: Path, out: Path) -> None:
    """Write the tokenizer.json of a folder, byte for byte, compressed."""
    out.mkdir(parents=True, exist_ok=True)
    compressed = gzip.compress((folder / "tokenizer.json").read_bytes(), mtime=0)
    (out / COMPRESSED_TOKENIZER).write_bytes(compressed)
    (out / "tokenizer.json").unlink(missing_ok=True)  # An older one would be loaded instead.


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for part in PARTS:
        parser.add_argument(
            f"--{part}", type=folder_of(part), metavar="FOLDER", help=f"run folder of the {part}"
        )
    parser.add_argument(
        "--tokenizer",
        type=tokenizer_folder,
        metavar="FOLDER",
        help="folder with the LM's tokenizer.json",
    )
    parser.add_argument(
        "--window",
        type=int,
        help="frames of 20 ms that the encoder remembers, if fewer than trained",
    )
    parser.add_argument(
        "--strength",
        type=float,
        help="of the LM's adapters, as a share of what they were trained with",
    )
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="NAME",
        help="that the encoder was trained on, besides those that its run tells (an average tells "
        "none); repeatable",
    )
    parser.add_argument("--out", type=Path, required=True, help="agent folder")
    args = parser.parse_args(arguments)
    if args.window and not args.encoder:
        parser.error("--window needs --encoder, the run whose past is cut")
    if args.source and not args.encoder:
        parser.error("--source needs --encoder, the run that was trained on it")
    if args.strength and not args.lm:
        parser.error("--strength needs --lm, the run whose adapters are weakened")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    with in_a_sentence(args.out):
        export(args)
    files = [path for path in sorted(args.out.rglob("*")) if path.is_file()]
    sizes = {str(path.relative_to(args.out)): path.stat().st_size for path in files}
    print(json.dumps(sizes, indent=1), f"\n{sum(sizes.values()) / 1e6:.1f} MB")
    print(f"next: duplex talk --agent {args.out}")


def export(args: argparse.Namespace) -> None:
    """Write what the arguments name, and fill up the rest."""
    out = args.out
    if args.encoder:
        export_part(args.encoder, out / "encoder", window=args.window)
        write_sources(out / "encoder", [*(trained_on(args.encoder) or []), *args.source])
    if args.lm:
        export_part(args.lm, out / "lm", strength=args.strength)
    if args.turn_end:
        export_head(args.turn_end, out / "turn_end")
    if args.draft:
        export_part(args.draft, out / "draft")
    if args.talker:
        export_part(args.talker, out / "talker")
    if args.speaker:
        export_head(args.speaker, out / "speaker")
    if args.sounds:
        export_head(args.sounds, out / "sounds")
    if args.lexicon:
        export_lexicon(args.lexicon, out / "lexicon")
    if args.codec:
        export_codec(args.codec, out / "codec")
    out.mkdir(parents=True, exist_ok=True)
    if args.tokenizer:
        export_tokenizer(args.tokenizer, out)
    fill_up(out)


if __name__ == "__main__":
    main()
