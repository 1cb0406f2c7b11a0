"""Fit the addressee head: states of the frozen LM in, log-odds that a turn is for the agent out.

    python -m duplex.training.addressee --data DATA --corpus corpus/dialogues.jsonl \\
        --out runs/addressee

The LM reads scenes without sound, in which people talk to it and to each other, assent while it
speaks, and interrupt (duplex.training.scenes.addressed). What it knows at each decision is kept,
and the head learns from it whether the turn is for the agent. The LM is only run: a scene takes a
third of a second of a core, the fit a minute. No text of texts/assent.txt and
texts/interruptions.txt is in the scenes.
"""

import argparse
import random
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from duplex import checkpoint
from duplex.agent import addressee
from duplex.agent.loader import LoadOptions, load_lm
from duplex.model.addressee import AddresseeConfig, AddresseeHead
from duplex.model.asr.lexicon import load_lexicon
from duplex.model.lm import LM
from duplex.model.tokens import ASIDE, USER_END
from duplex.training.common.precision import fast_dtype
from duplex.training.common.run_log import describe_run
from duplex.training.objectives.next_symbol import collate_examples
from duplex.training.scenes.addressed import Decision, draw, part_of, with_overlaps
from duplex.training.scenes.example import Example, ExampleMaker, Tokenizer
from duplex.training.scenes.scene import read_dialogues
from duplex.training.text.overlaps import read_overlaps
from duplex.weights import DEFAULT_AGENT

# Positions of a scene at most, and scenes that the LM reads together.
MAX_POSITIONS = 420
TOGETHER = 6
# Share of the scenes with several people or a television.
COMPANY_SHARE = 0.5


class States(NamedTuple):
    """What was known at N decisions."""

    hidden: torch.Tensor  # float16 [N, D]
    known: torch.Tensor  # float32 [N, K]
    is_for_agent: torch.Tensor  # bool [N]
    own: torch.Tensor  # float32 [N] the LM's own log-odds at the end of a turn
    turn: torch.Tensor  # int64 [N] decisions of one turn have one number


def draw_scenes(args: argparse.Namespace, split: str, count: int):
    """Yields `count` examples with their decisions."""
    dialogues = read_dialogues(args.corpus, split)
    company = [one for one in dialogues if one["kind"] == "company"]
    several = [one for one in dialogues if sum(t["role"] == "user" for t in one["turns"]) > 1]
    texts = read_overlaps(args.data)
    lexicon = load_lexicon(args.agent / "lexicon")
    tokenizer = Tokenizer(args.agent, SimpleNamespace(lexicon=lexicon))
    maker = ExampleMaker(tokenizer, None, [], residual=False)
    number = 0
    while count:
        number += 1
        rng = random.Random(f"{args.seed} {split} {number}")
        dialogue = rng.choice(company if company and rng.random() < COMPANY_SHARE else several)
        turns = with_overlaps(part_of(dialogue["turns"], rng), *texts, rng)
        drawn = draw(turns, maker, np.random.default_rng(rng.getrandbits(60)))
        if drawn is not None and drawn[1] and len(drawn[0].sequence.token) <= MAX_POSITIONS:
            count -= 1
            yield drawn


def read_states(lm: LM, scenes) -> States:
    """What the LM knows at the decisions of scenes."""
    found: list[States] = []
    waiting: list[tuple[Example, list[Decision]]] = []
    turns = 0
    for scene in scenes:
        waiting.append(scene)
        if len(waiting) == 4 * TOGETHER:
            waiting.sort(key=lambda one: len(one[0].sequence.token))
            while waiting:
                batch, waiting = waiting[:TOGETHER], waiting[TOGETHER:]
                found += read_batch(lm, batch, turns)
                turns += sum(decisions[-1].turn + 1 for _, decisions in batch)
            print(f"{turns} turns", flush=True)
    if waiting:
        found += read_batch(lm, waiting, turns)
    return States(*(torch.cat(parts) for parts in zip(*found, strict=True)))


