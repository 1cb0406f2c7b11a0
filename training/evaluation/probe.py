"""How much past each layer of the encoder uses, and how many of its units work.

    python -m duplex.training.evaluate hearing --probe --encoder runs/encoder --pool pools/real \\
        --out runs/evaluation

It tells what the encoder's window and size should be. Context is as in Meng, Goldwater and Tang,
"Effective Context in Neural Speech Models" (Interspeech 2025): by the norm of the Jacobian of a
layer's output with respect to earlier frames, and by cutting the past off; beside it where
attention looks. A unit of an MLP counts by how much its changes move the layer's output. Sound is a
pool's clips, one after the other. In shapes: T frames, C the encoder's width, 8n mel frames.
"""

import argparse
import copy
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from duplex.audio import ENCODER_FRAME_S, SAMPLE_RATE, TICK_SAMPLES
from duplex.model import features
from duplex.model.encoder import Block, Encoder
from duplex.model.lexicon import Lexicon
from duplex.training.evaluation.error_rate import error_rate
from duplex.training.evaluation.hearing import AFTER_TICKS, open_recognizer, valid_clips
from duplex.training.scenes.recognition import decode_words, join_words
from duplex.weights import DEFAULT_AGENT


@dataclass
class Stream:
    """Clips of a pool, one after the other."""

    text: str
    mel: torch.Tensor  # [1, 8n, 80]


@dataclass
class Activity:
    """What went on in an encoder while it heard something."""

    attention: torch.Tensor  # [layers, heads, window], by how far back it looks
    units: list[torch.Tensor]  # of each layer its MLP's activations, [T, 4C]
    # Of each layer its output [T, C], as the norm behind it reads it: before the norm a few
    # channels outshine all others.
    outputs: list[torch.Tensor]


def held(curve: torch.Tensor, share: float) -> torch.Tensor:
    """How many of the first entries hold this share of the sum; curve [..., D] -> [...]."""
    return ((curve.cumsum(-1) / curve.sum(-1, keepdim=True)) < share - 1e-6).sum(-1) + 1


def convolved(encoder: Encoder, mel: torch.Tensor) -> torch.Tensor:
    """mel [1, 8n, 80] -> what the first layer gets, [1, T, C]."""
    start = encoder.initial_state(1, ring=0)
    return encoder._convolve(start.mel_tail, mel, start.conv_tail)[0]


def attention_by_distance(block: Block, x: torch.Tensor) -> torch.Tensor:
    """x [1, T, C] -> attention over how far back, [heads, window].

    Of those frames that have a whole window behind them.
    """
    q, k, _ = block.project(x)
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(2, 3) + block.clip_bias(x.shape[1])
    attention = scores.softmax(-1)[0]  # [heads, T, T]
    window = block.distance_bias.shape[1]
    assert x.shape[1] >= window, f"{x.shape[1]} frames are less than the window of {window}"
    rows = torch.arange(window - 1, x.shape[1])
    index = rows[:, None] - torch.arange(window)
    return attention[:, rows].gather(2, index.expand(len(attention), -1, -1)).mean(1)


def influence(encoder: Encoder, mel: torch.Tensor, targets: int = 3) -> torch.Tensor:
    """mel [1, 8n, 80] -> Jacobian norm of each layer's output by distance, [layers, reach].

    The distance is that of the first layer's input. Of a Jacobian's blocks only the product with a
    random vector is taken, whose mean square length is their norm. `targets`: frames whose
    gradients are taken, half a second apart.
    """
    frames = convolved(encoder, mel).detach().requires_grad_()
    reach = encoder.config.layers * encoder.config.window
    x = frames
    curves = torch.zeros(encoder.config.layers, reach)
    for block, curve in zip(encoder.blocks, curves, strict=True):
        x = block.attend(x, *block.project(x), block.clip_bias(x.shape[1]))
        for target in range(x.shape[1] - 1, x.shape[1] - 1 - 25 * targets, -25):
            direction = torch.randn(x.shape[2])
            output = (x[0, target] * direction).sum()
            (gradient,) = torch.autograd.grad(output, frames, retain_graph=True)
            norms = gradient[0, : target + 1].norm(dim=1).flip(0)[:reach]
            curve[: len(norms)] += norms
    return curves


