"""Train the codec on speech pools: python -m duplex.training.codec --out runs/codec --pool pools/a 0.5 --pool pools/b 0.5

First without quantizer, then the codebooks start by k-means. After `--freeze-at` of the time encoder and codebooks stay
as they are, the file FROZEN appears in the output folder (codes made from then on stay valid), and the decoder goes on
alone. The voice is learned from magnitudes and from the pitch (`duplex.training.data.pitch`), never from the waveform: the codes then need to
carry no phase and are easier to predict. Where the speech's own synthesiser is known (`duplex.training.controls`, --controlled),
or what it is made of was found (--analysed), the decoder learns these controls instead, phases too. Runs again with the same --out
go on where the last one stopped.

With --relearn FOLDER the encoder of --start learns on as well, so that other voices find their place among the codes, and so do
the codebooks' entries, by gradient; codes that the codec in FOLDER (from which the talker learned) makes of the controlled voices
still mean the same. With --ears what the agent hears in the decoded sound shall be what it hears in the true one.

duplex.training.export writes a run's weights in half precision.
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
from safetensors import safe_open
from torch import Tensor, nn

from duplex import checkpoint
from duplex.audio import SAMPLE_RATE
from duplex.model.codec import Codec, CodecConfig, load_codec, save_codec
from duplex.model.encoder import Encoder, EncoderConfig
from duplex.model.vocoder import NOISE_FRAMES

WARM_UP_STEPS = 250  # without quantizer
KMEANS_BATCHES = 8
RATE_RISE_STEPS = 100
FEW_CODEBOOKS = {2: 0.03, 4: 0.05}  # share of the items that use only so many; the rest use all
CONTROL_WEIGHTS = {"noise": 1.0, "harmonic": 1.0, "bands": 6.0, "turn": 1.0, "pitch": 4.0}
MEL_WEIGHT, MAGNITUDE_WEIGHT, PITCH_WEIGHT, BUZZ_WEIGHT, COMMITMENT_WEIGHT = (
    1.0,
    5.0,
    2.0,
    0.5,
    0.25,
)
CONTROLS_COMMITMENT_WEIGHT = 1.5
EARS_WEIGHT = 2.0
CODEBOOKS_RATE = 0.1  # of the others', in a run with --relearn: entries of the last codebooks are no larger than 0.05
FIRST_SHARE = 0.5  # of the controlled batches are encoded as before, in a run with --relearn
LOG_EVERY_STEPS = 250
VALID_CROPS = 32


@dataclass
class Progress:
    step: int = 0
    seconds: float = 0.0  # of training, over all runs
    hours_heard: float = 0.0
    frozen: bool = False


class Trainer:
    """The codec, its optimizer and how far it has come."""

    def __init__(
        self,
        config: CodecConfig,
        seed: int,
        minutes: float,
        freeze_at: float,
        rate: float,
    ):
        torch.manual_seed(seed)
        self.codec, self.losses, self.progress = Codec(config), SpectralDistance(), Progress()
        self.entries = [
            layer.codebook for layer in self.codec.quantizer.vq.layers
        ]  # the optimizer's only after `relearn`
        groups = [
            list(self.codec.encoder.parameters()),
            list(self.codec.decoder.parameters()),
            self.entries,
        ]
        self.optimizer = torch.optim.AdamW(
            [{"params": g} for g in groups], lr=rate, betas=(0.8, 0.99), fused=True
        )
        self.seed, self.limit, self.freeze_at, self.rate = seed, 60 * minutes, freeze_at, rate
        self.first: Codec | None = (
            None  # whose codes are to keep their meaning while the encoder learns on
        )
        self.ears: Encoder | None = None
        self.ears_weight = EARS_WEIGHT
        self.usage = torch.zeros(config.codebooks, config.codebook_size)
        self.sums: dict[str, list[float]] = {}
        self.summed = 0  # steps in them

    def begin_from(self, folder: Path, new_encoder: bool = False) -> None:
        """A codec's weights, or all but its encoder's; blocks and inputs that it has none for add nothing at first."""
        kept = {
            name: v
            for name, v in checkpoint.load_tensors(folder).items()
            if not (new_encoder and name.startswith("encoder."))
        }
        missing = self.codec.load_state_dict(kept, strict=False).missing_keys
        for name, value in self.codec.named_parameters():
            new = name in missing and not (new_encoder and name.startswith("encoder."))
            if new and ("layer_scale" in name or ".from_" in name):
                value.data.zero_()

    def relearn(self, first: Codec) -> None:
        """The encoder is to learn on, and the codebooks' entries; the codes that `first` gives known voices keep their meaning."""
        self.first = first.requires_grad_(False)
        for entries in self.entries:
            entries.requires_grad_()

    def set_rates(self) -> None:
        """Two cosines over time: the encoder's ends where it is frozen, the others' at the end."""
        rise = min(1.0, (self.progress.step + 1) / RATE_RISE_STEPS)
        shares, rates = (
            (self.freeze_at, 1.0, 1.0),
            (self.rate, self.rate, CODEBOOKS_RATE * self.rate),
        )
        for group, share, rate in zip(self.optimizer.param_groups, shares, rates, strict=True):
            done = min(1.0, self.progress.seconds / (share * self.limit))
            group["lr"] = rate * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))

    def drawn_codebooks(self, items: int, generator: torch.Generator) -> Tensor:
        """How many of the codebooks each item uses [items]."""
        shares = torch.tensor([*FEW_CODEBOOKS.values(), 1 - sum(FEW_CODEBOOKS.values())])
        drawn = torch.multinomial(shares, items, replacement=True, generator=generator)
        return torch.tensor([*FEW_CODEBOOKS, self.codec.config.codebooks])[drawn]

    def quantized(self, latent: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """latent [B, T, D] -> what the decoder is given, commitment loss; moves the codebooks."""
        if self.progress.step < WARM_UP_STEPS:
            return latent, latent.new_zeros(())
        used = self.drawn_codebooks(len(latent), generator)
        quantized, commitment, codes, given = codebooks.quantize(self.codec.quantizer, latent, used)
        if not self.progress.frozen:
            codebooks.update(self.codec.quantizer, codes, given, generator)
        for row, layer_codes in zip(self.usage, codes, strict=True):
            row += torch.bincount(layer_codes, minlength=len(row))
        return quantized, commitment

    def step(self, wave: Tensor, wanted: Tensor | None = None, known: bool = False) -> None:
        """One update on wave [B, 1, N]; wanted [B, T, NUMBERS]: its controls, if there are any; known: the talker has its codes."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.progress.step)
        self.set_rates()
        as_first = self.first and known and torch.rand((), generator=generator) < FIRST_SHARE
        if as_first:  # the same codes, whatever their entries have become
            used = self.drawn_codebooks(len(wave), generator)
            latent, commitment = (
                codebooks.look_up(self.codec.quantizer, self.first.encode(wave), used),
                torch.zeros(()),
            )
        else:
            with (
                mixed(),
                torch.set_grad_enabled(not self.progress.frozen or self.first is not None),
            ):
                latent = self.codec.encode_latent(wave).float()
            latent, commitment = self.quantized(latent, generator)
        with mixed():
            state = self.codec.initial_decode_state(len(wave))
            state.position.random_(NOISE_FRAMES, generator=generator)
            spectrum, log_hz, _ = self.codec.decoder.controls(latent, state.histories)
        self.optimizer.zero_grad(set_to_none=True)
        if wanted is not None:
            terms = control_terms(spectrum, log_hz, wanted)
            loss = sum(CONTROL_WEIGHTS[name] * term for name, term in terms.items())
            loss = loss + CONTROLS_COMMITMENT_WEIGHT * commitment
            kind = "first" if as_first else "control" if known else "analysed"
            self.finish(
                wave,
                loss,
                {
                    f"{kind}_{name}": term
                    for name, term in (terms | {"commitment": commitment}).items()
                },
            )
            return
        ours, _ = self.codec.decoder.sound(spectrum, log_hz, state)
        terms = self.losses(ours, delay_as_decoder(wave[:, 0])) | voice_terms(
            log_hz, spectrum, wave[:, 0]
        )
        loss = (
            MEL_WEIGHT * terms["mel"]
            + MAGNITUDE_WEIGHT * terms["magnitude"]
            + PITCH_WEIGHT * terms["pitch"]
        )
        loss = loss + BUZZ_WEIGHT * terms["buzz"] + COMMITMENT_WEIGHT * commitment
        if self.ears:
            terms["ears"] = feature_distance(self.ears, ours, delay_as_decoder(wave[:, 0]))
            loss = loss + self.ears_weight * terms["ears"]
        self.finish(wave, loss, terms | {"commitment": commitment})

    def finish(self, wave: Tensor, loss: Tensor, terms: dict[str, Tensor]) -> None:
        """The optimizer's step, and what is logged of it."""
        loss.backward()
        norm = nn.utils.clip_grad_norm_([*self.codec.parameters(), *self.entries], 1.0)
        self.optimizer.step()
        self.progress.step += 1
        self.progress.hours_heard += wave.numel() / SAMPLE_RATE / 3600
        self.summed += 1
        for name, value in (terms | {"loss": loss, "norm": norm}).items():
            self.sums.setdefault(name, []).append(float(value.detach()))

    def start_codebooks(self, crops: Crops) -> None:
        waves = [crops.batch(self.progress.step + i)[0] for i in range(KMEANS_BATCHES)]
        with torch.no_grad():
            latent = torch.cat([self.codec.encode_latent(wave).flatten(0, 1) for wave in waves])
        generator = torch.Generator().manual_seed(self.seed)
        codebooks.start(self.codec.quantizer, latent, len(latent) // KMEANS_BATCHES, generator)

    @torch.no_grad()
    def validate(self, waves: Tensor) -> dict[str, float]:
        """Log-mel distance at the window of 1024 with all, four and two codebooks (or without quantizer)."""
        target = self.losses.log_mel(
            self.losses.magnitude(delay_as_decoder(waves[:, 0]), 1024), 1024
        )
        latent, result = self.codec.encode_latent(waves), {}
        for number in (self.codec.config.codebooks, *sorted(FEW_CODEBOOKS, reverse=True)):
            given = latent
            if self.progress.step >= WARM_UP_STEPS:
                given = self.codec.dequantize(self.codec.quantize(latent, number))
            state = self.codec.initial_decode_state(len(waves))
            spectrum, log_hz, _ = self.codec.decoder.controls(given, state.histories)
            wave, _ = self.codec.decoder.sound(spectrum, log_hz, state)
            result[f"valid_semitones_{number}"] = 12 * float(
                voice_terms(log_hz, spectrum, waves[:, 0])["pitch"]
            )
            ours = self.losses.log_mel(self.losses.magnitude(wave, 1024), 1024)
            result[f"valid_mel_{number}"] = float((ours - target).abs().mean())
        return result

    def report(self, waves: Tensor, out: Path, steps_per_s: float) -> None:
        line = {"step": self.progress.step, "minutes": self.progress.seconds / 60} | self.validate(
            waves
        )
        line |= {name: float(np.mean(values)) for name, values in self.sums.items()}
        line |= {"steps_per_s": steps_per_s, "hours_heard": self.progress.hours_heard}
        line = {key: round(value, 4) for key, value in line.items()}
        line["use"] = [round(float(share), 2) for share in (self.usage > 0).float().mean(1)]
        share = self.usage / self.usage.sum(1, keepdim=True).clamp(min=1)
        line["perplexity"] = [round(float(torch.special.entr(row).sum().exp())) for row in share]
        line["frozen"] = self.progress.frozen
        log(out, line)
        self.usage.zero_()
        self.sums, self.summed = {}, 0

    def save(self, out: Path) -> None:
        """model.safetensors and config.json for readers; training.safetensors is all of it, to go on from."""
        save_codec(self.codec, out)
        tensors = {f"model.{key}": value for key, value in self.codec.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        partial = out / "training.safetensors.part"
        safetensors.torch.save_file(
            tensors, partial, {"progress": json.dumps(asdict(self.progress))}
        )
        os.replace(partial, out / "training.safetensors")

    def load(self, out: Path) -> None:
        path = out / "training.safetensors"
        with safe_open(path, "pt") as file:
            self.progress = Progress(**json.loads(file.metadata()["progress"]))
        tensors = safetensors.torch.load_file(path)
        self.codec.load_state_dict(
            {
                key.removeprefix("model."): value
                for key, value in tensors.items()
                if key.startswith("model.")
            }
        )
        state = self.optimizer.state_dict()
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                index, field = key.removeprefix("optimizer.").split(".")
                state["state"].setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict(state)


def train(args: argparse.Namespace) -> None:
    trainer = Trainer(CodecConfig(), args.seed, args.minutes, args.freeze_at, args.rate)
    if (args.out / "training.safetensors").exists():
        trainer.load(args.out)
    elif args.start:
        trainer.begin_from(args.start, args.new_encoder)
        trainer.progress.frozen, trainer.progress.step = True, WARM_UP_STEPS + 1
    if args.relearn:
        trainer.relearn(load_codec(args.relearn))
    if args.ears:
        trainer.ears = (
            Encoder(checkpoint.load_config(EncoderConfig, args.ears)).requires_grad_(False).eval()
        )
        trainer.ears.load_state_dict(checkpoint.load_tensors(args.ears))
        trainer.ears_weight = args.ears_weight
    pools = [(folder, float(share)) for folder, share in args.pool]
    controlled = [(ControlPool(folder), float(share), True) for folder, share in args.controlled]
    controlled += [(ControlPool(folder), float(share), False) for folder, share in args.analysed]
    crops = Crops(
        [(Pool(folder, "train"), share) for folder, share in pools], args.seed, controlled
    )
    valid = Crops([(Pool(pools[0][0], "valid"), 1.0)], args.seed).batch(0, VALID_CROPS)[0]
    progress, saved, reported = trainer.progress, time.monotonic(), trainer.progress.seconds
    while progress.seconds < trainer.limit:
        began = time.monotonic()
        if progress.step == WARM_UP_STEPS:
            trainer.start_codebooks(crops)
        trainer.step(*crops.batch(progress.step))
        if not progress.frozen and progress.seconds >= trainer.freeze_at * trainer.limit:
            progress.frozen = True
            trainer.save(args.out)
            (args.out / "FROZEN").touch()
        if progress.step % LOG_EVERY_STEPS == 0:
            trainer.report(valid, args.out, trainer.summed / (progress.seconds - reported))
            reported = progress.seconds
        if time.monotonic() - saved > args.save_every:
            trainer.save(args.out)
            saved = time.monotonic()
        progress.seconds += time.monotonic() - began
    trainer.save(args.out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--pool", nargs=2, action="append", metavar=("FOLDER", "SHARE"), help="the first validates"
    )
    known = "the same with the controls of its synthesiser (duplex.training.controls): whole batches, of its share"
    parser.add_argument(
        "--controlled",
        nargs=2,
        action="append",
        default=[],
        metavar=("FOLDER", "SHARE"),
        help=known,
    )
    apart = "recorded speech with what it is made of (duplex.training.controls --recorded): the same, but the talker has none of its codes"
    parser.add_argument(
        "--analysed", nargs=2, action="append", default=[], metavar=("FOLDER", "SHARE"), help=apart
    )
    parser.add_argument(
        "--start",
        type=Path,
        help="folder of a codec whose decoder is trained on; its codes stay as they are",
    )
    parser.add_argument(
        "--relearn",
        type=Path,
        metavar="FOLDER",
        help="with --start: its encoder learns on too, see above",
    )
    parser.add_argument(
        "--new-encoder",
        action="store_true",
        help="with --relearn: it begins anew, with what CodecConfig says",
    )
    parser.add_argument(
        "--ears",
        type=Path,
        help="folder of the agent's encoder, to which both sounds shall be the same",
    )
    parser.add_argument(
        "--ears-weight", type=float, default=EARS_WEIGHT, help="of what they hear, in the loss"
    )
    parser.add_argument("--minutes", type=float, default=50, help="length of the whole training")
    parser.add_argument(
        "--freeze-at", type=float, default=0.4, help="share of the time after which codes are final"
    )
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save-every", type=float, default=180, help="seconds between checkpoints")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.relearn and not args.start:
        parser.error("--relearn needs --start, the codec whose encoder is to learn on")
    describe_run(args, "duplex.training.codec")
    train(args)


if __name__ == "__main__":
    main()
