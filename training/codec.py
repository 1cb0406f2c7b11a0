"""Train the codec on speech pools.

    python -m duplex.training.codec --pool pools/a=0.5 --pool pools/b=0.5 --scratch \\
        --out runs/codec

First without quantizer, then the codebooks start by k-means. After `--freeze-at` of the time
encoder and codebooks stay as they are, the file FROZEN appears in the output folder (codes made
from then on stay valid), and the decoder goes on alone. The voice is learned from magnitudes and
from the pitch, never from the waveform: the codes then need to carry no phase and are easier to
predict. Where the speech's own synthesizer is known (duplex.training.controls, --controlled), or
what it is made of was found (--analysed), the decoder learns these controls instead, phases too.
What the agent hears in the decoded sound shall be what it hears in the true one (--encoder).

Without --scratch the decoder of --start, the shipped codec, learns on and its codes stay as they
are. With --relearn FOLDER its encoder learns on as well, so that other voices find their place
among the codes, and so do the codebooks' entries, by gradient; codes that the codec in FOLDER (from
which the talker learned) makes of the controlled voices still mean the same.

duplex.training.export writes a run's weights in half precision.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from duplex import checkpoint
from duplex.audio import SAMPLE_RATE
from duplex.model.asr.encoder import Encoder, EncoderConfig
from duplex.model.tts.codec import Codec, CodecConfig, load_codec
from duplex.model.tts.vocoder import NOISE_FRAMES
from duplex.training.common import schedule
from duplex.training.common.options import add_minutes, add_part, add_run, part_folder, pool_share
from duplex.training.common.precision import mixed
from duplex.training.common.run_log import describe_run, log
from duplex.training.common.run_state import RunClock, has_run, resume_run, save_run
from duplex.training.data.crops import Crops
from duplex.training.data.pool import Pool
from duplex.training.data.vocoder_targets import ControlPool
from duplex.training.objectives import codebooks
from duplex.training.objectives.spectral import (
    SpectralDistance,
    control_terms,
    delay_as_decoder,
    feature_distance,
    voice_terms,
)
from duplex.weights import DEFAULT_AGENT

# Share of the items that use only so many codebooks; the rest use all.
FEW_CODEBOOKS = {2: 0.03, 4: 0.05}
# Weights of the terms in the loss, where the sound is learned and where its controls are.
SOUND_WEIGHTS = {"mel": 1.0, "magnitude": 5.0, "pitch": 2.0, "buzz": 0.5, "commitment": 0.25}
CONTROL_WEIGHTS = {
    "noise": 1.0,
    "harmonic": 1.0,
    "bands": 6.0,
    "turn": 1.0,
    "pitch": 4.0,
    "commitment": 1.5,
}


@dataclass(frozen=True)
class CodecPlan:
    """How a run goes."""

    minutes: float = 50.0
    lr: float = 1e-3
    # Share of the time after which codes are final.
    freeze_at: float = 0.4
    # Weight in the loss of how differently the agent hears the sound.
    encoder_weight: float = 2.0
    # Steps without quantizer.
    warm_up_steps: int = 250
    # With --relearn: share of the controlled batches that are encoded as before.
    known_share: float = 0.5
    seed: int = 1


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    seconds: float = 0.0  # Of training, over all restarts.
    hours_heard: float = 0.0
    frozen: bool = False


class Trainer:
    """The codec, its optimizer and how far it has come."""

    def __init__(self, config: CodecConfig, plan: CodecPlan):
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.codec = Codec(config)
        self.distance = SpectralDistance()
        self.progress = Progress()
        # The optimizer's only after `relearn`.
        self.entries = [layer.codebook for layer in self.codec.quantizer.vq.layers]
        # Entries of the last codebooks are no larger than 0.05: they learn slowly.
        groups = [
            {"params": list(self.codec.encoder.parameters()), "peak": plan.lr},
            {"params": list(self.codec.decoder.parameters()), "peak": plan.lr},
            {"params": self.entries, "peak": 0.1 * plan.lr},
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.8, 0.99), fused=True)
        # The codec whose codes are to keep their meaning while the encoder learns on.
        self.first: Codec | None = None
        # The agent's encoder, which is to hear the same in both sounds.
        self.encoder: Encoder | None = None
        self.usage = torch.zeros(config.codebooks, config.codebook_size)
        self.terms: dict[str, list[float]] = {}
        self.steps_since_report = 0

    def begin_from(self, folder: Path, new_encoder: bool = False) -> None:
        """Take a codec's weights, or all but its encoder's.

        Blocks and inputs that it has none for add nothing at first.
        """
        stored = checkpoint.load_tensors(folder)
        if new_encoder:
            stored = {name: v for name, v in stored.items() if not name.startswith("encoder.")}
        missing = self.codec.load_state_dict(stored, strict=False).missing_keys
        for name, value in self.codec.named_parameters():
            is_new = name in missing and not (new_encoder and name.startswith("encoder."))
            if is_new and ("layer_scale" in name or ".from_" in name):
                value.data.zero_()
        self.progress.frozen = True
        self.progress.step = self.plan.warm_up_steps + 1

    def relearn(self, first: Codec) -> None:
        """Let the encoder learn on, and the codebooks' entries.

        The codes that `first` gives known voices keep their meaning.
        """
        self.first = first.requires_grad_(False)
        for entries in self.entries:
            entries.requires_grad_()

    def set_learning_rate(self) -> None:
        """Two cosines over time: the encoder's ends where it is frozen, the others' at the end."""
        seconds = 60 * self.plan.minutes
        rise = schedule.warm_up(self.progress.step + 1, 100)
        encoder, others = (
            rise * schedule.cosine(self.progress.seconds / (share * seconds), floor=0.02)
            for share in (self.plan.freeze_at, 1.0)
        )
        schedule.set_learning_rate(self.optimizer, [encoder, others, others])

    def sample_codebooks(self, items: int, generator: torch.Generator) -> Tensor:
        """How many of the codebooks each item uses [items]."""
        shares = torch.tensor([*FEW_CODEBOOKS.values(), 1 - sum(FEW_CODEBOOKS.values())])
        drawn = torch.multinomial(shares, items, replacement=True, generator=generator)
        return torch.tensor([*FEW_CODEBOOKS, self.codec.config.codebooks])[drawn]

    def quantize(self, latent: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What the decoder is given for latent [B, T, D], and the commitment loss.

        Moves the codebooks.
        """
        if self.progress.step < self.plan.warm_up_steps:
            return latent, latent.new_zeros(())
        used = self.sample_codebooks(len(latent), generator)
        quantized, commitment, codes, given = codebooks.quantize(self.codec.quantizer, latent, used)
        if not self.progress.frozen:
            codebooks.update(self.codec.quantizer, codes, given, generator)
        for row, layer_codes in zip(self.usage, codes, strict=True):
            row += torch.bincount(layer_codes, minlength=len(row))
        return quantized, commitment

    def encode(
        self, wave: Tensor, as_first: bool, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """What the decoder is given for wave [B, 1, N], and the commitment loss.

        as_first: by the codes of `first`, whatever their entries have become.
        """
        if as_first:
            used = self.sample_codebooks(len(wave), generator)
            codes = self.first.encode(wave)
            return codebooks.look_up(self.codec.quantizer, codes, used), torch.zeros(())
        learns = not self.progress.frozen or self.first is not None
        with mixed(), torch.set_grad_enabled(learns):
            latent = self.codec.encode_latent(wave).float()
        return self.quantize(latent, generator)

    def step(self, wave: Tensor, wanted: Tensor | None = None, known: bool = False) -> None:
        """One update on wave [B, 1, N].

        wanted [B, T, NUMBERS]: its controls, if there are any; known: the talker has its codes.
        """
        generator = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + self.progress.step)
        self.set_learning_rate()
        as_first = bool(
            self.first and known and torch.rand((), generator=generator) < self.plan.known_share
        )
        latent, commitment = self.encode(wave, as_first, generator)
        with mixed():
            state = self.codec.initial_decode_state(len(wave))
            state.position.random_(NOISE_FRAMES, generator=generator)
            spectrum, log_hz, _ = self.codec.decoder.controls(latent, state.histories)
        self.optimizer.zero_grad(set_to_none=True)
        if wanted is None:
            ours, _ = self.codec.decoder.sound(spectrum, log_hz, state)
            terms = self.sound_terms(ours, wave[:, 0])
            terms |= voice_terms(log_hz, spectrum, wave[:, 0]) | {"commitment": commitment}
            loss = sum(weight * terms[name] for name, weight in SOUND_WEIGHTS.items())
            if self.encoder:
                loss = loss + self.plan.encoder_weight * terms["encoder"]
        else:
            terms = control_terms(spectrum, log_hz, wanted) | {"commitment": commitment}
            loss = sum(weight * terms[name] for name, weight in CONTROL_WEIGHTS.items())
            kind = "first" if as_first else "control" if known else "analysed"
            terms = {f"{kind}_{name}": term for name, term in terms.items()}
        self.update(loss, terms)
        self.progress.hours_heard += wave.numel() / SAMPLE_RATE / 3600

    def sound_terms(self, ours: Tensor, wave: Tensor) -> dict[str, Tensor]:
        """How far the decoded waves are from the true ones, both [B, N]."""
        true = delay_as_decoder(wave)
        terms = self.distance(ours, true)
        if self.encoder:
            terms["encoder"] = feature_distance(self.encoder, ours, true)
        return terms

    def update(self, loss: Tensor, terms: dict[str, Tensor]) -> None:
        """The optimizer's step, and what is logged of it."""
        loss.backward()
        norm = nn.utils.clip_grad_norm_([*self.codec.parameters(), *self.entries], 1.0)
        self.optimizer.step()
        self.progress.step += 1
        self.steps_since_report += 1
        for name, value in (terms | {"loss": loss, "norm": norm}).items():
            self.terms.setdefault(name, []).append(float(value.detach()))

    def start_codebooks(self, crops: Crops, batches: int = 8) -> None:
        """Start the codebooks by k-means on the latents of some batches."""
        waves = [crops.batch(self.progress.step + i)[0] for i in range(batches)]
        with torch.no_grad():
            latent = torch.cat([self.codec.encode_latent(wave).flatten(0, 1) for wave in waves])
        generator = torch.Generator().manual_seed(self.plan.seed)
        codebooks.start(self.codec.quantizer, latent, len(latent) // batches, generator)

    @torch.no_grad()
    def validate(self, waves: Tensor) -> dict[str, float]:
        """Distances with all, four and two codebooks (or without quantizer) of waves [B, 1, N].

        Log-mel at the window of 1024, and the pitch in semitones.
        """
        target = self.log_mel(delay_as_decoder(waves[:, 0]))
        latent = self.codec.encode_latent(waves)
        found = {}
        for count in (self.codec.config.codebooks, *sorted(FEW_CODEBOOKS, reverse=True)):
            given = latent
            if self.progress.step >= self.plan.warm_up_steps:
                given = self.codec.dequantize(self.codec.quantize(latent, count))
            state = self.codec.initial_decode_state(len(waves))
            spectrum, log_hz, _ = self.codec.decoder.controls(given, state.histories)
            wave, _ = self.codec.decoder.sound(spectrum, log_hz, state)
            octaves = voice_terms(log_hz, spectrum, waves[:, 0])["pitch"]
            found[f"valid_semitones_{count}"] = 12 * float(octaves)
            found[f"valid_mel_{count}"] = float((self.log_mel(wave) - target).abs().mean())
        return found

    def log_mel(self, wave: Tensor) -> Tensor:
        """wave [B, N] -> its log-mel spectra at the window of 1024."""
        return self.distance.log_mel(self.distance.magnitude(wave, 1024), 1024)

    def report(self, waves: Tensor, out: Path, seconds: float) -> None:
        """A line in the log; `seconds` have passed since the last one."""
        line = {"step": self.progress.step, "minutes": self.progress.seconds / 60}
        line |= self.validate(waves)
        line |= {name: float(np.mean(values)) for name, values in self.terms.items()}
        line["steps_per_s"] = self.steps_since_report / seconds
        line["hours_heard"] = self.progress.hours_heard
        line = {key: round(value, 4) for key, value in line.items()}
        line["use"] = [round(float(share), 2) for share in (self.usage > 0).float().mean(1)]
        share = self.usage / self.usage.sum(1, keepdim=True).clamp(min=1)
        line["perplexity"] = [round(float(torch.special.entr(row).sum().exp())) for row in share]
        line["frozen"] = self.progress.frozen
        log(out, line)
        self.usage.zero_()
        self.terms = {}
        self.steps_since_report = 0

    def save(self, out: Path) -> None:
        """Write the run."""
        codec = self.codec
        save_run(out, codec.state_dict(), codec.config, self.optimizer, asdict(self.progress))

    def resume(self, out: Path) -> None:
        """Go on with the run in `out`, if there is one."""
        progress = resume_run(out, self.codec, self.optimizer, asdict(self.progress))
        self.progress = Progress(**progress)


def build(args: argparse.Namespace) -> Trainer:
    """The trainer that the arguments ask for, as it was saved in --out if it was."""
    names = ("minutes", "lr", "freeze_at", "encoder_weight", "seed")
    plan = CodecPlan(**{name: getattr(args, name) for name in names})
    trainer = Trainer(CodecConfig(), plan)
    if has_run(args.out):
        trainer.resume(args.out)
    elif not args.scratch:
        trainer.begin_from(args.start, args.new_encoder)
    if args.relearn:
        trainer.relearn(load_codec(args.relearn))
    if args.encoder_weight:
        encoder = Encoder(checkpoint.load_config(EncoderConfig, args.encoder))
        encoder.load_state_dict(checkpoint.load_tensors(args.encoder))
        trainer.encoder = encoder.requires_grad_(False).eval()
    return trainer


def open_crops(args: argparse.Namespace) -> tuple[Crops, Tensor]:
    """What the run learns from, and 32 crops [32, 1, N] of the first pool that no run has."""
    controlled = [(ControlPool(folder), share, True) for folder, share in args.controlled]
    controlled += [(ControlPool(folder), share, False) for folder, share in args.analysed]
    pools = [(Pool(folder, "train"), share) for folder, share in args.pool]
    valid = Crops([(Pool(args.pool[0][0], "valid"), 1.0)], args.seed)
    return Crops(pools, args.seed, controlled), valid.batch(0, 32)[0]


def train(args: argparse.Namespace) -> None:
    """Learn until the time is over; a line in the log every 250 steps."""
    trainer = build(args)
    crops, valid = open_crops(args)
    progress = trainer.progress
    clock = RunClock(progress.seconds)
    reported = progress.seconds
    while progress.seconds < 60 * args.minutes:
        if progress.step == trainer.plan.warm_up_steps:
            trainer.start_codebooks(crops)
        trainer.step(*crops.batch(progress.step))
        if not progress.frozen and progress.seconds >= args.freeze_at * 60 * args.minutes:
            progress.frozen = True
            trainer.save(args.out)
            (args.out / "FROZEN").touch()
        progress.seconds = clock.seconds()
        if progress.step % 250 == 0:
            trainer.report(valid, args.out, progress.seconds - reported)
            reported = progress.seconds
        if clock.minutes_unsaved() > args.save_minutes:
            trainer.save(args.out)
            clock.mark_saved()
    trainer.save(args.out)


def add_beginning(parser: argparse.ArgumentParser) -> None:
    """What a run begins with, and which parts of it learn."""
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument(
        "--start",
        type=part_folder,
        default=DEFAULT_AGENT / "codec",
        metavar="FOLDER",
        help="codec whose decoder is trained on; its codes stay (default: the shipped agent's)",
    )
    begin.add_argument("--scratch", action="store_true", help="begin with random weights instead")
    parser.add_argument(
        "--relearn",
        type=part_folder,
        metavar="FOLDER",
        help="the encoder of --start learns on too; codes keep what they mean to this codec",
    )
    parser.add_argument(
        "--new-encoder",
        action="store_true",
        help="with --relearn: the encoder begins anew, with what CodecConfig says",
    )
    parser.add_argument(
        "--freeze-at",
        type=float,
        default=CodecPlan.freeze_at,
        help="share of the time after which codes are final (default %(default)s)",
    )


def add_pools(parser: argparse.ArgumentParser) -> None:
    """What a run learns from."""
    for name, help in (
        ("pool", "speech pool and its share of the batches, repeatable; the first validates"),
        ("controlled", "the same with its synthesizer's controls (duplex.training.controls)"),
        ("analysed", "recorded speech with its controls: the talker has none of its codes"),
    ):
        parser.add_argument(
            f"--{name}",
            type=pool_share,
            action="append",
            default=[],
            required=name == "pool",
            metavar="FOLDER[=SHARE]",
            help=help,
        )


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_beginning(parser)
    add_pools(parser)
    add_part(parser, "encoder", "the agent's encoder, which is to hear the same in both sounds")
    parser.add_argument(
        "--encoder-weight",
        type=float,
        default=CodecPlan.encoder_weight,
        help="of what it hears, in the loss; 0: nothing (default %(default)s)",
    )
    add_minutes(parser, CodecPlan.minutes)
    add_run(parser, CodecPlan.lr)
    args = parser.parse_args(arguments)
    if args.relearn and args.scratch:
        parser.error("--relearn needs --start, the codec whose encoder is to learn on")
    for folder, _ in args.controlled + args.analysed:
        if not (folder / "controls.f16").exists():
            parser.error(f"{folder} has no controls.f16: duplex.training.controls makes such pools")
    return args


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    describe_run(args, "duplex.training.codec")
    train(args)


if __name__ == "__main__":
    main()
