"""Train the talker: phones and the voice's codec codes in, a streaming speaker out.

    python -m duplex.training.talker --pool pools/heart --codec runs/codec --out runs/talker --minutes 50

The codec's codes must be final: they are kept beside the run, and a later run goes on where the last one stopped. The
history the network is shown is damaged on purpose, since at run time it hears its own mistakes.
"""

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from duplex.training.common.precision import mixed
from duplex.training.common.run_log import describe_run, log
from duplex.training.data.utterances import Batch, Utterances
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss

from duplex import checkpoint
from duplex.audio import CODEC_FRAME_RATE
from duplex.model.codec import load_codec
from duplex.model.talker import Talker, TalkerConfig

LOG_EVERY_STEPS = 100
RATE_RISE_STEPS = 200
CODE_NOISE = 0.10  # share of the shown codes replaced by random ones
FRAME_NOISE = 0.03  # share of the shown frames replaced as a whole
COARSE = 4  # codebooks that may stand alone
COARSE_ONLY = 0.5  # share of utterances whose history has no more than those
FORGOTTEN = 0.10  # share of utterances that are shown silence up to some frame
DURATION_WEIGHT = 0.5
LAST_CODEBOOK_WEIGHT = 0.3  # the first has 1, those between fall evenly
FINE_SHARE = 0.5  # frames on which the codebooks after the second are trained, drawn anew each step


