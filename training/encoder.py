"""Train the ears: Whisper tiny.en made causal, hearing word pieces of the language model (CTC).

    python -m training.encoder --whisper whisper/model.bin --tokenizer smollm2 --pieces-from DATA/text --noise DATA \\
        --pool pools/many=0.55 --pool pools/real=0.30 --pool pools/heart=0.15 --minutes 50 --out runs/encoder

The original encoder is the teacher for the first fifth of the time: it hears the clean clip in both directions, the
student must match its last features a few frames later, from disturbed sound. CTC runs from beginning to end, over the
pieces and over phones (`training.spelling`). Started again with the same --out the run goes on where it
stopped; --start begins a run from another run's encoder, without the teacher.
"""

import argparse
import gzip
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from duplex import checkpoint
from duplex.audio import ENCODER_FRAMES_PER_TICK, MEL_FRAMES_PER_TICK, SAMPLE_RATE, TICK_SAMPLES
from duplex.encoder import BLANK, Encoder, EncoderConfig
from duplex.features import PEAK_FLOOR, TAIL_SAMPLES, FeatureState, initial_state, log_mel
from training.augment import load_noise
from training.clips import UNKNOWN, Batch, Source, draw_batches, open_source
from training.journal import describe_run, log
from training.pool import Pool
from training.resuming import has_run, resume_run, save_run
from training.teacher import Teacher, load_whisper
from training.transcript import Pieces, choose_pieces, heard_form, load_tokenizer, phones, word_errors

STUDENT_DELAY = 4  # frames of 20 ms by which the student may be later than the teacher
PHONES_WEIGHT = 4.0  # of the loss of a phone, beside that of a piece: about as many are said for one
DETACHED_SHARE = 0.08  # of the time, in which only the teacher moves the encoder
TEACHER_SHARE = 0.2
PATH_SHARE = 0.5  # in which a path of known times weighs as much as CTC; less later on
WARMUP_SHARE = 0.03
HARD_SHARE = 0.6  # of clips, at most, meet rooms and noises; all of them did up to minute 270 of the agent that ships
SPELLER = 384
VALIDATION_CLIPS = 60


