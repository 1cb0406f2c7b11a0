"""Train the speaker head: the encoder's early frames in, a vector a tick that tells voices apart.

    python -m duplex.training.speaker --noise DATA --pool pools/real_apart=0.5 \\
        --pool pools/many_voices=0.3 --pool pools/kokoro_voices=0.2 --out runs/speaker

The pools hold several utterances of each voice (duplex.training.speech --each). First --streams
streams are made and heard by the encoder, once, in the run's folder; then the head learns from
segments of them by an angular margin over all voices. The encoder stays as it is.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duplex import checkpoint
from duplex.audio import TICK_SAMPLES
from duplex.model.encoder import Encoder, EncoderConfig
from duplex.model.features import initial_state, log_mel
from duplex.model.speaker import SpeakerConfig, SpeakerHead
from duplex.training.common import schedule
from duplex.training.common.options import add_length, add_noise, add_part, add_run, pool_share
from duplex.training.common.run_log import describe_run, log
from duplex.training.common.run_state import RunClock, resume_run, save_run
from duplex.training.data.augment import load_noise
from duplex.training.data.voices import (
    Streams,
    StreamWriter,
    Voice,
    read_voices,
    sample_segments,
    teach,
)
from duplex.training.evaluation.verification import equal_error_rate
from duplex.training.objectives.voices import (
    TEACHER_VECTOR,
    AngularMargin,
    SpeakerTeacher,
    likeness_loss,
)

# Ticks of the shortest segment that is learned from.
MIN_TICKS = 6
# Ticks of a clip that the log's equal error rate is of: 3 s.
CLIP_TICKS = 37
LOSS_WEIGHTS = {"margin": 0.1, "copy": 1.0, "likeness": 4.0}


class Learner(nn.Module):
    """The head, and what only its training needs."""

    def __init__(self, config: SpeakerConfig, voices: int):
        super().__init__()
        self.head = SpeakerHead(config)
        self.margin = AngularMargin(config.vector, voices)
        self.as_teacher = nn.Linear(config.vector, TEACHER_VECTOR, bias=False)

    def losses(
        self,
        early: Tensor,
        segments: np.ndarray,
        taught: np.ndarray | None,
        rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        """The losses of a batch, see Streams.batch. Half of the segments are learned from in part,
        since a label is wanted early. taught: the teacher's vectors of all voices."""
        with torch.autocast("cpu", torch.bfloat16):
            vectors = self.head(early).float()
        sums = vectors.new_zeros(vectors.shape[0], vectors.shape[1] + 1, vectors.shape[2])
        sums[:, 1:] = vectors.cumsum(1)
        long_enough = segments[:, 3] - segments[:, 2] >= MIN_TICKS
        rows, voices, starts, ends = segments[long_enough].T
        lengths = rng.integers(MIN_TICKS, ends - starts + 1)
        is_part = rng.random(len(starts)) < 0.5
        ends = np.where(is_part, starts + lengths, ends)
        found = F.normalize(sums[rows, ends] - sums[rows, starts], dim=-1)
        losses = {"margin": self.margin(found, torch.from_numpy(voices))}
        if taught is None:
            return losses
        teacher = torch.from_numpy(taught[voices])
        copied = F.cosine_similarity(self.as_teacher(found), teacher, dim=-1)
        likeness = likeness_loss(found, teacher)
        return {**losses, "copy": (1 - copied).mean(), "likeness": likeness}


def make_streams(args: argparse.Namespace, voices: list[list[Voice]], encoder: Encoder) -> Path:
    """The folder of the run's streams, which are made where they are not there."""
    folder = args.streams_folder or args.out / "streams"
    if (folder / "READY").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    if args.teacher:
        everybody = [voice for pool in voices for voice in pool]
        np.save(folder / "taught.npy", teach(everybody, SpeakerTeacher()))
    writer = StreamWriter(folder, encoder, load_noise(args.noise) if args.noise else [])
    shares = [share for _, share in args.pool]
    for number in range(args.streams):
        rng = np.random.default_rng([args.seed, number])
        writer.append(sample_segments(voices, shares, rng), rng)
        if number % 500 == 0:
            print(f"{number} streams", flush=True)
    writer.close()
    (folder / "READY").touch()
    return folder


