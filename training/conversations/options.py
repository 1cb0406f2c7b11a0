"""Options of what reads recordings."""

import argparse
from pathlib import Path

from duplex.training.common.options import add_part


def data_path(text: str) -> Path:
    """A file or a folder that is there."""
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"there is no file or folder {text}")
    return Path(text)


def add_listening(parser) -> None:
    """The ears, and how labels are read."""
    add_part(parser, "encoder")
    add_part(parser, "lexicon")
    parser.add_argument(
        "--second-pass",
        metavar="MODEL",
        help="Whisper that reads what no label tells: tiny, base, off or a folder (default: tiny "
        "if it can be fetched)",
    )
    parser.add_argument(
        "--agent-label", metavar="NAME", help="the agent's label (default: SPEAKER_MAIN, agent, …)"
    )
    parser.add_argument(
        "--min-fit",
        type=float,
        default=-1.8,
        metavar="NATS",
        help="a phone, by which a text must fit its channel (default %(default)s)",
    )
