"""Train the talker: phones and the voice's codec codes in, a streaming speaker out.

    python -m duplex.training.talker --pool pools/heart --codec runs/codec --minutes 50 \\
        --out runs/talker

The codec's codes must be final: they are kept beside the run, and a later run goes on where the
last one stopped. The history the network is shown is damaged on purpose, since at run time it hears
its own mistakes.
"""

import argparse
import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss

from duplex.audio import CODEC_FRAME_RATE
from duplex.model.tts.codec import load_codec
from duplex.model.tts.talker import Talker, TalkerConfig
from duplex.training.common import schedule
from duplex.training.common.options import add_minutes, add_run, pool_folder
from duplex.training.common.precision import mixed
from duplex.training.common.run_log import describe_run, log
from duplex.training.common.run_state import RunClock, resume_run, save_run
from duplex.training.data.utterances import EncodedPool, TalkerBatch
from duplex.weights import DEFAULT_AGENT

# Steps from one line in the log to the next.
LOG_STEPS = 100


def damage_history(codes: Tensor, silence: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """The codes [B, F, K] as history for the network.

    10 % of the codes and 3 % of whole frames are random (of `size` codes). A tenth of the
    utterances is silence up to some frame. Of half of them only the first four codebooks are shown,
    which may stand alone; -1 stands for what is left out.
    """
    B, F, K = codes.shape
    noise = torch.rand(B, F, K, generator=generator) < 0.10
    noise |= torch.rand(B, F, 1, generator=generator) < 0.03
    shown = torch.where(noise, torch.randint(size, (B, F, K), generator=generator), codes)
    until = torch.rand(B, generator=generator) * F
    until = (until * (torch.rand(B, generator=generator) < 0.10)).long()
    shown = torch.where((torch.arange(F) < until[:, None])[..., None], silence, shown)
    coarse = torch.rand(B, 1, 1, generator=generator) < 0.5
    return torch.where(coarse & (torch.arange(K) >= 4), -1, shown)


@torch.no_grad()
def start_from_codebooks(talker: Talker, codebooks: Tensor) -> None:
    """Let codes that sound alike start alike, both as history and as something to predict.

    codebooks [K, N, D]: the codec's entries.
    """
    D = codebooks.shape[-1]
    width = talker.config.code_width
    spread = torch.linalg.qr(torch.randn(width, D))[0].T  # [D, C], rows orthonormal
    entries = codebooks - codebooks.mean(1, keepdim=True)
    entries = entries / entries.pow(2).mean((1, 2), keepdim=True).sqrt()
    spread = (entries @ spread) * (width / D) ** 0.5  # [K, N, C] of variance 1
    talker.codes.copy_(0.3 * spread.flatten(0, 1))
    talker.head.outer.copy_(0.5 * width**-0.5 * spread.transpose(1, 2))


def frame_conditions(talker: Talker, batch: TalkerBatch) -> tuple[Tensor, Tensor]:
    """Conditions of the frames [B, F, C], log durations of the phones [B, P]."""
    phones, log_frames = talker.phone_encoder(batch.phones, batch.lengths, batch.voices)
    index = batch.phone[..., None].expand(-1, -1, phones.shape[-1])
    return talker.condition(phones.gather(1, index), batch.positions), log_frames


def timed_phones(batch: TalkerBatch) -> Tensor:
    """bool [B, P]: phones whose duration is learned; the first is silence of no fixed length."""
    timed = torch.arange(batch.phones.shape[1]) < batch.lengths[:, None]
    timed[:, 0] = False
    return timed


def duration_loss(log_frames: Tensor, batch: TalkerBatch) -> Tensor:
    """Distance of the log durations [B, P]."""
    timed = timed_phones(batch)
    target = batch.frames.clamp(min=0.5).log()
    return smooth_l1_loss(log_frames.float()[timed], target[timed], beta=0.3)


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    seconds: float = 0.0  # Of training, over all restarts.
    heard_hours: float = 0.0


class Trainer:
    """The talker, its optimizer and how far it has come."""

    def __init__(self, config: TalkerConfig, data: EncodedPool, args: argparse.Namespace):
        torch.manual_seed(args.seed)
        self.talker = Talker(config)
        self.data = data
        self.args = args
        self.talker.silence_codes.copy_(data.silence)
        start_from_codebooks(self.talker, data.codebooks)
        matrices = []
        others = []
        for name, parameter in self.talker.named_parameters():
            is_table = "codes" in name or "embedding" in name
            (others if is_table or parameter.ndim == 1 else matrices).append(parameter)
        groups = [
            {"params": matrices, "peak": args.lr, "weight_decay": 0.05},
            {"params": others, "peak": args.lr, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
        fresh = asdict(Progress())
        self.progress = Progress(**resume_run(args.out, self.talker, self.optimizer, fresh))
        # The first codebook counts most, the last 0.3 of it; those between fall evenly.
        weights = torch.linspace(1.0, 0.3, config.codebooks)
        self.weights = weights / weights.sum()
        self.sums: dict[str, float] = {}

    def step(self, batch: TalkerBatch) -> None:
        """One update."""
        progress = self.progress
        generator = torch.Generator().manual_seed(self.args.seed * 1_000_003 + progress.step)
        done = progress.seconds / (60 * self.args.minutes)
        factor = schedule.warm_up(progress.step + 1, 200) * schedule.cosine(done, floor=0.02)
        schedule.set_learning_rate(self.optimizer, factor)
        size = self.talker.config.codebook_size
        with mixed():
            conditions, log_frames = frame_conditions(self.talker, batch)
            shown = damage_history(batch.codes, self.data.silence, size, generator)
            code_loss = self.code_loss(batch, shown, conditions, generator)
        duration = duration_loss(log_frames, batch)
        loss = code_loss + 0.5 * duration
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.talker.parameters(), 1.0)
        self.optimizer.step()
        progress.step += 1
        progress.heard_hours += float(batch.inside.sum()) / CODEC_FRAME_RATE / 3600
        terms = {"code_loss": code_loss, "duration_loss": duration, "norm": norm}
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach()) / LOG_STEPS

    def code_loss(
        self, batch: TalkerBatch, shown: Tensor, conditions: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Cross entropy of the codes, given the history `shown` [B, F, K].

        The codebooks after the second are trained on half of the frames, drawn anew each step.
        """
        chosen = batch.inside.flatten().nonzero()[:, 0]
        fine = chosen[torch.rand(len(chosen), generator=generator) < 0.5]
        inputs = self.talker.head_inputs(batch.codes, shown, conditions)  # [B * F, K, C]
        targets = batch.codes.flatten(0, 1)
        loss = 0.0
        for part, books in ((chosen, slice(0, 2)), (fine, slice(2, None))):
            logits = self.talker.head(inputs[part, books].transpose(0, 1), books)  # [k, n, N]
            wanted = targets[part, books].T.flatten()
            each = cross_entropy(logits.flatten(0, 1).float(), wanted, reduction="none")
            loss = loss + (each.view(logits.shape[:2]).mean(1) * self.weights[books]).sum()
        return loss

    @torch.no_grad()
    def validate(self, groups: list[list[int]]) -> dict:
        """Accuracy and cross entropy of each codebook on undamaged history, errors of durations."""
        right = losses = count = 0
        predicted = []
        true = []
        for group in groups:
            rng = np.random.default_rng(0)
            batch = self.data.batch(group, self.talker.config.patch_frames, rng)
            with mixed():
                conditions, log_frames = frame_conditions(self.talker, batch)
                logits = self.talker(batch.codes, batch.codes, conditions)
            logits = logits[:, batch.inside.flatten()].float()
            targets = batch.codes[batch.inside].T  # [K, n]
            right = right + (logits.argmax(-1) == targets).float().sum(1)
            each = cross_entropy(logits.transpose(1, 2), targets, reduction="none")
            losses = losses + each.sum(1)
            count += targets.shape[1]
            timed = timed_phones(batch)
            predicted.append(log_frames.float().exp()[timed])
            true.append(batch.frames[timed])
        ours = torch.cat(predicted)
        theirs = torch.cat(true)
        return {
            "accuracy": [round(value, 3) for value in (right / count).tolist()],
            "entropy": [round(value, 3) for value in (losses / count).tolist()],
            "duration_error_frames": round(float((ours - theirs).abs().mean()), 3),
            "duration_ratio": round(float(ours.sum() / theirs.sum()), 3),
        }

    def report(self, groups: list[list[int]], seconds: float) -> None:
        """A line in the log; `seconds` of training have passed since the last one."""
        line = {
            "step": self.progress.step,
            "minutes": round(self.progress.seconds / 60, 2),
            "hours": round(self.progress.heard_hours, 2),
            "s_per_step": round(seconds / LOG_STEPS, 3),
        }
        line |= {name: round(value, 4) for name, value in self.sums.items()}
        log(self.args.out, line | self.validate(groups))
        self.sums = {}

    def save(self) -> None:
        """Write the run."""
        progress = asdict(self.progress)
        talker = self.talker
        save_run(self.args.out, talker.state_dict(), talker.config, self.optimizer, progress)


def train(trainer: Trainer) -> None:
    """Learn until the time is over; only the steps themselves count."""
    args = trainer.args
    progress = trainer.progress
    data = trainer.data
    valid = data.groups("valid", args.batch_seconds, np.random.default_rng(0))
    valid = valid[: args.valid_batches]
    clock = RunClock(progress.seconds)
    logged = progress.seconds
    groups: list[list[int]] = []
    while progress.seconds < 60 * args.minutes:
        began = time.monotonic()
        if not groups:
            rng = np.random.default_rng([args.seed, progress.step])
            groups = data.groups("train", args.batch_seconds, rng)
        trainer.step(data.batch(groups.pop(), trainer.talker.config.patch_frames, rng))
        progress.seconds += time.monotonic() - began
        if progress.step % LOG_STEPS == 0:
            trainer.report(valid, progress.seconds - logged)
            logged = progress.seconds
        if clock.minutes_unsaved() > args.save_minutes:
            trainer.save()
            clock.mark_saved()
    trainer.save()


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pool",
        type=pool_folder,
        required=True,
        metavar="FOLDER",
        help="speech pool of the agent's voice",
    )
    parser.add_argument(
        "--codec",
        default=DEFAULT_AGENT / "codec",
        help="folder of the codec, its codes final; or encodec_24khz: Meta's "
        "(default: the shipped agent's)",
    )
    add_minutes(parser, 50.0)
    add_run(parser, lr=1e-3)
    parser.add_argument(
        "--batch-seconds", type=float, default=24, help="speech in a step (default 24)"
    )
    parser.add_argument(
        "--valid-batches", type=int, default=4, help="batches of the validation (default 4)"
    )
    return parser.parse_args(arguments)


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    try:
        codec = load_codec(args.codec)
    except OSError as error:
        raise SystemExit(f"There is no codec in {args.codec} ({error}).") from None
    describe_run(args, "duplex.training.talker")
    data = EncodedPool(args.pool, codec, args.out)
    train_h = data.hours("train")
    valid_h = data.hours("valid")
    if not train_h:
        raise SystemExit(f"{args.pool} has no phones: duplex.training.speech --voices heart does.")
    print(f"{train_h:.2f} h to train on, {valid_h:.2f} h to check with", flush=True)
    train(Trainer(TalkerConfig(), data, args))


if __name__ == "__main__":
    main()