def show(codes: Tensor, silence: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """The codes [B, F, K] as history: some replaced or left out (-1), some utterances forgotten up to a frame."""
    B, F, K = codes.shape
    noise = torch.rand(B, F, K, generator=generator) < CODE_NOISE
    noise |= torch.rand(B, F, 1, generator=generator) < FRAME_NOISE
    shown = torch.where(noise, torch.randint(size, (B, F, K), generator=generator), codes)
    until = (
        torch.rand(B, generator=generator) * F * (torch.rand(B, generator=generator) < FORGOTTEN)
    ).long()
    shown = torch.where((torch.arange(F) < until[:, None])[..., None], silence, shown)
    coarse = torch.rand(B, 1, 1, generator=generator) < COARSE_ONLY
    return torch.where(coarse & (torch.arange(K) >= COARSE), -1, shown)


@torch.no_grad()
def start_from_codebooks(talker: Talker, codebooks: Tensor) -> None:
    """Entries of codebooks [K, N, D] that sound alike start alike, both as history and as something to predict."""
    K, N, D = codebooks.shape
    spread = torch.linalg.qr(torch.randn(talker.config.code_width, D))[
        0
    ].T  # [D, C], rows orthonormal
    entries = codebooks - codebooks.mean(1, keepdim=True)
    entries = entries / entries.pow(2).mean((1, 2), keepdim=True).sqrt()
    spread = (entries @ spread) * (talker.config.code_width / D) ** 0.5  # [K, N, C] of variance 1
    talker.codes.copy_(0.3 * spread.flatten(0, 1))
    talker.head.outer.copy_(0.5 * talker.config.code_width**-0.5 * spread.transpose(1, 2))


def conditions(talker: Talker, batch: Batch) -> tuple[Tensor, Tensor]:
    """-> conditions of the frames [B, F, C], log durations of the phones [B, P]."""
    phones, log_frames = talker.phone_encoder(batch.phones, batch.lengths, batch.voices)
    index = batch.phone[..., None].expand(-1, -1, phones.shape[-1])
    return talker.condition(phones.gather(1, index), batch.positions), log_frames


def duration_loss(log_frames: Tensor, batch: Batch) -> Tensor:
    """On the logarithm; the first phone is silence of no fixed length."""
    known = torch.arange(batch.phones.shape[1]) < batch.lengths[:, None]
    known[:, 0] = False
    target = batch.frames.clamp(min=0.5).log()
    return smooth_l1_loss(log_frames.float()[known], target[known], beta=0.3)


@dataclass
class Progress:
    step: int = 0
    seconds: float = 0.0  # of training, over all runs
    heard_hours: float = 0.0


class Trainer:
    def __init__(self, config: TalkerConfig, data: Utterances, args: argparse.Namespace):
        torch.manual_seed(args.seed)
        self.talker, self.data, self.args, self.progress = Talker(config), data, args, Progress()
        self.talker.silence_codes.copy_(data.silence)
        start_from_codebooks(self.talker, data.codebooks)
        named = list(self.talker.named_parameters())
        matrices = [
            p for name, p in named if p.ndim > 1 and "codes" not in name and "embedding" not in name
        ]
        others = [p for name, p in named if p.ndim == 1 or "codes" in name or "embedding" in name]
        groups = [
            {"params": matrices, "weight_decay": 0.05},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.98), fused=True)
        weights = torch.linspace(1.0, LAST_CODEBOOK_WEIGHT, config.codebooks)
        self.weights = weights / weights.sum()
        self.sums: dict[str, float] = {}

    def set_rate(self) -> None:
        done = min(1.0, self.progress.seconds / (60 * self.args.minutes))
        rise = min(1.0, (self.progress.step + 1) / RATE_RISE_STEPS)
        for group in self.optimizer.param_groups:
            group["lr"] = (
                self.args.rate * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
            )

    def step(self, batch: Batch) -> None:
        generator = torch.Generator().manual_seed(self.args.seed * 1_000_003 + self.progress.step)
        self.set_rate()
        size = self.talker.config.codebook_size
        with mixed():
            frames, log_frames = conditions(self.talker, batch)
            shown = show(batch.codes, self.data.silence, size, generator)
            code_loss = self.code_loss(batch, shown, frames, generator)
        duration = duration_loss(log_frames, batch)
        loss = code_loss + DURATION_WEIGHT * duration
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.talker.parameters(), 1.0)
        self.optimizer.step()
        self.progress.step += 1
        self.progress.heard_hours += float(batch.inside.sum()) / CODEC_FRAME_RATE / 3600
        for name, value in {
            "code_loss": code_loss,
            "duration_loss": duration,
            "norm": norm,
        }.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach()) / LOG_EVERY_STEPS

    def code_loss(
        self, batch: Batch, shown: Tensor, frames: Tensor, generator: torch.Generator
    ) -> Tensor:
        chosen = batch.inside.flatten().nonzero()[:, 0]
        fine = chosen[torch.rand(len(chosen), generator=generator) < FINE_SHARE]
        inputs = self.talker.head_inputs(batch.codes, shown, frames)  # [B * F, K, C]
        targets = batch.codes.flatten(0, 1)
        loss = 0.0
        for part, books in ((chosen, slice(0, 2)), (fine, slice(2, None))):
            logits = self.talker.head(inputs[part, books].transpose(0, 1), books)  # [k, n, N]
            each = cross_entropy(
                logits.flatten(0, 1).float(), targets[part, books].T.flatten(), reduction="none"
            )
            loss = loss + (each.view(logits.shape[:2]).mean(1) * self.weights[books]).sum()
        return loss

    @torch.no_grad()
    def validate(self, groups: list[list[int]]) -> dict:
        """Accuracy and cross entropy per codebook on undamaged history, and how far durations are off."""
        right = losses = counted = 0
        spans, ours, theirs = [], 0.0, 0.0
        for group in groups:
            batch = self.data.batch(
                group, self.talker.config.patch_frames, np.random.default_rng(0)
            )
            with mixed():
                frames, log_frames = conditions(self.talker, batch)
                logits = self.talker(batch.codes, batch.codes, frames)[
                    :, batch.inside.flatten()
                ].float()
            targets = batch.codes[batch.inside].T  # [K, n]
            right = right + (logits.argmax(-1) == targets).float().sum(1)
            losses = losses + cross_entropy(logits.transpose(1, 2), targets, reduction="none").sum(
                1
            )
            counted += targets.shape[1]
            known = torch.arange(batch.phones.shape[1]) < batch.lengths[:, None]
            known[:, 0] = False
            predicted, true = log_frames.float().exp()[known], batch.frames[known]
            spans.append((predicted - true).abs())
            ours, theirs = ours + float(predicted.sum()), theirs + float(true.sum())
        return {
            "accuracy": [round(v, 3) for v in (right / counted).tolist()],
            "entropy": [round(v, 3) for v in (losses / counted).tolist()],
            "duration_error_frames": round(float(torch.cat(spans).mean()), 3),
            "duration_ratio": round(ours / theirs, 3),
        }

    def report(self, groups: list[list[int]], seconds: float) -> None:
        p = self.progress
        line = {
            "step": p.step,
            "minutes": round(p.seconds / 60, 2),
            "hours": round(p.heard_hours, 2),
        }
        line |= {"s_per_step": round(seconds / LOG_EVERY_STEPS, 3)} | {
            k: round(v, 4) for k, v in self.sums.items()
        }
        line |= self.validate(groups)
        self.sums = {}
        log(self.args.out, line)

    def save(self) -> None:
        """model.safetensors and config.json for readers; training.safetensors to go on from."""
        out, optimizer = self.args.out, {}
        for index, state in self.optimizer.state_dict()["state"].items():
            optimizer |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        checkpoint.save(self.talker.state_dict(), self.talker.config, out)
        model = {f"model.{name}": value for name, value in self.talker.state_dict().items()}
        progress = {"progress": json.dumps(asdict(self.progress))}
        safetensors.torch.save_file(model | optimizer, out / "training.partial", progress)
        os.replace(out / "training.partial", out / "training.safetensors")

    def load(self) -> None:
        path = self.args.out / "training.safetensors"
        with safe_open(path, "pt") as file:
            self.progress = Progress(**json.loads(file.metadata()["progress"]))
        tensors, optimizer = safetensors.torch.load_file(path), self.optimizer.state_dict()
        self.talker.load_state_dict(
            {n[len("model.") :]: v for n, v in tensors.items() if n.startswith("model.")}
        )
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, field = name.split(".")
                optimizer["state"].setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict(optimizer)


