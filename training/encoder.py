"""Train the ears: Whisper tiny.en made causal, hearing phones (CTC).

    python -m duplex.training.encoder --whisper whisper/model.bin --noise DATA \\
        --pool pools/many=0.55 --pool pools/real=0.30 --pool pools/heart=0.15 --minutes 50 --out runs/encoder

The original encoder is the teacher for the first fifth of the time: it hears the clean clip in both directions, the
student must match its last features a few frames later, from disturbed sound. CTC runs from beginning to end. Started again
with the same --out the run goes on where it stopped; --start begins a run from another run's encoder, without the teacher.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from duplex.training.common.precision import mixed
from duplex.training.common.run_log import describe_run, log
from duplex.training.common.run_state import has_run, resume_run, save_run
from duplex.training.data.augment import load_noise
from duplex.training.data.clips import Batch, Source, draw_batches, open_source
from duplex.training.data.normalize import heard_form, phones, word_errors
from duplex.training.data.pool import Pool
from duplex.training.objectives.teacher import Teacher, load_whisper
from duplex.training.scenes.recognition import decode_words, join_words

from duplex import checkpoint
from duplex.audio import ENCODER_FRAMES_PER_TICK, MEL_FRAMES_PER_TICK, SAMPLE_RATE, TICK_SAMPLES
from duplex.model.encoder import BLANK, PHONES, Encoder, EncoderConfig
from duplex.model.features import MIN_PEAK, TAIL_SAMPLES, FeatureState, initial_state, log_mel
from duplex.model.lexicon import Lexicon, load_lexicon

STUDENT_DELAY = 4  # frames of 20 ms by which the student may be later than the teacher
DETACHED_SHARE = 0.08  # of the time, in which only the teacher moves the encoder
TEACHER_SHARE = 0.2
WARMUP_SHARE = 0.03
HARD_SHARE = 0.6  # of clips, at most, meet rooms and noises; all of them did up to minute 270 of the agent that ships
VALIDATION_CLIPS = 60


def pool_share(text: str) -> tuple[str, float]:
    folder, share = text.rsplit("=", 1)
    return folder, float(share)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run; holds the encoder at any time"
    )
    parser.add_argument(
        "--start",
        type=Path,
        help="folder of a trained encoder to begin with, in place of Whisper's weights",
    )
    parser.add_argument(
        "--whisper",
        help="CTranslate2 model.bin of Whisper tiny.en: first weights and teacher, without --start",
    )
    parser.add_argument(
        "--pool", type=pool_share, action="append", required=True, help="FOLDER=SHARE, repeatable"
    )
    parser.add_argument(
        "--lexicon",
        type=Path,
        help="folder of duplex.training.lexicon: the error rates of words are logged too",
    )
    parser.add_argument("--noise", help="folder with audio.jsonl and noise recordings")
    parser.add_argument(
        "--minutes", type=float, default=50.0, help="length of the whole run, all restarts together"
    )
    parser.add_argument(
        "--batch-seconds", type=float, default=24.0, help="sound in one step, padding included"
    )
    parser.add_argument(
        "--rate", type=float, default=3e-4, help="highest learning rate of Whisper's weights"
    )
    parser.add_argument("--new-rate", type=float, default=1e-3, help="the same for what is new")
    parser.add_argument("--validate-minutes", type=float, default=5.0)
    parser.add_argument("--save-minutes", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not (args.start or args.whisper):
        parser.error("--whisper or --start: it has to begin with some weights")
    return args


@torch.no_grad()
def begin(args: argparse.Namespace, teacher: Teacher, sources: list[Source]) -> Encoder:
    """An encoder with Whisper's weights and, in place of its positions, what the teacher's heads make of distance."""
    encoder = Encoder(EncoderConfig())
    positions = load_whisper(encoder, args.whisper)
    encoder.offset.copy_(positions[:300].mean(0))
    pool = sources[0].pool
    samples = TICK_SAMPLES * 100  # 8 s: a few utterances in a row
    waves = [
        np.concatenate([pool.wave(i + k) for k in range(8)])[:samples] for i in range(0, 64, 8)
    ]
    mel = teacher.mel(torch.from_numpy(np.stack([np.resize(wave, samples) for wave in waves])))
    for block, bias in zip(
        encoder.blocks, teacher.attention_by_distance(mel, encoder.config.window), strict=True
    ):
        block.distance_bias.copy_(bias.clamp(min=-12.0))
    return encoder


def is_head(name: str) -> bool:
    return name.startswith("phones")


def make_optimizer(encoder: Encoder, args: argparse.Namespace) -> torch.optim.Optimizer:
    new = [p for name, p in encoder.named_parameters() if is_head(name) or "distance_bias" in name]
    known = {id(p) for p in new}
    old = [p for p in encoder.parameters() if id(p) not in known]
    groups = [{"params": old, "peak": args.rate}, {"params": new, "peak": args.new_rate}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def student_mel(wave: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """wave [B, N] -> mel [B, M, 80], as if each clip came somewhere in a stream; a few bands and moments hidden."""
    peak = (
        torch.from_numpy(rng.uniform(MIN_PEAK - 1.0, 2.0, len(wave)))
        .float()
        .clamp(min=MIN_PEAK)
    )
    mel, _ = log_mel(wave, FeatureState(torch.zeros(len(wave), TAIL_SAMPLES), peak))
    for row in mel:
        if rng.random() < 0.7:
            band, moment = rng.integers(0, 70), rng.integers(0, len(row))
            row[:, band : band + rng.integers(1, 12)] = row.mean()
            row[moment : moment + rng.integers(1, 25)] = row.mean()
    return mel


def ctc_loss(log_probs: torch.Tensor, batch: Batch) -> torch.Tensor:
    """log_probs [B, 4n, 1 + phones] -> negative log-likelihood per phone."""
    target = torch.tensor([phone for clip in batch.targets for phone in clip], dtype=torch.long)
    lengths = torch.tensor([len(clip) for clip in batch.targets])
    frames = batch.ticks * ENCODER_FRAMES_PER_TICK
    loss = F.ctc_loss(
        log_probs.transpose(0, 1), target, frames, lengths, BLANK, "sum", zero_infinity=True
    )
    return loss / max(1, len(target))


def teacher_loss(features: torch.Tensor, wanted: torch.Tensor, ticks: torch.Tensor) -> torch.Tensor:
    """features [B, n, 4C] of the student, wanted [B, 4n, C]: distance in units of each channel's spread, and angle."""
    frames = (
        features.unflatten(2, (ENCODER_FRAMES_PER_TICK, -1))
        .flatten(1, 2)[:, STUDENT_DELAY:]
        .float()
    )
    wanted = wanted[:, :-STUDENT_DELAY].float()
    inside = (
        torch.arange(wanted.shape[1]) < ticks[:, None] * ENCODER_FRAMES_PER_TICK - STUDENT_DELAY
    )
    frames, wanted = frames[inside], wanted[inside]  # [frames, C]
    spread = wanted.std(0).clamp(min=1e-3)
    return (
        F.smooth_l1_loss(frames / spread, wanted / spread)
        + 1
        - F.cosine_similarity(frames, wanted).mean()
    )


