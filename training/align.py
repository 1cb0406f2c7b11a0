"""Draw speech and text together in the LM: what is heard must mean to it what the same words mean when it reads them.

    python -m duplex.training.align --objectives supervised contrastive consistency --pool pools/user --start duplex/pretrained/lm \\
        --encoder duplex/pretrained/encoder --lexicon duplex/pretrained/lexicon --tokenizer duplex/pretrained --backbone SmolLM2.gguf \\
        --steps 600 --out runs/align_all

Three objectives on the utterances of speech pools, each with a weight if wanted (`contrastive=0.5`):

- supervised: the streaming transcript in the token grammar, as in duplex.training.duplex;
- contrastive: at the LM's input the mean of an utterance's ticks is nearest to the mean of its own words' embeddings (InfoNCE over
  the batch), and a small classifier that tells speech from text is deceived through a gradient-reversal layer (Sofer et al.,
  Interspeech 2025, "Pull It Together"). It can move only the projector's residual and the blank;
- consistency: the LM as it was when the run began answers the text; read from the speech alone, without a transcript, the
  same answer must have the same distributions (Kullback-Leibler divergence, position by position).

A batch is decided by seed and step alone, so runs that differ in their objectives see the same data. Each alone and all together:

    for o in supervised contrastive consistency "supervised contrastive consistency"; do
        python -m duplex.training.align --objectives $o --out "runs/align_$(echo $o | tr ' ' _)" ...  # the rest as above
    done
    python -m duplex.training.evaluate align --run runs/align_supervised --run runs/align_contrastive ...

The last command prints every measure at the start and after each run, and draws both clouds into each run's clouds.png.
A run's folder is what duplex.training.duplex takes as `--start`.
"""

import argparse
import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from duplex.training.common.greedy import greedy
from duplex.training.common.precision import mixed
from duplex.training.common.run_log import describe_run, log
from duplex.training.common.run_state import has_run, resume_run, save_run
from duplex.training.data.augment import active_power, augment, load_noise
from duplex.training.data.normalize import heard_form
from duplex.training.data.pool import Pool
from duplex.training.duplex import (
    NEXT_KEPT,
    SAVE_SECONDS,
    VALID_SEED,
    Tokenizer,
    add_model_arguments,
    assemble,
    build_ears,
    build_lm,
    losses,
    warm_then_cosine,
    weighted_mean,
)
from duplex.training.scenes.recognition import Ears, listen, pieces, retell
from duplex.training.scenes.sequence import (
    IGNORE,
    INSTRUCTIONS,
    NEVER,
    Scene,
    Sequence,
    UserTurn,
    Word,
    at_time,
    heard_symbols,
    lay_out,
)
from torch import nn
from torch.nn import functional as F

from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.model.backbone import trained
from duplex.model.lm import LM
from duplex.model.tokens import AGENT, USER, USER_END, Grammar

OBJECTIVES = ("supervised", "contrastive", "consistency")
LEAD_IN_S = (0.1, 0.6)  # of silence before an utterance
LATE_TICKS = 16  # after the last word: its words come up to half a second late, </user> 3 ticks after them, with one symbol a tick
LONGEST_S = 8.0  # well inside the LM's window of ticks
ANSWER_TOKENS = 16
REVERSAL = (
    0.3  # of the classifier's gradient: enough to close the gap, too little to move the words
)
RESIDUAL_RATE = 0.05  # of the learning rate: 1536 inputs move one output together, and embeddings are small (0.14)
LOG_STEPS, VALID_STEPS, VALID_BATCHES = 10, 100, 2


@dataclass
class Utterance:
    text: str
    pieces: list[int]  # LM tokens of its words in heard form
    sequence: Sequence  # its ticks and their transcript
    vectors: torch.Tensor  # [T, W] features of the ticks
    heard: list[list[tuple[int, float]]]  # pieces by tick

    @property
    def drawn(self) -> tuple:
        """What duplex.training.duplex calls a drawn scene."""
        return self.sequence, self.vectors, self.heard