def train(trainer: Trainer) -> None:
    args, progress, data = trainer.args, trainer.progress, trainer.data
    valid = data.groups("valid", args.batch_seconds, np.random.default_rng(0))[: args.valid_batches]
    saved, logged = time.monotonic(), progress.seconds
    groups: list[list[int]] = []
    while progress.seconds < 60 * args.minutes:
        began = time.monotonic()
        if not groups:
            rng = np.random.default_rng([args.seed, progress.step])
            groups = data.groups("train", args.batch_seconds, rng)
        trainer.step(data.batch(groups.pop(), trainer.talker.config.patch_frames, rng))
        progress.seconds += time.monotonic() - began
        if progress.step % LOG_EVERY_STEPS == 0:
            trainer.report(valid, progress.seconds - logged)
            logged = progress.seconds
        if time.monotonic() - saved > args.save_every:
            trainer.save()
            saved = time.monotonic()
    trainer.save()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, required=True, help="speech pool of the agent's voice")
    parser.add_argument(
        "--codec",
        required=True,
        help="folder of the codec, its codes final; or encodec_24khz: Meta's",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run; it resumes there"
    )
    parser.add_argument("--minutes", type=float, default=50, help="length of the whole training")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--batch-seconds", type=float, default=24, help="speech per step")
    parser.add_argument("--valid-batches", type=int, default=4, help="batches of the validation")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save-every", type=float, default=180, help="seconds between checkpoints")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    describe_run(args, "duplex.training.talker")
    data = Utterances(args.pool, load_codec(args.codec), args.out)
    print(
        f"{data.hours('train'):.2f} h to train on, {data.hours('valid'):.2f} h to check with",
        flush=True,
    )
    trainer = Trainer(TalkerConfig(), data, args)
    if (args.out / "training.safetensors").exists():
        trainer.load()
    train(trainer)


if __name__ == "__main__":
    main()
