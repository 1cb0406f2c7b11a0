"""How much past each layer of the ears uses, and how many of its units work: what its window and its size should be.

    python -m duplex.training.evaluate ears --probe --encoder runs/encoder --pool pools/real --out runs/evaluation

Context as in Meng, Goldwater and Tang, "Effective Context in Neural Speech Models" (Interspeech 2025): by the norm of the
Jacobian of a layer's output with respect to earlier frames, and by cutting the past off; beside it where attention looks.
A unit of an MLP counts by how much its changes move the layer's output. Sound is a pool's clips, one after the other.
"""

import copy
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from duplex.training.evaluation.error_rate import error_rate
from duplex.training.evaluation.hearing import AFTER_TICKS, open_recognizer, valid_clips
from duplex.training.scenes.recognition import decode_words, join_words

from duplex.audio import (
    ENCODER_FRAME_S,
    SAMPLE_RATE,
    TICK_SAMPLES,
)
from duplex.model import features
from duplex.model.encoder import Block, Encoder
from duplex.model.lexicon import Lexicon

SHARES = (0.9, 0.99)
AT_WORK = 0.1  # of a layer's mean contribution: a unit that moves the output less than so is idle
JACOBIANS = 4  # streams that are long enough and cheap enough to take gradients of
TARGETS = 3  # frames of each whose gradients are taken, half a second apart
KEPT = (0.75, 0.5, 0.25)  # shares of every layer's units in the trial of smaller layers


def held(curve: torch.Tensor, share: float) -> torch.Tensor:
    """How many of the first entries hold this share of the sum; curve [..., D] -> [...]."""
    return ((curve.cumsum(-1) / curve.sum(-1, keepdim=True)) < share - 1e-6).sum(-1) + 1


def convolved(encoder: Encoder, mel: torch.Tensor) -> torch.Tensor:
    """mel [1, 8n, 80] -> what the first layer gets [1, T, C]."""
    start = encoder.initial_state(1, ring=0)
    return encoder._convolve(start.mel_tail, mel, start.conv_tail)[0]


def attention_by_distance(block: Block, x: torch.Tensor) -> torch.Tensor:
    """x [1, T, C] -> [heads, window] attention over how far back, of those frames that have a whole window behind them."""
    q, k, _ = block.project(x)
    weights = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3) + block.clip_bias(x.shape[1])).softmax(
        -1
    )[0]  # [heads, T, T]
    window = block.distance_bias.shape[1]
    assert x.shape[1] >= window, f"{x.shape[1]} frames are less than the window of {window}"
    rows = torch.arange(window - 1, x.shape[1])
    index = rows[:, None] - torch.arange(window)
    return weights[:, rows].gather(2, index.expand(len(weights), -1, -1)).mean(1)


def influence(encoder: Encoder, mel: torch.Tensor) -> torch.Tensor:
    """mel [1, 8n, 80] -> [layers, reach]: Jacobian norm of a layer's output by the distance of the first layer's input.

    Of a Jacobian's blocks only the product with a random vector is taken, whose mean square length is their norm.
    """
    frames = convolved(encoder, mel).detach().requires_grad_()
    reach = encoder.config.layers * encoder.config.window
    x, curves = frames, torch.zeros(encoder.config.layers, reach)
    for block, curve in zip(encoder.blocks, curves, strict=True):
        x = block.attend(x, *block.project(x), block.clip_bias(x.shape[1]))
        for target in range(x.shape[1] - 1, x.shape[1] - 1 - 25 * TARGETS, -25):
            direction = torch.randn(x.shape[2])
            (gradient,) = torch.autograd.grad(
                (x[0, target] * direction).sum(), frames, retain_graph=True
            )
            norms = gradient[0, : target + 1].norm(dim=1).flip(0)[:reach]
            curve[: len(norms)] += norms
    return curves


@torch.no_grad()
def activity(encoder: Encoder, mels: list[torch.Tensor]) -> tuple:
    """-> attention by distance [layers, heads, window], each layer's activations [frames, 4C] and outputs [frames, C].

    The outputs are as the norm behind the layer reads them: before it a few channels outshine all others.
    """
    readers = [*(block.norm1 for block in encoder.blocks[1:]), encoder.norm]
    looks, units, outputs = ([[] for _ in encoder.blocks] for _ in range(3))
    pairs = zip(encoder.blocks, units, strict=True)
    hooks = [
        block.down.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0][0]))
        for block, seen in pairs
    ]
    for mel in mels:
        x = convolved(encoder, mel)
        for n, block in enumerate(encoder.blocks):
            looks[n].append(attention_by_distance(block, x))
            x = block.attend(x, *block.project(x), block.clip_bias(x.shape[1]))
            outputs[n].append(readers[n](x[0]))
    for hook in hooks:
        hook.remove()
    mass = torch.stack([torch.stack(look).mean(0) for look in looks])
    return mass, [torch.cat(u) for u in units], [torch.cat(o) for o in outputs]


def contribution(block: Block, activations: torch.Tensor) -> torch.Tensor:
    """activations [frames, 4C] -> how much each unit moves the layer's output [4C]."""
    return activations.std(0) * block.down.weight.norm(dim=0)


def effective_rank(x: torch.Tensor) -> float:
    """x [frames, C] -> how many directions it varies in: the entropy of the variances along them, exponentiated."""
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
        still = contribution(block, activations).argsort()[
            : round((1 - share) * activations.shape[1])
        ]
        weight = block.down.weight.data
        block.down.bias.data += weight[:, still] @ activations.mean(0)[still]
        weight[:, still] = 0
    return encoder


