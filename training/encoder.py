"""Train the encoder: Whisper tiny.en made causal, hearing phones (CTC).

    python -m duplex.training.encoder --whisper --noise DATA --pool pools/many=0.55 \\
        --pool pools/real=0.30 --pool pools/heart=0.15 --minutes 50 --out runs/encoder

With --whisper the run begins with Whisper's weights, and the original encoder is the teacher for
the first fifth of the time: it hears the clean clip in both directions, the student must match its
last features a few frames later, from disturbed sound. CTC runs from beginning to end. Otherwise
the run goes on from --start, the shipped encoder, without the teacher.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from duplex import checkpoint
from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.model.asr.encoder import BLANK, PHONES, Encoder, EncoderConfig
from duplex.model.asr.features import initial_state, log_mel
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.common import schedule
from duplex.training.common.options import (
    add_minutes,
    add_noise,
    add_run,
    part_folder,
    pool_share,
    whisper_path,
)
from duplex.training.common.precision import mixed
from duplex.training.common.run_log import describe_run, log
from duplex.training.common.run_state import RunClock, has_run, resume_run, save_run
from duplex.training.data.augment import load_noise
from duplex.training.data.clips import Batch, Source, open_source, sample_batches
from duplex.training.data.normalize import phones, word_errors
from duplex.training.data.pool import Pool
from duplex.training.objectives.ctc import is_head, train_step
from duplex.training.objectives.teacher import Teacher, load_whisper
from duplex.training.scenes.recognition import Search, decode_words, join_words, load_search
from duplex.weights import DEFAULT_AGENT


@torch.no_grad()
def begin_from_whisper(path: Path, teacher: Teacher, source: Source) -> Encoder:
    """An encoder with Whisper's weights.

    In place of its positions it has what the teacher's heads make of distance, measured on eight
    clips of 8 s: a few utterances in a row.
    """
    encoder = Encoder(EncoderConfig())
    positions = load_whisper(encoder, path)
    encoder.offset.copy_(positions[:300].mean(0))
    samples = TICK_SAMPLES * 100
    waves = []
    for i in range(0, 64, 8):
        wave = np.concatenate([source.pool.wave(i + k) for k in range(8)])[:samples]
        waves.append(np.resize(wave, samples))
    mel = teacher.mel(torch.from_numpy(np.stack(waves)))
    biases = teacher.attention_by_distance(mel, encoder.config.window)
    for block, bias in zip(encoder.blocks, biases, strict=True):
        block.distance_bias.copy_(bias.clamp(min=-12.0))
    return encoder


def make_optimizer(encoder: Encoder, lr: float, new_lr: float) -> torch.optim.Optimizer:
    """AdamW; `new_lr` is the highest rate of what Whisper has no weights for."""
    new = []
    old = []
    for name, parameter in encoder.named_parameters():
        (new if is_head(name) or "distance_bias" in name else old).append(parameter)
    groups = [{"params": old, "peak": lr}, {"params": new, "peak": new_lr}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def letters(indices: list[int]) -> str:
    """A letter a phone, and _ between words."""
    return "".join(PHONES[i - 1] for i in indices).replace(" ", "_")


@torch.no_grad()
def recognize_clip(encoder: Encoder, wave: np.ndarray) -> Tensor:
    """Log-probabilities [4 T, 1 + phones] of a clip [N] and ten ticks: the last words come late."""
    silence = TICK_SAMPLES * 10 + -len(wave) % TICK_SAMPLES
    padded = F.pad(torch.from_numpy(wave), (0, silence))[None]
    mel, _ = log_mel(padded, initial_state(1))
    with mixed():
        return encoder(mel)[1][0]


def validate(encoder: Encoder, folder: Path, search: Search, count: int = 60) -> dict:
    """Share of wrong phones, greedily, and of wrong words, and a few pairs to look at.

    Over about `count` undisturbed clips of a pool that were set aside.
    """
    pool = Pool(folder, split="valid")
    short = [i for i in range(len(pool)) if pool.entries[i]["samples"] < 12 * SAMPLE_RATE]
    wrong_phones = wrong_words = said = words = 0
    shown = []
    for i in short[:: max(1, len(short) // count)][:count]:
        log_probs = recognize_clip(encoder, pool.wave(i))
        best = log_probs.argmax(-1).unique_consecutive()
        text = spoken_form(pool.entries[i]["text"])
        wanted = letters(phones(text))
        heard = letters(best[best > BLANK].tolist())
        wrong_phones += word_errors(" ".join(wanted), " ".join(heard))
        said += len(wanted)
        read = join_words(decode_words(search, log_probs))
        wrong_words += word_errors(text, read)
        words += len(text.split())
        shown.append(f"{text} | {read}")
    return {
        "phone_errors": wrong_phones / max(1, said),
        "wer": wrong_words / max(1, words),
        "wanted | heard": shown[:: max(1, len(shown) // 4)][:4],
    }


@dataclass
class Run:
    """The encoder, its teacher if it has one, and how far they have come."""

    args: argparse.Namespace
    encoder: Encoder
    teacher: Teacher | None
    optimizer: torch.optim.Optimizer
    progress: dict

    def save(self) -> None:
        """Write the run."""
        encoder = self.encoder
        save_run(self.args.out, encoder.state_dict(), encoder.config, self.optimizer, self.progress)

    def report(self) -> None:
        """A line in the log for each pool, of clips that were set aside."""
        search = load_search(self.args.lexicon)
        for folder, _ in self.args.pool:
            found = validate(self.encoder, folder, search)
            log(self.args.out, {**self.progress, "pool": folder.name, **found})

    def hard_share(self) -> float:
        """Share of the clips that meet rooms and noises; with a teacher fewer at first.

        All of them did up to minute 270 of the encoder that ships.
        """
        done = self.progress["minutes"] / self.args.minutes
        return min(0.6, 0.4 + 1.5 * done) if self.teacher else 0.6

    def step(self, batch: Batch, rng: np.random.Generator) -> dict[str, float]:
        """One update. Returns the losses."""
        done = self.progress["minutes"] / self.args.minutes
        # It warms up over 3 % of the time.
        factor = min(1.0, done / 0.03 + 0.01) * schedule.cosine(done)
        schedule.set_learning_rate(self.optimizer, factor)
        self.optimizer.zero_grad(set_to_none=True)
        losses = train_step(self.encoder, self.teacher, done, batch, rng)
        self.optimizer.step()
        self.progress["step"] += 1
        return losses


def train(run: Run, sources: list[Source]) -> None:
    """Learn until the time is over; a line in the log every 50 steps."""
    args = run.args
    progress = run.progress
    noises = load_noise(args.noise) if args.noise else []
    clock = RunClock(60 * progress["minutes"])
    speed = RunClock(0.0)
    validated = progress["minutes"]
    recent: list[dict] = []
    sound_s = 0.0
    while progress["minutes"] < args.minutes:
        rng = np.random.default_rng([args.seed, progress["step"]])
        for batch in sample_batches(sources, noises, run.hard_share(), rng, args.batch_seconds):
            progress["minutes"] = clock.seconds() / 60
            is_over = progress["minutes"] >= args.minutes
            recent.append(run.step(batch, rng))
            sound_s += batch.wave.numel() / SAMPLE_RATE
            if len(recent) == 50:
                means = {key: float(np.mean([row[key] for row in recent])) for key in recent[0]}
                line = {**progress, **means, "times_real_time": sound_s / speed.seconds()}
                log(args.out, line)
                recent = []
                sound_s = 0.0
                speed = RunClock(0.0)
            if clock.minutes_unsaved() > args.save_minutes:
                run.save()
                clock.mark_saved()
            if progress["minutes"] - validated > args.validate_minutes or is_over:
                run.report()
                validated = progress["minutes"]
                sound_s = 0.0
                speed = RunClock(0.0)
            if is_over:
                break
    run.save()


def build(args: argparse.Namespace, sources: list[Source]) -> Run:
    """The run that the arguments ask for, as it was saved in --out if it was."""
    known = args.out if has_run(args.out) else None if args.whisper else args.start
    teacher = Teacher(args.whisper) if args.whisper else None
    if known:
        encoder = Encoder(checkpoint.load_config(EncoderConfig, known))
        encoder.load_state_dict(checkpoint.load_tensors(known))
    else:
        encoder = begin_from_whisper(args.whisper, teacher, sources[0])
    optimizer = make_optimizer(encoder, args.lr, args.new_lr)
    progress = resume_run(args.out, encoder, optimizer, {"step": 0, "minutes": 0.0})
    return Run(args, encoder, teacher, optimizer, progress)


def add_beginning(parser: argparse.ArgumentParser) -> None:
    """What a run begins with."""
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument(
        "--start",
        type=part_folder,
        default=DEFAULT_AGENT / "encoder",
        metavar="FOLDER",
        help="trained encoder to go on from (default: the shipped agent's)",
    )
    begin.add_argument(
        "--whisper",
        type=Path,
        nargs="?",
        const=Path("fetched"),
        metavar="FILE",
        help="begin with Whisper tiny.en, and have it as teacher: CTranslate2's model.bin "
        "(fetched once if no file is given)",
    )


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_beginning(parser)
    parser.add_argument(
        "--pool",
        type=pool_share,
        action="append",
        required=True,
        metavar="FOLDER[=SHARE]",
        help="speech pool and its share of the clips, repeatable",
    )
    parser.add_argument(
        "--lexicon",
        type=part_folder,
        default=DEFAULT_AGENT / "lexicon",
        metavar="FOLDER",
        help="for the error rates of words in the log (default: the shipped agent's)",
    )
    add_noise(parser)
    add_minutes(parser, 50.0)
    add_run(parser, lr=3e-4)
    parser.add_argument(
        "--new-lr",
        type=float,
        default=1e-3,
        help="highest learning rate of what Whisper has no weights for (default 0.001)",
    )
    parser.add_argument(
        "--batch-seconds",
        type=float,
        default=24.0,
        help="sound in one step, padding included (default 24)",
    )
    parser.add_argument(
        "--validate-minutes", type=float, default=5.0, help="from one to the next (default 5)"
    )
    return parser.parse_args(arguments)


def main() -> None:
    args = parse_arguments()
    args.whisper = args.whisper and whisper_path(args.whisper)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    describe_run(args, "duplex.training.encoder")
    sources = [open_source(folder, share) for folder, share in args.pool]
    run = build(args, sources)
    print(f"{sum(p.numel() for p in run.encoder.parameters()):,} weights", flush=True)
    train(run, sources)


if __name__ == "__main__":
    main()