def pool_share(text: str) -> tuple[str, float]:
    folder, share = text.rsplit("=", 1)
    return folder, float(share)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; holds the encoder at any time")
    parser.add_argument("--start", type=Path, help="folder of a trained encoder to begin with, in place of Whisper's weights")
    parser.add_argument("--whisper", help="CTranslate2 model.bin of Whisper tiny.en: first weights and teacher, without --start")
    parser.add_argument("--tokenizer", required=True, help="folder of the language model's GGUF file")
    parser.add_argument("--pool", type=pool_share, action="append", required=True, help="FOLDER=SHARE, repeatable")
    parser.add_argument("--noise", help="folder with audio.jsonl and noise recordings")
    parser.add_argument("--pieces-from", type=Path, help="folder of texts that help to choose the pieces")
    parser.add_argument("--minutes", type=float, default=50.0, help="length of the whole run, all restarts together")
    parser.add_argument("--batch-seconds", type=float, default=24.0, help="sound in one step, padding included")
    parser.add_argument("--rate", type=float, default=3e-4, help="highest learning rate of Whisper's weights")
    parser.add_argument("--new-rate", type=float, default=1e-3, help="the same for what is new")
    parser.add_argument("--validate-minutes", type=float, default=5.0)
    parser.add_argument("--save-minutes", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not (args.start or args.whisper):
        parser.error("--whisper or --start: it has to begin with some weights")
    return args


def texts(folder: Path):
    """The English of every text file in a folder: quoted strings of JSON lines, first columns of tables."""
    for path in sorted(folder.glob("*.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for n, line in enumerate(lines):
                if n % 4 == 0:  # a quarter is plenty to count words
                    quoted = re.findall(r'"([^"\\]{3,})"', line)
                    yield line.split("\t")[0] if "\t" in line else " . ".join(q for q in quoted if " " in q)


def choose_config(args: argparse.Namespace, tokenizer) -> EncoderConfig:
    """Pieces from the pools (counted five times: this is what is spoken) and from other texts."""
    heard = [heard_form(e["text"]) for folder, _ in args.pool for e in Pool(folder, split="train").entries] * 5
    heard += [heard_form(text) for text in texts(args.pieces_from)] if args.pieces_from else []
    return EncoderConfig(ctc_tokens=tuple(choose_pieces(heard, tokenizer)), speller=SPELLER)


@torch.no_grad()
def begin(args: argparse.Namespace, config: EncoderConfig, teacher: Teacher, sources: list[Source]) -> Encoder:
    """An encoder with Whisper's weights and, in place of its positions, what the teacher's heads make of distance.

    The head begins with the features' mean and spread, and with how often each piece is said.
    """
    encoder = Encoder(config)
    positions = load_whisper(encoder, args.whisper)
    encoder.offset.copy_(positions[:300].mean(0))
    pool = sources[0].pool
    samples = TICK_SAMPLES * 100  # 8 s: a few utterances in a row
    waves = [np.concatenate([pool.wave(i + k) for k in range(8)])[:samples] for i in range(0, 64, 8)]
    mel = teacher.mel(torch.from_numpy(np.stack([np.resize(wave, samples) for wave in waves])))
    for block, bias in zip(encoder.blocks, teacher.attention_by_distance(mel, config.window), strict=True):
        block.distance_bias.copy_(bias.clamp(min=-12.0))
    frames = teacher(mel, torch.full((len(mel),), 100)).flatten(0, 1)
    encoder.center.copy_(frames.mean(0).repeat(ENCODER_FRAMES_PER_TICK))
    encoder.spread.copy_(frames.std(0).repeat(ENCODER_FRAMES_PER_TICK))
    said = [index for source in sources for target in source.targets for index in target]
    counts = torch.bincount(torch.tensor(said), minlength=len(config.ctc_tokens) + 1) + 1.0
    counts[BLANK] = 2.5 * counts.sum()  # ticks without a piece
    encoder.ctc[-1].bias.copy_((counts / counts.sum()).log())
    return encoder


def is_head(name: str) -> bool:
    return name.startswith(("ctc", "phones", "spelle"))


def make_optimizer(encoder: Encoder, args: argparse.Namespace) -> torch.optim.Optimizer:
    new = [p for name, p in encoder.named_parameters() if is_head(name) or "distance_bias" in name]
    known = {id(p) for p in new}
    old = [p for p in encoder.parameters() if id(p) not in known]
    groups = [{"params": old, "peak": args.rate}, {"params": new, "peak": args.new_rate}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def student_mel(wave: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """wave [B, N] -> mel [B, M, 80], as if each clip came somewhere in a stream; a few bands and moments hidden."""
    peak = torch.from_numpy(rng.uniform(PEAK_FLOOR - 1.0, 2.0, len(wave))).float().clamp(min=PEAK_FLOOR)
    mel, _ = log_mel(wave, FeatureState(torch.zeros(len(wave), TAIL_SAMPLES), peak))
    for row in mel:
        if rng.random() < 0.7:
            band, moment = rng.integers(0, 70), rng.integers(0, len(row))
            row[:, band : band + rng.integers(1, 12)] = row.mean()
            row[moment : moment + rng.integers(1, 25)] = row.mean()
    return mel


def ctc_loss(log_probs: torch.Tensor, batch: Batch) -> torch.Tensor:
    """log_probs [B, n, V+1] -> negative log-likelihood per piece."""
    target = torch.tensor([index for clip in batch.targets for index in clip], dtype=torch.long)
    lengths = torch.tensor([len(clip) for clip in batch.targets])
    loss = F.ctc_loss(log_probs.transpose(0, 1), target, batch.ticks, lengths, BLANK, "sum", zero_infinity=True)
    return loss / max(1, len(target))


def phone_loss(log_probs: torch.Tensor, heard: Sequence[str], frames: torch.Tensor) -> torch.Tensor:
    """log_probs [B, T, 1 + phones] of 20 ms, `frames` [B] of them in each clip -> negative log-likelihood per phone."""
    said = [phones(text) for text in heard]
    target = torch.tensor([phone for text in said for phone in text], dtype=torch.long)
    sizes = torch.tensor([len(text) for text in said])
    loss = F.ctc_loss(log_probs.transpose(0, 1), target, frames, sizes, BLANK, "sum", zero_infinity=True)
    return loss / max(1, len(target))


def path_loss(log_probs: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Negative log-likelihood per piece of the one path that says each piece just after it was spoken.

    It spares CTC the long search for the first alignment, and keeps it from waiting longer than it must.
    """
    loss = F.nll_loss(log_probs.flatten(0, 1), batch.paths.flatten(), ignore_index=UNKNOWN, reduction="sum")
    return loss / (batch.paths > BLANK).sum().clamp(min=1)


def teacher_loss(features: torch.Tensor, wanted: torch.Tensor, ticks: torch.Tensor) -> torch.Tensor:
    """features [B, n, 4C] of the student, wanted [B, 4n, C]: distance in units of each channel's spread, and angle."""
    frames = features.unflatten(2, (ENCODER_FRAMES_PER_TICK, -1)).flatten(1, 2)[:, STUDENT_DELAY:].float()
    wanted = wanted[:, :-STUDENT_DELAY].float()
    inside = torch.arange(wanted.shape[1]) < ticks[:, None] * ENCODER_FRAMES_PER_TICK - STUDENT_DELAY
    frames, wanted = frames[inside], wanted[inside]  # [frames, C]
    spread = wanted.std(0).clamp(min=1e-3)
    return F.smooth_l1_loss(frames / spread, wanted / spread) + 1 - F.cosine_similarity(frames, wanted).mean()


def train_step(encoder: Encoder, teacher: Teacher | None, done: float, batch: Batch, pieces: Pieces, rng) -> dict:
    """Losses of one batch; gradients are left in the encoder. `done` is the share of the time that has passed."""
    mel = student_mel(batch.wave, rng)
    teaching = torch.zeros(())
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder.listen(mel)
        # A new head's first gradients would ruin what came from Whisper: the body has the teacher alone at first.
        attached = features.detach() if teacher and done < DETACHED_SHARE else features
        phone_log_probs, (log_probs, _) = encoder.phone(attached), encoder.hear(attached)
        if teacher and done < TEACHER_SHARE:
            with torch.no_grad():
                wanted = teacher(teacher.mel(batch.clean), batch.ticks)
            teaching = teacher_loss(features, wanted, batch.ticks)
    hearing, in_time = ctc_loss(log_probs, batch), path_loss(log_probs, batch)
    sounding = phone_loss(phone_log_probs, [pieces.text(clip) for clip in batch.targets], batch.ticks * ENCODER_FRAMES_PER_TICK)
    path_weight = 1.0 if teacher and done < PATH_SHARE else 0.4
    (hearing + path_weight * in_time + PHONES_WEIGHT * sounding + 10.0 * teaching).backward()
    named = list(encoder.named_parameters())
    head_norm, norm = (torch.nn.utils.clip_grad_norm_([p for n, p in named if is_head(n) == head], 5.0) for head in (True, False))
    losses = {"ctc": hearing, "path": in_time, "phones": sounding, "teacher": teaching, "norm": norm, "head_norm": head_norm}
    return {name: loss.item() for name, loss in losses.items()}


@torch.no_grad()
def validate(encoder: Encoder, pieces: Pieces, folder: str) -> tuple[float, list[str]]:
    """Word error rate of greedy CTC on undisturbed clips that were kept aside, and a few pairs of texts to look at."""
    pool, errors, words, shown = Pool(folder, split="valid"), 0, 0, []
    chosen = [i for i in range(len(pool)) if pool.entries[i]["samples"] < 12 * SAMPLE_RATE]
    for i in chosen[:: max(1, len(chosen) // VALIDATION_CLIPS)][:VALIDATION_CLIPS]:
        wave = torch.from_numpy(pool.wave(i))
        wave = F.pad(wave, (0, TICK_SAMPLES * 5 + -len(wave) % TICK_SAMPLES))[None]  # the last words come late
        mel, _ = log_mel(wave, initial_state(1))
        assert mel.shape[1] % MEL_FRAMES_PER_TICK == 0
        with torch.autocast("cpu", torch.bfloat16):
            best = encoder(mel)[1].argmax(-1)[0].tolist()
        wanted, heard = heard_form(pool.entries[i]["text"]), pieces.greedy(best)
        errors, words = errors + word_errors(wanted, heard), words + len(wanted.split())
        shown.append(f"{wanted} | {heard}")
    return errors / max(1, words), shown[:: max(1, len(shown) // 4)][:4]


def learning_rate_factor(done: float) -> float:
    """`done` is the share of the time that has passed: warm-up, then a cosine."""
    return min(1.0, done / WARMUP_SHARE + 0.01) * (0.5 + 0.5 * np.cos(np.pi * min(1.0, done)))


def train(args: argparse.Namespace, encoder, teacher, optimizer, pieces: Pieces, sources, progress: dict) -> None:
    noises = load_noise(args.noise) if args.noise else []
    started = time.monotonic() - 60 * progress["minutes"]
    saved = validated = progress["minutes"]
    recent: list[dict] = []
    sound_s, since = 0.0, time.monotonic()
    while progress["minutes"] < args.minutes:
        rng = np.random.default_rng([args.seed, progress["step"]])
        hard = min(HARD_SHARE, 0.4 + 1.5 * progress["minutes"] / args.minutes) if teacher else HARD_SHARE
        for batch in draw_batches(sources, noises, hard, rng, args.batch_seconds):
            progress["minutes"] = (time.monotonic() - started) / 60
            done = progress["minutes"] / args.minutes
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * learning_rate_factor(done)
            optimizer.zero_grad(set_to_none=True)
            recent.append(train_step(encoder, teacher, done, batch, pieces, rng))
            optimizer.step()
            progress["step"] += 1
            sound_s += batch.wave.numel() / SAMPLE_RATE
            if len(recent) == 50:
                means = {key: float(np.mean([losses[key] for losses in recent])) for key in recent[0]}
                speed = sound_s / (time.monotonic() - since)
                log(args.out, {**progress, **means, "times_real_time": speed})
                recent, sound_s, since = [], 0.0, time.monotonic()
            if progress["minutes"] - saved > args.save_minutes:
                save_run(args.out, encoder.state_dict(), encoder.config, optimizer, progress)
                saved = progress["minutes"]
            if progress["minutes"] - validated > args.validate_minutes or done >= 1:
                report(args, encoder, pieces, progress)
                validated, sound_s, since = progress["minutes"], 0.0, time.monotonic()
            if done >= 1:
                break
    save_run(args.out, encoder.state_dict(), encoder.config, optimizer, progress)


def report(args: argparse.Namespace, encoder: Encoder, pieces: Pieces, progress: dict) -> None:
    for folder, _ in args.pool:
        error_rate, shown = validate(encoder, pieces, folder)
        log(args.out, {**progress, "pool": Path(folder).name, "wer": error_rate, "wanted | heard": shown})


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    describe_run(args, "training.encoder")
    tokenizer = load_tokenizer(args.tokenizer)
    going_on = has_run(args.out)
    known = args.out if going_on else args.start
    teacher = None if args.start else Teacher(args.whisper)
    config = checkpoint.load_config(EncoderConfig, known) if known else choose_config(args, tokenizer)
    config = replace(config, speller=config.speller or SPELLER)
    pieces = Pieces(config.ctc_tokens, tokenizer)
    sources = [open_source(folder, share, pieces) for folder, share in args.pool]
    encoder = Encoder(config) if known else begin(args, config, teacher, sources)
    optimizer = make_optimizer(encoder, args)
    progress = resume_run(args.out, encoder, optimizer) if going_on else {"step": 0, "minutes": 0.0}
    if args.start and not going_on:
        encoder.load_state_dict(checkpoint.load_tensors(args.start), strict=False)  # it may know no phones
    print(f"{len(config.ctc_tokens)} pieces, {sum(p.numel() for p in encoder.parameters()):,} weights", flush=True)
    train(args, encoder, teacher, optimizer, pieces, sources, progress)


if __name__ == "__main__":
    main()