class Utterances:
    """One split of the speech pools, made into sequences."""

    def __init__(
        self, folders: list[Path], noise: Path | None, split: str, tokenizer: Tokenizer, ears: Ears
    ):
        self.tokenizer, self.ears, self.noises = (
            tokenizer,
            ears,
            load_noise(noise) if noise else None,
        )
        self.prompt = tokenizer.prompt(INSTRUCTIONS[0])
        self.found = []
        for pool in (Pool(folder, split) for folder in folders):
            fit = (
                i
                for i, e in enumerate(pool.entries)
                if e["words"] and e["samples"] < LONGEST_S * SAMPLE_RATE
            )
            self.found += [(pool, i) for i in fit]

    def make(self, pool: Pool, i: int, rng: np.random.Generator) -> Utterance | None:
        """None where nothing is heard."""
        text, wave, lead_in = pool.entries[i]["text"], pool.wave(i), float(rng.uniform(*LEAD_IN_S))
        words = at_time(
            [Word(heard_form(word), start, end) for word, start, end in pool.entries[i]["words"]],
            lead_in,
        )
        turn = UserTurn([word for word in words if word.text])
        if not turn.words:
            return None
        ticks = int(turn.words[-1].end / TICK_S) + LATE_TICKS
        channel, at = np.zeros(ticks * TICK_SAMPLES, np.float32), int(lead_in * SAMPLE_RATE)
        channel[at : at + len(wave)] = wave[: len(channel) - at]
        if self.noises:
            channel = augment(channel, active_power(channel), self.noises, rng)
        vectors, heard = listen(self.ears, channel)
        said = [piece for word in turn.words for piece in self.tokenizer.spell(word.text)]
        scene = Scene((ticks + 0.5) * TICK_S, [turn])
        due = retell(scene, heard, self.tokenizer.spell)
        if not due:
            return None
        cap = int(rng.choice([1, 1, 2, 3]))
        sequence = lay_out(
            scene,
            heard_symbols(scene, due, self.tokenizer.spell),
            self.prompt,
            self.tokenizer.encode,
            cap,
        )
        ends = np.flatnonzero(sequence.token == USER_END)
        if not len(ends):
            return None
        sequence = Sequence(*(array[: ends[0] + 1] for array in vars(sequence).values()))
        sequence.label[-1] = IGNORE  # what comes now is the answer, which nobody wrote
        kept = int(sequence.tick[-1]) + 1
        return Utterance(
            text, said, sequence, vectors[:kept], pieces(heard[:kept], self.tokenizer.spell)
        )

    def batch(self, rng: np.random.Generator, count: int) -> list[Utterance]:
        """Up to `count` utterances, no text twice: another voice with the same words is no counter-example."""
        made, texts = [], set()
        for n in rng.permutation(len(self.found)):
            pool, i = self.found[n]
            if len(made) == count:
                break
            if pool.entries[i]["text"] not in texts and (utterance := self.make(pool, i, rng)):
                made.append(utterance)
                texts.add(utterance.text)
        if len(made) < 2:
            raise SystemExit(
                "Fewer than two utterances of different texts are heard: do the pools hold speech?"
            )
        return made


class Heads(nn.Module):
    """What only training needs: the contrast's temperature and the judge of speech and text."""

    def __init__(self, width: int):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.judge = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, 1))


def reverse(x: torch.Tensor, strength: float) -> torch.Tensor:
    """x itself, but the gradient comes back times -strength (Ganin and Lempitsky, 2015)."""
    return x.detach() * (1 + strength) - x * strength


def heard_vectors(lm: LM, utterance: Utterance) -> torch.Tensor:
    """The ticks as the LM meets them [T, D]."""
    return lm.project(utterance.vectors, utterance.heard)


def clouds(lm: LM, batch: list[Utterance]) -> tuple[torch.Tensor, torch.Tensor]:
    """-> mean tick, mean embedding of the words, of every utterance, both [B, D] float32."""
    speech = torch.stack([heard_vectors(lm, utterance).float().mean(0) for utterance in batch])
    return speech, torch.stack(
        [lm.embed(torch.tensor(utterance.pieces)).float().mean(0) for utterance in batch]
    )


