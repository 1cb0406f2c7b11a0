"""Options of `duplex tune`."""

from duplex.training.common.options import (
    add_backbone,
    add_length,
    count_above_zero,
    existing_file,
    folder_to_make,
    number_above_zero,
    share,
)
from duplex.training.conversations.options import add_listening, data_path

DESCRIPTION = """\
Teach the agent your own conversations: it prepares them, sets some aside, trains, and writes an
agent folder with a report of what it learned. The same command goes on where it stopped.

    duplex tune talks/data.jsonl --out my-agent          (or a folder of stereo recordings)
    duplex talk --agent my-agent

Left is the agent, right the user; what a recording needs beside it: python -m
duplex.training.prepare --help. Manners are learned; facts belong into --facts.
"""


def add_arguments(parser) -> None:
    """The options."""
    parser.add_argument(
        "data", type=data_path, metavar="DATA", help="data.jsonl, or a folder of recordings"
    )
    parser.add_argument("--out", type=folder_to_make, required=True, help="agent folder to make")
    parser.add_argument(
        "--facts",
        type=existing_file,
        metavar="FILE",
        help="a fact a line: what the agent keeps in mind, with any mind (instructions.txt)",
    )
    add_length(parser, minutes=60.0)
    parser.add_argument(
        "--patience",
        type=int,
        default=3,
        help="validations in a row without a gain that end it (default %(default)s; 0: none)",
    )
    parser.add_argument(
        "--align",
        type=lambda text: text.split(","),
        default=[],
        metavar="NAME,NAME",
        help="first draw speech and text together: supervised, contrastive, consistency",
    )
    parser.add_argument(
        "--align-steps",
        type=count_above_zero,
        default=100,
        metavar="N",
        help="(default %(default)s)",
    )
    parser.add_argument(
        "--compute", default="cpu", help="torch device: cpu, cuda (default %(default)s)"
    )
    add_shares(parser)
    add_backbone(parser)
    add_listening(parser)
    parser.add_argument("--lr", type=number_above_zero, default=1e-3, help="(default %(default)s)")
    parser.add_argument(
        "--threads", type=count_above_zero, default=1, help="of the processor (default 1)"
    )
    parser.add_argument("--seed", type=int, default=1, help="(default 1)")


def add_shares(parser) -> None:
    """What a batch is made of."""
    parser.add_argument(
        "--text",
        type=share,
        default=0.6,
        help="share without sound: what was said, and rehearsal (default %(default)s)",
    )
    parser.add_argument(
        "--own",
        type=share,
        default=0.5,
        help="share of your own in that (default %(default)s); the rest keeps it from forgetting",
    )
    parser.add_argument(
        "--recorded",
        type=share,
        default=0.5,
        help="share of your recordings in what has ticks (default %(default)s)",
    )
    parser.add_argument(
        "--positions",
        type=count_above_zero,
        help="of a batch (default: 600 on a CPU, 9600 elsewhere)",
    )