@torch.inference_mode()
def validate(head: SpeakerHead, encoder: Encoder, voices: list[Voice], each: int = 6) -> float:
    """Equal error rate on clips of 3 s of the recorded speakers that were set aside."""
    found = []
    names = []
    for voice in voices:
        waves = (voice.pool.wave(i)[: CLIP_TICKS * TICK_SAMPLES] for i in voice.utterances)
        enough = (wave for wave in waves if len(wave) == CLIP_TICKS * TICK_SAMPLES)
        for wave in itertools.islice(enough, each):
            mel, _ = log_mel(torch.from_numpy(wave)[None], initial_state(1))
            found.append(head(encoder.early_clip(mel))[0].sum(0))
            names.append(voice.name)
    return equal_error_rate(torch.stack(found).numpy(), names) if found else float("nan")


def train(args: argparse.Namespace, learner: Learner, streams: Streams, check) -> None:
    """Learn until the time is over; a line in the log every hundred steps."""
    groups = [{"params": list(learner.parameters()), "peak": args.lr}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.02)
    progress = resume_run(args.out, learner, optimizer, {"step": 0, "minutes": 0.0})
    clock = RunClock(60 * progress["minutes"])
    recent: list[dict] = []
    while True:
        done = schedule.share_done(
            args.steps, args.minutes, progress["step"], 60 * progress["minutes"]
        )
        if done >= 1:
            break
        rng = np.random.default_rng([args.seed, 1, progress["step"]])
        chosen = rng.choice(len(streams.lines), args.batch, replace=False)
        losses = learner.losses(*streams.batch(np.sort(chosen)), streams.taught, rng)
        progress["step"] += 1
        factor = schedule.warm_up(progress["step"], 200) * schedule.cosine(done)
        schedule.set_learning_rate(optimizer, factor)
        optimizer.zero_grad(set_to_none=True)
        sum(LOSS_WEIGHTS[name] * loss for name, loss in losses.items()).backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        progress["minutes"] = clock.seconds() / 60
        recent.append({name: float(value.detach()) for name, value in losses.items()})
        if len(recent) == 100:
            means = {key: float(np.mean([row[key] for row in recent])) for key in recent[0]}
            found = check() if progress["step"] % 500 == 0 else {}
            log(args.out, {**progress, **means, **found})
            recent = []
        if clock.minutes_unsaved() > args.save_minutes:
            save_run(args.out, learner.state_dict(), learner.head.config, optimizer, progress)
            clock.mark_saved()
    save_run(args.out, learner.state_dict(), learner.head.config, optimizer, progress)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pool",
        type=pool_share,
        action="append",
        required=True,
        metavar="FOLDER[=SHARE]",
        help="speech pool with several utterances of each voice, and its share; repeatable",
    )
    parser.add_argument(
        "--streams", type=int, default=6000, help="that are made, about 7 s each (default 6000)"
    )
    parser.add_argument(
        "--streams-folder",
        type=Path,
        metavar="FOLDER",
        help="of streams that another run made, with the same pools (default: the run's own)",
    )
    parser.add_argument("--batch", type=int, default=48, help="streams in a step (default 48)")
    parser.add_argument(
        "--teacher",
        action="store_true",
        help="also learn to find two voices as alike as CAM++ does (fetched once)",
    )
    add_part(parser, "encoder")
    add_noise(parser)
    add_length(parser, steps=4000)
    add_run(parser, lr=2e-3)
    return parser.parse_args(arguments)


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    describe_run(args, "duplex.training.speaker")
    encoder = Encoder(checkpoint.load_config(EncoderConfig, args.encoder))
    encoder.load_state_dict(checkpoint.load_tensors(args.encoder))
    voices = [read_voices(folder) for folder, _ in args.pool]
    apart = [v for folder, _ in args.pool for v in read_voices(folder, "valid") if v.speed == 1.0]
    apart = [voice for voice in apart if voice.name.startswith("real:")]
    count = sum(map(len, voices))
    print(f"{count} voices, {len(apart)} recorded speakers set aside", flush=True)
    config = SpeakerConfig(encoder_width=encoder.config.width)
    learner = Learner(config, count)
    streams = Streams(make_streams(args, voices, encoder), 2 * encoder.config.width)
    train(
        args,
        learner,
        streams,
        lambda: {"equal_error": validate(learner.head.eval(), encoder, apart)},
    )
    checkpoint.save(learner.head.state_dict(), config, args.out / "head")


if __name__ == "__main__":
    main()