def contrastive(heads: Heads, speech: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Both clouds [B, D] -> InfoNCE both ways, and the judge's cross entropy, which speech tries to raise."""
    scores = (
        heads.log_scale.exp().clamp(max=100)
        * F.normalize(speech, dim=-1)
        @ F.normalize(text, dim=-1).T
    )
    own = torch.arange(len(speech))
    told_apart = heads.judge(reverse(torch.cat([speech, text]), REVERSAL) / text.std().detach())[
        :, 0
    ]
    is_speech = torch.cat([torch.ones(len(speech)), torch.zeros(len(text))])
    contrast = (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2
    return contrast + F.binary_cross_entropy_with_logits(told_apart, is_speech)


def frozen_copy(lm: LM) -> LM:
    """The LM as it is now. The backbone's weights, most of it, are shared."""
    shared = {
        id(parameter): parameter for parameter in lm.parameters() if not parameter.requires_grad
    }
    return copy.deepcopy(lm, shared).requires_grad_(False)


def asked(prompt: list[int], user: list[int], answer: list[int]) -> Sequence:
    """prompt <user> user </user> <agent> answer; `user` are tokens, or -1 for each tick. Labels are the answer's tokens."""
    token = np.array([*prompt, USER, *user, USER_END, AGENT, *answer[:-1]])
    label = np.full(len(token), IGNORE)
    label[-len(answer) :] = answer
    return Sequence(
        token, np.maximum(np.cumsum(token < 0) - 1, 0), label, np.full(len(token), NEVER)
    )


def answer_scores(lm: LM, drawn: list) -> torch.Tensor:
    """Sequences of `asked` -> log-probabilities at all their labels [N, V]."""
    x, positions, visible, labels = assemble(lm, drawn)
    with mixed(x.device.type):
        return lm.logits(lm(x, positions, visible)[labels != IGNORE]).log_softmax(-1)


def consistency(
    lm: LM, frozen: LM, batch: list[Utterance], answers: list[list[int]], prompt: list[int]
) -> torch.Tensor:
    """Mean divergence of the answers' distributions: from `frozen` reading the text to `lm` reading the speech."""
    read = [
        (asked(prompt, u.pieces, answer), None, [[]])
        for u, answer in zip(batch, answers, strict=True)
    ]
    heard = [
        (asked(prompt, [-1] * len(u.vectors), a), u.vectors, u.heard)
        for u, a in zip(batch, answers, strict=True)
    ]
    with torch.no_grad():
        wanted = answer_scores(frozen, read)
    return F.kl_div(answer_scores(lm, heard), wanted, reduction="batchmean", log_target=True)


class Answers:
    """The frozen LM's own short answers to texts, kept in a file: making one takes longer than learning from it."""

    def __init__(self, path: Path, frozen: LM, prompt: list[int]):
        self.path, self.frozen, self.prompt = path, frozen, prompt
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.known = {row["text"]: row["answer"] for row in rows}

    def __call__(self, batch: list[Utterance]) -> list[list[int]]:
        """-> the tokens of every answer, the last is <end> if there was room for it."""
        if new := [u for u in batch if u.text not in self.known]:
            begun = [
                self.frozen.embed(torch.tensor([*self.prompt, USER, *u.pieces, USER_END, AGENT]))
                for u in new
            ]
            made = greedy(self.frozen, begun, [], Grammar(AGENT, agent_open=True), ANSWER_TOKENS)
            rows = [{"text": u.text, "answer": answer} for u, answer in zip(new, made, strict=True)]
            self.known.update((row["text"], row["answer"]) for row in rows)
            with open(self.path, "a") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows))
        return [self.known[u.text] for u in batch]


def objective_losses(
    names, lm: LM, heads: Heads, answers: Answers, batch: list[Utterance], rng: np.random.Generator
) -> dict:
    """{name: loss} of the objectives that are on; of the others nothing is computed."""
    found = {}
    if "supervised" in names:
        loss, _, kinds = losses(lm, [u.drawn for u in batch], rng, NEXT_KEPT)
        found["supervised"] = weighted_mean(loss, kinds)
    if "contrastive" in names:
        found["contrastive"] = contrastive(heads, *clouds(lm, batch))
    if "consistency" in names:
        found["consistency"] = consistency(
            lm, answers.frozen, batch, answers(batch), answers.prompt
        )
    return found