@torch.no_grad()
def activity(encoder: Encoder, mels: list[torch.Tensor]) -> Activity:
    """What goes on in an encoder over streams, mel [1, 8n, 80] each."""
    readers = [*(block.norm1 for block in encoder.blocks[1:]), encoder.norm]
    attention: list[list[torch.Tensor]] = [[] for _ in encoder.blocks]
    units: list[list[torch.Tensor]] = [[] for _ in encoder.blocks]
    outputs: list[list[torch.Tensor]] = [[] for _ in encoder.blocks]
    hooks = [
        block.down.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0][0]))
        for block, seen in zip(encoder.blocks, units, strict=True)
    ]
    for mel in mels:
        x = convolved(encoder, mel)
        for n, block in enumerate(encoder.blocks):
            attention[n].append(attention_by_distance(block, x))
            x = block.attend(x, *block.project(x), block.clip_bias(x.shape[1]))
            outputs[n].append(readers[n](x[0]))
    for hook in hooks:
        hook.remove()
    return Activity(
        torch.stack([torch.stack(of_layer).mean(0) for of_layer in attention]),
        [torch.cat(of_layer) for of_layer in units],
        [torch.cat(of_layer) for of_layer in outputs],
    )


def contribution(block: Block, activations: torch.Tensor) -> torch.Tensor:
    """activations [T, 4C] -> how much each unit moves the layer's output, [4C]."""
    return activations.std(0) * block.down.weight.norm(dim=0)


def effective_rank(x: torch.Tensor) -> float:
    """x [T, C] -> how many directions it varies in: the entropy of the variances, exponentiated."""
    variance = torch.linalg.svdvals(x - x.mean(0)).square()
    return float(torch.special.entr(variance / variance.sum()).sum().exp())


def with_window(encoder: Encoder, frames: int) -> Encoder:
    """The encoder with no layer looking farther back."""
    encoder = copy.deepcopy(encoder)
    for block in encoder.blocks:
        block.distance_bias.data[:, frames:] = -torch.inf
    return encoder


def with_fewer_units(encoder: Encoder, units: list[torch.Tensor], share: float) -> Encoder:
    """The encoder with the least of every layer's units standing still at their mean."""
    encoder = copy.deepcopy(encoder)
    for block, activations in zip(encoder.blocks, units, strict=True):
        count = round((1 - share) * activations.shape[1])
        still = contribution(block, activations).argsort()[:count]
        weight = block.down.weight.data
        block.down.bias.data += weight[:, still] @ activations.mean(0)[still]
        weight[:, still] = 0
    return encoder


@torch.no_grad()
def likeliest_phones(
    encoder: Encoder, lexicon: Lexicon, streams: list[Stream]
) -> tuple[float, torch.Tensor]:
    """WER of an encoder, and the likeliest phone of every frame of all streams, [T]."""
    log_probs = [encoder(stream.mel)[1][0] for stream in streams]
    heard = [join_words(decode_words(lexicon, of_stream)) for of_stream in log_probs]
    wer = error_rate([stream.text for stream in streams], heard)
    return wer, torch.cat([of_stream.argmax(-1) for of_stream in log_probs])


def probe_layers(
    encoder: Encoder,
    mels: list[torch.Tensor],
    jacobians: int = 4,
    shares: tuple[float, ...] = (0.9, 0.99),
) -> tuple[list[dict], dict[str, torch.Tensor], list[torch.Tensor]]:
    """A row of figures for every layer, its curves by name [layers, ...], its units' activations.

    Gradients are taken of the first `jacobians` streams, which are long enough and cheap enough.
    shares: of a curve's sum, for which is told how many of its first entries hold them.
    """
    found = activity(encoder, mels)
    reach = torch.stack([influence(encoder, mel) for mel in mels[:jacobians]]).mean(0)
    work = [contribution(*pair) for pair in zip(encoder.blocks, found.units, strict=True)]
    work = torch.stack(work).detach()
    moved = work.square().sort(1, descending=True).values
    rows = []
    for n, attention in enumerate(found.attention):
        # A unit that moves the output less than a tenth of the mean one is idle.
        is_at_work = work[n] > 0.1 * work[n].mean()
        rows.append(
            {
                "attention s": [_seconds(held(attention.mean(0), share)) for share in shares],
                "each head s": [_seconds(frames) for frames in held(attention, shares[0])],
                "influence s": [_seconds(held(reach[n], share)) for share in shares],
                "units at work": int(is_at_work.sum()),
                "units that hold": [int(held(moved[n], share)) for share in shares],
                "units": work.shape[1],
                "effective rank": round(effective_rank(found.outputs[n]), 1),
                "channels": found.outputs[n].shape[1],
            }
        )
    curves = {"attention": found.attention.mean(1), "influence": reach, "units": moved}
    return rows, curves, found.units