def train_step(encoder: Encoder, teacher: Teacher | None, done: float, batch: Batch, rng) -> dict:
    """Losses of one batch; gradients are left in the encoder. `done` is the share of the time that has passed."""
    mel = student_mel(batch.wave, rng)
    teaching = torch.zeros(())
    with mixed():
        features = encoder.encode_clip(mel)
        # A new head's first gradients would ruin what came from Whisper: the body has the teacher alone at first.
        attached = features.detach() if teacher and done < DETACHED_SHARE else features
        log_probs = encoder.phone_log_probs(attached)
        if teacher and done < TEACHER_SHARE:
            with torch.no_grad():
                wanted = teacher(teacher.mel(batch.clean), batch.ticks)
            teaching = teacher_loss(features, wanted, batch.ticks)
    hearing = ctc_loss(log_probs, batch)
    (hearing + 10.0 * teaching).backward()
    named = list(encoder.named_parameters())
    head_norm, norm = (
        torch.nn.utils.clip_grad_norm_([p for n, p in named if is_head(n) == head], 5.0)
        for head in (True, False)
    )
    losses = {"ctc": hearing, "teacher": teaching, "norm": norm, "head_norm": head_norm}
    return {name: loss.item() for name, loss in losses.items()}


def letters(indices: list[int]) -> str:
    """A letter a phone, and _ between words."""
    return "".join(PHONES[i - 1] for i in indices).replace(" ", "_")