def train(
    args, lm: LM, heads: Heads, answers: Answers, source: Utterances, valid: Utterances
) -> None:
    lm.alignment = (
        heads  # saved and resumed with the rest; an agent that loads the folder passes over them
    )
    named = [(name, p) for name, p in lm.named_parameters() if p.requires_grad]
    slow = [p for name, p in named if name.startswith("residual.")]
    groups = [
        {"params": [p for name, p in named if not name.startswith("residual.")]},
        {"params": slow},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0)
    progress = (
        resume_run(args.out, lm, optimizer, strict=False)
        if has_run(args.out)
        else {"step": 0, "seconds": 0.0}
    )
    begun, saved, recent = time.time() - progress["seconds"], time.time(), []
    weights = dict(args.objectives)
    while progress["step"] < args.steps:
        rate = args.lr * warm_then_cosine(progress["step"] + 1, progress["step"] / args.steps)
        for group, share in zip(optimizer.param_groups, (1.0, RESIDUAL_RATE), strict=True):
            group["lr"] = rate * share
        now = progress["step"] = progress["step"] + 1
        batch = source.batch(np.random.default_rng([args.seed, now]), args.utterances)
        found = objective_losses(
            weights, lm, heads, answers, batch, np.random.default_rng([args.seed, now, 1])
        )
        sum(weights[name] * loss for name, loss in found.items()).backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent.append({name: loss.item() for name, loss in found.items()})
        if now % LOG_STEPS == 0 or now == args.steps:
            line = {
                "step": now,
                "minutes": round((time.time() - begun) / 60, 1),
                "train": means(recent),
            }
            recent = []
            if valid.found and (now % VALID_STEPS == 0 or now == args.steps):
                line["valid"] = validate(weights, lm, heads, answers, valid, args.utterances)
            log(args.out, line)
        if time.time() - saved > SAVE_SECONDS or now == args.steps:
            saved = time.time()
            save_run(
                args.out,
                trained(lm),
                lm.config,
                optimizer,
                {**progress, "seconds": time.time() - begun},
            )


def means(rows: list[dict]) -> dict:
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


@torch.no_grad()
def validate(names, lm: LM, heads: Heads, answers: Answers, valid: Utterances, count: int) -> dict:
    rng = np.random.default_rng(VALID_SEED)
    found = [
        objective_losses(names, lm, heads, answers, valid.batch(rng, count), rng)
        for _ in range(VALID_BATCHES)
    ]
    return means([{name: loss.item() for name, loss in row.items()} for row in found])


def objective(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    if name not in OBJECTIVES:
        raise argparse.ArgumentTypeError(
            f"there is no objective {name!r}, only {', '.join(OBJECTIVES)}"
        )
    try:
        value = float(weight or 1.0)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"the weight of {name} must be a number above zero, not {weight!r}; leave out what is off"
        )
    return name, value


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_model_arguments(parser)
    everything = [(name, 1.0) for name in OBJECTIVES]
    parser.add_argument(
        "--objectives", type=objective, nargs="+", default=everything, metavar="NAME[=WEIGHT]"
    )
    parser.add_argument(
        "--pool",
        type=Path,
        action="append",
        required=True,
        help="speech pool with word times, repeatable",
    )
    parser.add_argument(
        "--noise",
        type=Path,
        help="data folder whose audio.jsonl lists noises; without it the sound stays clean",
    )
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument(
        "--utterances",
        type=int,
        default=12,
        help="in a batch: each is a counter-example for the others",
    )
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run; a run resumes there"
    )
    args = parser.parse_args(arguments)
    names = [name for name, _ in args.objectives]
    if len(set(names)) < len(names):
        parser.error(f"an objective is named twice: {' '.join(names)}")
    if args.steps < 1 or args.utterances < 2:
        parser.error(
            f"a run has at least one step of two utterances, not {args.steps} of {args.utterances}"
        )
    for folder in args.pool:
        if not (folder / "index.jsonl").exists():
            parser.error(f"{folder} is not a speech pool: it has no index.jsonl")
    return args


def run(args, lm: LM, ears: Ears) -> None:
    tokenizer = Tokenizer(args.tokenizer, ears)
    source, valid = (
        Utterances(args.pool, args.noise, split, tokenizer, ears) for split in ("train", "valid")
    )
    args.out.mkdir(parents=True, exist_ok=True)
    describe_run(args, "duplex.training.align")
    answers = Answers(args.out / "answers.jsonl", frozen_copy(lm), source.prompt)
    train(args, lm, Heads(lm.config.width), answers, source, valid)


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    run(args, build_lm(args), build_ears(args))


if __name__ == "__main__":
    main()