@torch.no_grad()
def trial(
    encoder: Encoder,
    lexicon: Lexicon,
    streams: list[tuple[str, torch.Tensor]],
    usual: list[torch.Tensor] | None,
) -> tuple:
    """-> WER, share of frames that hear something else than `usual`, the likeliest phone of every frame of each stream [4n]."""
    log_probs = [encoder(mel)[1][0] for _, mel in streams]
    wer = error_rate(
        [text for text, _ in streams],
        [join_words(decode_words(lexicon, heard)) for heard in log_probs],
    )
    best = [heard.argmax(-1) for heard in log_probs]
    changed = float((torch.cat(best) != torch.cat(usual or best)).float().mean())
    return wer, changed, best


def probe_layers(
    encoder: Encoder, mels: list[torch.Tensor]
) -> tuple[list[dict], dict[str, torch.Tensor], list[torch.Tensor]]:
    """-> a row of figures for every layer, its curves by name [layers, ...], its units' activations."""
    mass, units, outputs = activity(encoder, mels)
    reach = torch.stack([influence(encoder, mel) for mel in mels[:JACOBIANS]]).mean(0)
    work = torch.stack(
        [contribution(*pair) for pair in zip(encoder.blocks, units, strict=True)]
    ).detach()
    moved = work.square().sort(1, descending=True).values
    rows = []
    for n in range(len(mass)):
        rows.append(
            {
                "attention s": [
                    round(float(held(mass[n].mean(0), share)) * ENCODER_FRAME_S, 2)
                    for share in SHARES
                ],
                "each head s": [
                    round(float(frames) * ENCODER_FRAME_S, 2) for frames in held(mass[n], SHARES[0])
                ],
                "influence s": [
                    round(float(held(reach[n], share)) * ENCODER_FRAME_S, 2) for share in SHARES
                ],
                "units at work": int((work[n] > AT_WORK * work[n].mean()).sum()),
                "units that hold": [int(held(moved[n], share)) for share in SHARES],
                "units": work.shape[1],
                "effective rank": round(effective_rank(outputs[n]), 1),
                "channels": outputs[n].shape[1],
            }
        )
    return rows, {"attention": mass.mean(1), "influence": reach, "units": moved}, units


def streams_of(pool: Path, clips: int, seconds: float) -> list[tuple[str, torch.Tensor]]:
    """Clips end to end: (text, mel [1, 8n, 80]) of streams that are at least so long."""
    streams, words, sound = [], [], []
    for text, wave in zip(*valid_clips(pool, clips), strict=True):
        words.append(text)
        sound.append(np.pad(wave, (0, AFTER_TICKS * TICK_SAMPLES)))
        if sum(map(len, sound)) >= seconds * SAMPLE_RATE:
            joined = torch.from_numpy(np.concatenate(sound))
            mel, _ = features.log_mel(
                F.pad(joined, (0, -len(joined) % TICK_SAMPLES))[None], features.initial_state(1)
            )
            streams.append((" ".join(words), mel))
            words, sound = [], []
    assert streams, f"{clips} clips of {pool} are shorter than {seconds:.0f} s: more --clips"
    return streams


def draw(curves: dict[str, torch.Tensor], windows: dict[float, list[float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(20, 4.5))
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
    axes[3].plot(windows.keys(), [100 * wer for wer, _ in windows.values()], marker="o")
    axes[3].set(
        title="no layer looks farther back than",
        xlabel="s",
        xscale="log",
        ylabel="word error rate, %",
    )
    axes[3].set_xticks([*windows], [f"{seconds:.2f}" for seconds in windows], minor=False)
    axes[3].minorticks_off()
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def probe(args) -> dict:
    from duplex.weights import DEFAULT_AGENT

    ears = open_recognizer(args.agent or DEFAULT_AGENT, args.encoder)
    encoder, config, result = ears.encoder, ears.encoder.config, {}
    torch.manual_seed(args.seed)
    for pool in args.pool:
        streams = streams_of(pool, args.clips, config.layers * config.window * ENCODER_FRAME_S)
        rows, curves, units = probe_layers(encoder, [mel for _, mel in streams])
        wer, _, usual = trial(encoder, ears.lexicon, streams, None)
        windows, sizes = (
            {config.window * ENCODER_FRAME_S: [round(wer, 3), 0.0]},
            {1.0: [round(wer, 3), 0.0]},
        )
        for halvings in range(1, 6):
            frames = config.window >> halvings
            windows[frames * ENCODER_FRAME_S] = [
                round(x, 3)
                for x in trial(with_window(encoder, frames), ears.lexicon, streams, usual)[:2]
            ]
        for share in KEPT:
            sizes[share] = [
                round(x, 3)
                for x in trial(
                    with_fewer_units(encoder, units, share), ears.lexicon, streams, usual
                )[:2]
            ]
        print(
            f"{pool.name}: {len(streams)} streams, {sum(mel.shape[1] for _, mel in streams) / 100:.0f} s"
        )
        for n, row in enumerate(rows):
            print(n + 1, json.dumps(row))
        for name, table in (("window s", windows), ("share of the units", sizes)):
            for key, (wer, changed) in table.items():
                print(f"{name} {key:.2f}: WER {wer:.3f}, {changed:.1%} of frames differ")
        draw(curves, windows, args.result.with_name(f"{args.result.stem}-{pool.name}.png"))
        result[pool.name] = {
            "layers": rows,
            "window s: WER, frames that differ": windows,
            "units: WER, frames that differ": sizes,
        }
    return result
