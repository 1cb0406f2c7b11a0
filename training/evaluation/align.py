"""Measure how well speech and text meet in the LM, at the start and after runs of duplex.training.align that began alike.

    python -m duplex.training.evaluate align --run runs/align_supervised --run runs/align_all --out runs/evaluation

Everything else is in the runs' run.json. The utterances are those of the pools' `valid` split. Each run's folder gets clouds.png:
mean ticks and mean word embeddings of every utterance, before and after, along the two main directions of all four clouds.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
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
from duplex.training.scenes.setup import VALID_SEED, build_lm, build_recognizer
from duplex.training.scenes.source import Tokenizer
from duplex.training.scenes.utterances import Utterance, UtteranceSource
from torch.nn import functional as F

from duplex.checkpoint import load_tensors
from duplex.model.lm import LM
from duplex.model.tokens import FIRST_TEXT_ID, Grammar

MATCHED = 300  # utterances of the clouds: what retrieval chooses among
GROUP = 16
PATHS = ("backbone", "tokenizer", "encoder", "lexicon", "start", "noise")
SAME = (*PATHS, "pool", "scratch", "rank")


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
    """Both clouds [N, D] -> how far apart they are, and how often an utterance's nearest neighbours hold its other form."""
    spread = torch.cat([(cloud - cloud.mean(0)).norm(dim=-1) for cloud in (speech, text)]).mean()
    near = F.normalize(speech, dim=-1) @ F.normalize(text, dim=-1).T
    found = {
        "gap between centroids, in mean spreads": (speech.mean(0) - text.mean(0)).norm() / spread
    }
    for way, scores in (("text by speech", near), ("speech by text", near.T)):
        rank = (scores > scores.diagonal()[:, None]).sum(1)
        found |= {f"recall at {k}, {way}": (rank < k).float().mean() for k in (1, 10)}
    return {name: round(float(value), 3) for name, value in found.items()}


@torch.no_grad()
def measure(lm: LM, answers: Answers, batch: list[Utterance], text_of) -> dict:
    """All that the LM must run for. text_of: tokens -> text."""
    divergence, right, pairs = [], [], []
    for group in (batch[n : n + GROUP] for n in range(0, len(batch), GROUP)):
        divergence.append(
            len(group)
            * float(consistency(lm, answers.frozen, group, answers(group), answers.prompt))
        )
        _, correct, kinds = symbol_losses(
            lm, [u.example for u in group], np.random.default_rng(0), 1.0
        )
        right.append(correct.numpy()[kinds == "hearing"])
        begun = [lm.embed(torch.tensor(answers.prompt)) for _ in group]
        heard = greedy(lm, begun, [project_ticks(lm, u) for u in group], Grammar(), 3)
        for utterance, said in zip(group, heard, strict=True):
            pairs.append(
                (
                    text_of(utterance.said),
                    text_of([token for token in said if token >= FIRST_TEXT_ID]),
                )
            )
    return {
        "KL, nats a token of the answer": round(sum(divergence) / len(batch), 3),
        "wrong pieces of the transcript, teacher-forced": round(
            1 - float(np.concatenate(right).mean()), 3
        ),
        "transcript WER, greedy": round(
            sum(word_errors(*pair) for pair in pairs) / sum(len(a.split()) for a, _ in pairs), 3
        ),
    }


def draw(path: Path, pairs: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    """{title: (speech, text)}, clouds [N, D] -> a picture with one panel each, all along the same two directions."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = torch.cat([cloud for pair in pairs.values() for cloud in pair])
    center = points.mean(0)
    directions = torch.linalg.svd(points - center, full_matrices=False).Vh[:2].T  # [D, 2]
    figure = Figure(figsize=(5 * len(pairs), 5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, pair) in zip(
        figure.subplots(1, len(pairs), sharex=True, sharey=True), pairs.items(), strict=True
    ):
        for cloud, name in zip(pair, ("speech", "text"), strict=True):
            axes.scatter(*((cloud - center) @ directions).T.numpy(), s=9, alpha=0.6, label=name)
        axes.set_title(title)
        axes.legend()
    figure.savefig(path, dpi=110)


@torch.no_grad()
def evaluate_align(args) -> dict:
    if not args.run:
        raise SystemExit(
            "There is nothing to measure: give --run, a folder of duplex.training.align, once or more."
        )
    runs = {folder: run_arguments(folder) for folder in args.run}
    first = runs[args.run[0]]
    for folder, other in runs.items():
        if differing := [name for name in SAME if getattr(first, name) != getattr(other, name)]:
            raise SystemExit(
                f"{folder} did not begin as {args.run[0]} did: --{differing[0]} differs."
            )
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    lm = build_lm(first)
    recognizer = build_recognizer(first)
    tokenizer = Tokenizer(first.tokenizer, recognizer)
    valid = UtteranceSource(first, "valid", tokenizer, recognizer)
    batch = valid.batch(np.random.default_rng(VALID_SEED), MATCHED)
    answers = Answers(args.run[0] / "answers.jsonl", frozen_copy(lm), valid.prompt)
    table, start = {}, None
    for name, folder in [("before", None), *((folder.name, folder) for folder in runs)]:
        if folder:
            lm.load_state_dict(load_tensors(folder), strict=False)
        now = mean_embeddings(lm, batch)
        start = start or now
        heard = measure(
            lm, answers, batch[: args.clips], lambda tokens: tokenizer.lm.decode(tokens).strip()
        )
        table[name] = {
            "utterances matched, heard": [len(batch), len(batch[: args.clips])],
            **distances(*now),
            **heard,
        }
        print(json.dumps({name: table[name]}), flush=True)
        if folder:
            draw(folder / "clouds.png", {"before": start, "after": now})
    return table