def _seconds(frames: torch.Tensor) -> float:
    return round(float(frames) * ENCODER_FRAME_S, 2)


def streams_of(pool: Path, clips: int, seconds: float) -> list[Stream]:
    """Clips end to end, in streams that are at least so long."""
    streams: list[Stream] = []
    texts: list[str] = []
    waves: list[np.ndarray] = []
    for text, wave in zip(*valid_clips(pool, clips), strict=True):
        texts.append(text)
        waves.append(np.pad(wave, (0, AFTER_TICKS * TICK_SAMPLES)))
        if sum(map(len, waves)) >= seconds * SAMPLE_RATE:
            sound = torch.from_numpy(np.concatenate(waves))
            sound = F.pad(sound, (0, -len(sound) % TICK_SAMPLES))[None]
            mel, _ = features.log_mel(sound, features.initial_state(1))
            streams.append(Stream(" ".join(texts), mel))
            texts = []
            waves = []
    assert streams, f"{clips} clips of {pool} are shorter than {seconds:.0f} s: more --clips"
    return streams


def plot_probe(
    curves: dict[str, torch.Tensor], windows: dict[float, list[float]], path: Path
) -> None:
    """A picture of a layer's curves, [layers, ...] each, and of the error rate by window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(20, 4.5), layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 4)
    scales = {
        "attention": (ENCODER_FRAME_S, "s back"),
        "influence": (ENCODER_FRAME_S, "s back"),
        "units": (1, "units, the busiest first"),
    }
    for axis, (name, curve) in zip(axes, curves.items(), strict=False):
        scale, label = scales[name]
        for n, line in enumerate(curve.cumsum(1) / curve.sum(1, keepdim=True)):
            axis.plot(scale * torch.arange(1, len(line) + 1), line, label=f"layer {n + 1}")
        axis.set(title=f"{name}: share held", xlabel=label, ylim=(0, 1.02))
        axis.legend()
    last = axes[3]
    last.plot(list(windows), [100 * wer for wer, _ in windows.values()], marker="o")
    title = "no layer looks farther back than"
    last.set(title=title, xlabel="s", xscale="log", ylabel="word error rate, %")
    last.set_xticks([*windows], [f"{seconds:.2f}" for seconds in windows], minor=False)
    last.minorticks_off()
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=80)


def probe_pool(args: argparse.Namespace, encoder: Encoder, lexicon: Lexicon, pool: Path) -> dict:
    """What is to be said of an encoder by one pool's clips; prints it and leaves a picture."""
    config = encoder.config
    streams = streams_of(pool, args.clips, config.layers * config.window * ENCODER_FRAME_S)
    rows, curves, units = probe_layers(encoder, [stream.mel for stream in streams])
    whole_wer, usual = likeliest_phones(encoder, lexicon, streams)

    def trial(smaller: Encoder) -> list[float]:
        """WER of a smaller encoder, and the share of frames in which it hears something else."""
        wer, phones = likeliest_phones(smaller, lexicon, streams)
        return [round(wer, 3), round(float((phones != usual).float().mean()), 3)]

    windows = {config.window * ENCODER_FRAME_S: [round(whole_wer, 3), 0.0]}
    for halvings in range(1, 6):
        frames = config.window >> halvings
        windows[frames * ENCODER_FRAME_S] = trial(with_window(encoder, frames))
    sizes = {1.0: [round(whole_wer, 3), 0.0]}
    for share in (0.75, 0.5, 0.25):
        sizes[share] = trial(with_fewer_units(encoder, units, share))

    seconds = sum(stream.mel.shape[1] for stream in streams) / 100
    print(f"{pool.name}: {len(streams)} streams, {seconds:.0f} s")
    for n, row in enumerate(rows):
        print(n + 1, json.dumps(row))
    for name, table in (("window s", windows), ("share of the units", sizes)):
        for key, (wer, changed) in table.items():
            print(f"{name} {key:.2f}: WER {wer:.3f}, {changed:.1%} of frames differ")
    picture = args.result.with_name(f"{args.result.stem}-{pool.name}.png")
    plot_probe(curves, windows, picture)
    return {
        "layers": rows,
        "window s: WER, frames that differ": windows,
        "units: WER, frames that differ": sizes,
    }


def probe(args: argparse.Namespace) -> dict:
    """`evaluate hearing --probe`."""
    recognizer = open_recognizer(args.agent or DEFAULT_AGENT, args.encoder)
    torch.manual_seed(args.seed)
    return {
        pool.name: probe_pool(args, recognizer.encoder, recognizer.lexicon, pool)
        for pool in args.pool
    }