@torch.no_grad()
def validate(encoder: Encoder, folder: str, lexicon: Lexicon | None) -> dict:
    """Undisturbed clips that were kept aside: share of wrong phones, greedily, and of wrong words; a few pairs to look at."""
    pool, wrong_phones, wrong_words, said, words, shown = (
        Pool(folder, split="valid"),
        0,
        0,
        0,
        0,
        [],
    )
    chosen = [i for i in range(len(pool)) if pool.entries[i]["samples"] < 12 * SAMPLE_RATE]
    for i in chosen[:: max(1, len(chosen) // VALIDATION_CLIPS)][:VALIDATION_CLIPS]:
        wave = torch.from_numpy(pool.wave(i))
        wave = F.pad(wave, (0, TICK_SAMPLES * 10 + -len(wave) % TICK_SAMPLES))[
            None
        ]  # the last words come late
        mel, _ = log_mel(wave, initial_state(1))
        assert mel.shape[1] % MEL_FRAMES_PER_TICK == 0
        with mixed():
            log_probs = encoder(mel)[1][0]
        best, text = log_probs.argmax(-1).unique_consecutive(), heard_form(pool.entries[i]["text"])
        wanted, heard = letters(phones(text)), letters(best[best > BLANK].tolist())
        wrong_phones, said = (
            wrong_phones + word_errors(" ".join(wanted), " ".join(heard)),
            said + len(wanted),
        )
        read = join_words(decode_words(lexicon, log_probs)) if lexicon else ""
        wrong_words, words = wrong_words + word_errors(text, read), words + len(text.split())
        shown.append(f"{text} | {read}" if lexicon else f"{wanted} | {heard}")
    found = {"phone_errors": wrong_phones / max(1, said)} | (
        {"wer": wrong_words / max(1, words)} if lexicon else {}
    )
    return {**found, "wanted | heard": shown[:: max(1, len(shown) // 4)][:4]}


def learning_rate_factor(done: float) -> float:
    """`done` is the share of the time that has passed: warm-up, then a cosine."""
    return min(1.0, done / WARMUP_SHARE + 0.01) * (0.5 + 0.5 * np.cos(np.pi * min(1.0, done)))


def train(args: argparse.Namespace, encoder, teacher, optimizer, sources, progress: dict) -> None:
    noises = load_noise(args.noise) if args.noise else []
    started = time.monotonic() - 60 * progress["minutes"]
    saved = validated = progress["minutes"]
    recent: list[dict] = []
    sound_s, since = 0.0, time.monotonic()
    while progress["minutes"] < args.minutes:
        rng = np.random.default_rng([args.seed, progress["step"]])
        hard = (
            min(HARD_SHARE, 0.4 + 1.5 * progress["minutes"] / args.minutes)
            if teacher
            else HARD_SHARE
        )
        for batch in draw_batches(sources, noises, hard, rng, args.batch_seconds):
            progress["minutes"] = (time.monotonic() - started) / 60
            done = progress["minutes"] / args.minutes
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * learning_rate_factor(done)
            optimizer.zero_grad(set_to_none=True)
            recent.append(train_step(encoder, teacher, done, batch, rng))
            optimizer.step()
            progress["step"] += 1
            sound_s += batch.wave.numel() / SAMPLE_RATE
            if len(recent) == 50:
                means = {
                    key: float(np.mean([losses[key] for losses in recent])) for key in recent[0]
                }
                speed = sound_s / (time.monotonic() - since)
                log(args.out, {**progress, **means, "times_real_time": speed})
                recent, sound_s, since = [], 0.0, time.monotonic()
            if progress["minutes"] - saved > args.save_minutes:
                save_run(args.out, encoder.state_dict(), encoder.config, optimizer, progress)
                saved = progress["minutes"]
            if progress["minutes"] - validated > args.validate_minutes or done >= 1:
                report(args, encoder, progress)
                validated, sound_s, since = progress["minutes"], 0.0, time.monotonic()
            if done >= 1:
                break
    save_run(args.out, encoder.state_dict(), encoder.config, optimizer, progress)


def report(args: argparse.Namespace, encoder: Encoder, progress: dict) -> None:
    lexicon = load_lexicon(args.lexicon) if args.lexicon else None
    for folder, _ in args.pool:
        log(args.out, {**progress, "pool": Path(folder).name, **validate(encoder, folder, lexicon)})


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    describe_run(args, "duplex.training.encoder")
    going_on = has_run(args.out)
    known = args.out if going_on else args.start
    teacher = None if args.start else Teacher(args.whisper)
    sources = [open_source(folder, share) for folder, share in args.pool]
    encoder = (
        Encoder(checkpoint.load_config(EncoderConfig, known))
        if known
        else begin(args, teacher, sources)
    )
    optimizer = make_optimizer(encoder, args)
    progress = resume_run(args.out, encoder, optimizer, {"step": 0, "minutes": 0.0})
    if args.start and not going_on:
        encoder.load_state_dict(checkpoint.load_tensors(args.start))
    print(f"{sum(p.numel() for p in encoder.parameters()):,} weights", flush=True)
    train(args, encoder, teacher, optimizer, sources, progress)


if __name__ == "__main__":
    main()