@torch.inference_mode()
def read_batch(lm: LM, batch: list[tuple[Example, list[Decision]]], first: int) -> list[States]:
    """The states of each scene of a batch; first: the number of its first turn."""
    x, positions, visible, _ = collate_examples(lm, [example for example, _ in batch])
    states = lm(x, positions, visible)
    found = []
    for hidden, (_, decisions) in zip(states, batch, strict=True):
        hidden = hidden[[one.position for one in decisions]]
        scores = lm.logits(hidden, text=False)
        known = torch.stack([addressee.known(one.seen) for one in decisions])
        labels = torch.tensor([one.is_for_agent for one in decisions])
        turn = torch.tensor([first + one.turn for one in decisions])
        own = scores[:, USER_END] - scores[:, ASIDE]
        found.append(States(hidden.half(), known, labels, own, turn))
        first += decisions[-1].turn + 1
    return found


def fit(head: AddresseeHead, states: States, args: argparse.Namespace) -> None:
    """Cross entropy; each turn counts the same, however many decisions it has."""
    generator = torch.Generator().manual_seed(args.seed)
    _, place, count = states.turn.unique(return_inverse=True, return_counts=True)
    weight = count[place].float().rsqrt()
    optimizer = torch.optim.AdamW(head.parameters(), args.lr, weight_decay=args.decay)
    head.train()
    steps = args.epochs * len(weight) // args.batch
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = args.lr * (1 - step / steps)
        rows = torch.randint(len(weight), (args.batch,), generator=generator)
        hidden = F.dropout(states.hidden[rows].float(), args.dropout)
        odds = head(hidden, states.known[rows])
        wanted = states.is_for_agent[rows].float()
        loss = F.binary_cross_entropy_with_logits(odds, wanted, weight[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.eval()


@torch.inference_mode()
def report(head: AddresseeHead, states: States) -> None:
    """Print how often head and LM are wrong on states, while the agent speaks and while not."""
    odds = head(states.hidden.float(), states.known)
    speaks = states.known[:, list(addressee.KNOWN).index("queued_s")] > 0
    for name, rows in (("speaking", speaks), ("silent", ~speaks)):
        for who, found in (("head", odds[rows]), ("LM", states.own[rows])):
            wanted = states.is_for_agent[rows]
            wrong = ((found > 0) != wanted).float()
            loss = F.binary_cross_entropy_with_logits(found, wanted.float())
            shares = f"{wrong[wanted].mean():.1%} and {wrong[~wanted].mean():.1%}"
            counts = f"{int(wanted.sum())} for the agent and {int((~wanted).sum())} others"
            print(f"{name}, {who}: of {counts} {shares} wrong, loss {loss:.3f}")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="data folder, with text/ in it")
    parser.add_argument("--corpus", type=Path, required=True, help="dialogues.jsonl")
    parser.add_argument("--agent", type=Path, default=DEFAULT_AGENT, help="whose LM is read")
    parser.add_argument("--out", type=Path, required=True, help="folder of the head")
    parser.add_argument("--scenes", type=int, default=1500, help="(default %(default)s)")
    parser.add_argument("--inner", type=int, default=32, help="width (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="(default %(default)s)")
    parser.add_argument("--batch", type=int, default=256, help="(default %(default)s)")
    parser.add_argument("--lr", type=float, default=2e-3, help="(default %(default)s)")
    parser.add_argument("--decay", type=float, default=0.5, help="(default %(default)s)")
    parser.add_argument("--dropout", type=float, default=0.4, help="(default %(default)s)")
    parser.add_argument(
        "--shift",
        type=float,
        default=0.0,
        help="nats for the agent, added at last: not to answer costs more (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, help="(default %(default)s)")
    return parser.parse_args(arguments)


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    describe_run(args, "duplex.training.addressee")
    number_format = str(fast_dtype()).removeprefix("torch.")
    lm = load_lm(args.agent, LoadOptions(dtype=number_format))
    states = read_states(lm, draw_scenes(args, "train", args.scenes))
    valid = read_states(lm, draw_scenes(args, "valid", max(1, args.scenes // 15)))
    head = AddresseeHead(AddresseeConfig(lm.config.width, len(addressee.KNOWN), args.inner))
    head.most.copy_(torch.tensor(list(addressee.KNOWN.values())))
    fit(head, states, args)
    with torch.no_grad():
        head.outer.bias += args.shift
    report(head, valid)
    checkpoint.save(head.state_dict(), head.config, args.out)


if __name__ == "__main__":
    main()
