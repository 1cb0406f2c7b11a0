"""Your own recorded conversations, made ready to fine-tune on.

    python -m duplex.training.prepare --data data.jsonl --out prepared

The layout is that of moshi-finetune: `data.jsonl` (or .jsonl.gz) has lines {"path": "talk.wav"},
paths are relative to it; a folder of recordings does as well. Every recording has two channels,
left the agent, right the user. Beside it may stand a .json with

    {"alignments": [["Hello", [0.3, 0.6], "SPEAKER_MAIN"], ["hi there", null, "USER"], ...]}

SPEAKER_MAIN is the agent, every other speaker the user; other labels belong to the channel that
they sound in. What stands in place of a word may be a whole turn, and its times may be null: the
words then get theirs by forced alignment. {"segments": [{"text", "start", "end", "speaker"}, ...]}
is read too, a .txt with lines "agent: Hello" or Audacity's labels, .srt and .vtt. {"text": "..."}
alone is all that the user says, and teaches hearing only. What a side says and no label tells, the
agent's ears hear. Text that does not fit its channel is named and left out, as all that cannot be
used. report.html shows it. What libsndfile does not read (m4a, webm) ffmpeg does.
"""

import argparse
import sys

import torch

from duplex.training.common.endings import in_a_sentence
from duplex.training.common.options import count_above_zero, folder_to_make
from duplex.training.conversations.listener import load_listener
from duplex.training.conversations.options import add_listening, data_path
from duplex.training.conversations.preparing import prepare
from duplex.training.conversations.report import write_report


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=data_path,
        required=True,
        metavar="PATH",
        help="JSON lines with the path of each conversation, or a folder of recordings",
    )
    add_listening(parser)
    parser.add_argument(
        "--threads", type=count_above_zero, default=1, help="of the processor (default 1)"
    )
    parser.add_argument("--out", type=folder_to_make, required=True, help="folder to make")
    args = parser.parse_args(arguments)
    if (args.out / "READY").exists():
        parser.error(f"{args.out} holds a pool already; name another folder")
    return args


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    # More threads than free cores take twenty times as long.
    torch.set_num_threads(args.threads)
    with in_a_sentence(args.out):
        found = prepare(args.data, args.out, load_listener(args))
        report = write_report(args.out)
    print(
        f"{found.taken} conversations prepared, {found.minutes:.1f} minutes; "
        f"{found.left_out} skipped; see {report}"
    )
    if found.taken:
        print(f"next: python -m duplex.training.duplex --recordings {args.out} --out RUN")
    return 0 if found.taken else 2


if __name__ == "__main__":
    sys.exit(main())
