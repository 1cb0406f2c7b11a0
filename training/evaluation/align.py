"""Measure how well speech and text meet in the LM, before and after runs of duplex.training.align.

    python -m duplex.training.evaluate align --run runs/align_supervised --run runs/align_all \\
        --out runs/evaluation

The runs must have begun alike; everything else is in their run.json. The utterances are those of
the pools' `valid` split. Each run's folder gets clouds.png: mean ticks and mean word embeddings of
every utterance, before and after, along the two main directions of all four clouds.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from duplex.checkpoint import load_tensors
from duplex.model.lm import LM
from duplex.model.tokens import FIRST_TEXT_ID, Grammar
from duplex.training.common.greedy import greedy
from duplex.training.data.normalize import word_errors
from duplex.training.objectives.alignment import (
    Answers,
    consistency,
    frozen_copy,
    mean_embeddings,
    project_ticks,
)
from duplex.training.objectives.next_symbol import symbol_losses
from duplex.training.scenes.example import Tokenizer
from duplex.training.scenes.setup import VALID_SEED, build_lm, build_recognizer
from duplex.training.scenes.utterances import Utterance, UtteranceSource

# Arguments of a run that are paths.
PATHS = ("backbone", "tokenizer", "encoder", "lexicon", "start", "noise")


def run_arguments(folder: Path) -> argparse.Namespace:
    """What a run was started with, from its run.json."""
    path = folder / "run.json"
    told = json.loads(path.read_text()) if path.exists() else {}
    if told.get("program") != "duplex.training.align":
        raise SystemExit(f"{folder} is not the folder of a run of duplex.training.align.")
    found = told["arguments"]
    found |= {name: Path(found[name]) if found[name] else None for name in PATHS}
    return argparse.Namespace(**{**found, "pool": [Path(pool) for pool in found["pool"]]})


def distances(speech: torch.Tensor, text: torch.Tensor) -> dict:
    """How far two clouds [N, D] are apart, and how often neighbours are the same utterance."""
    clouds = (speech, text)
    spread = torch.cat([(cloud - cloud.mean(0)).norm(dim=-1) for cloud in clouds]).mean()
    gap = (speech.mean(0) - text.mean(0)).norm() / spread
    found = {"gap between centroids, in mean spreads": gap}
    near = F.normalize(speech, dim=-1) @ F.normalize(text, dim=-1).T
    for name, scores in (("text by speech", near), ("speech by text", near.T)):
        rank = (scores > scores.diagonal()[:, None]).sum(1)
        found |= {f"recall at {k}, {name}": (rank < k).float().mean() for k in (1, 10)}
    return {name: round(float(value), 3) for name, value in found.items()}


@torch.no_grad()
def measure(
    lm: LM,
    answers: Answers,
    batch: list[Utterance],
    decode: Callable[[list[int]], str],
    group_size: int = 16,
) -> dict:
    """All that the LM must run for; decode: tokens -> text."""
    divergence = 0.0
    right = []
    wanted = []
    heard = []
    for begin in range(0, len(batch), group_size):
        group = batch[begin : begin + group_size]
        kl = consistency(lm, answers.frozen, group, answers(group), answers.prompt)
        divergence += len(group) * float(kl)
        examples = [utterance.example for utterance in group]
        _, correct, kinds = symbol_losses(lm, examples, np.random.default_rng(0), 1.0)
        right.append(correct.numpy()[kinds == "hearing"])
        prompts = [lm.embed(torch.tensor(answers.prompt)) for _ in group]
        ticks = [project_ticks(lm, utterance) for utterance in group]
        for utterance, said in zip(group, greedy(lm, prompts, ticks, Grammar(), 3), strict=True):
            wanted.append(decode(utterance.said))
            heard.append(decode([token for token in said if token >= FIRST_TEXT_ID]))
    errors = sum(word_errors(a, b) for a, b in zip(wanted, heard, strict=True))
    words = sum(len(text.split()) for text in wanted)
    wrong = 1 - float(np.concatenate(right).mean())
    return {
        "KL, nats a token of the answer": round(divergence / len(batch), 3),
        "wrong pieces of the transcript, teacher-forced": round(wrong, 3),
        "transcript WER, greedy": round(errors / words, 3),
    }


def plot_clouds(path: Path, pairs: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    """A picture with a panel for each {title: (speech, text)}, clouds [N, D].

    All are drawn along the same two directions, the main ones of all clouds together.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = torch.cat([cloud for pair in pairs.values() for cloud in pair])
    center = points.mean(0)
    directions = torch.linalg.svd(points - center, full_matrices=False).Vh[:2].T  # [D, 2]
    figure = Figure(figsize=(5 * len(pairs), 5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(pairs), sharex=True, sharey=True)
    for axes, (title, pair) in zip(panels, pairs.items(), strict=True):
        for cloud, name in zip(pair, ("speech", "text"), strict=True):
            axes.scatter(*((cloud - center) @ directions).T.numpy(), s=9, alpha=0.6, label=name)
        axes.set_title(title)
        axes.legend()
    figure.savefig(path, dpi=110)


def check_alike(runs: dict[Path, argparse.Namespace]) -> argparse.Namespace:
    """The arguments of the first run; SystemExit where another one did not begin as it did."""
    folders = list(runs)
    first = runs[folders[0]]
    same = (*PATHS, "pool", "scratch", "rank")
    for folder, other in runs.items():
        differing = [name for name in same if getattr(first, name) != getattr(other, name)]
        if differing:
            raise SystemExit(
                f"{folder} did not begin as {folders[0]} did: --{differing[0]} differs."
            )
    return first


@torch.no_grad()
def evaluate_align(
    args: argparse.Namespace,
    matched: int = 300,
    build_lm: Callable[[argparse.Namespace], LM] = build_lm,
) -> dict:
    """`evaluate align`; `matched`: utterances of the clouds, which retrieval chooses among.

    build_lm: from a run's arguments to the LM that it began with.
    """
    if not args.run:
        raise SystemExit(
            "There is nothing to measure: give --run, a folder of duplex.training.align, "
            "once or more."
        )
    runs = {folder: run_arguments(folder) for folder in args.run}
    first = check_alike(runs)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    lm = build_lm(first)
    recognizer = build_recognizer(first)
    tokenizer = Tokenizer(first.tokenizer, recognizer)
    valid = UtteranceSource(first, "valid", tokenizer, recognizer)
    batch = valid.batch(np.random.default_rng(VALID_SEED), matched)
    answers = Answers(args.run[0] / "answers.jsonl", frozen_copy(lm), valid.prompt)

    def decode(tokens: list[int]) -> str:
        return tokenizer.lm.decode(tokens).strip()

    table = {}
    before = None
    for name, folder in [("before", None), *((folder.name, folder) for folder in runs)]:
        if folder:
            lm.load_state_dict(load_tensors(folder), strict=False)
        clouds = mean_embeddings(lm, batch)
        before = before or clouds
        heard = batch[: args.clips]
        table[name] = {
            "utterances matched, heard": [len(batch), len(heard)],
            **distances(*clouds),
            **measure(lm, answers, heard, decode),
        }
        print(json.dumps({name: table[name]}), flush=True)
        if folder:
            plot_clouds(folder / "clouds.png", {"before": before, "after": clouds})
    return table
