"""Train the codebooks of `encodec`'s residual vector quantizer: k-means start, moving averages, restart of dead codes.

The package's own training path is not used: its restart is undone by the moving average in the same step, its k-means
takes minutes on a CPU, and it cannot give each item of a batch its own number of codebooks.
"""

import torch
from encodec.quantization import ResidualVectorQuantizer
from torch import Tensor

DECAY = 0.99  # of the moving averages, per step
DEAD_SHARE = 0.03  # a code used less than this share of the mean is given a new place
RESTART_SHARE = 0.3  # and counts as used this much, so that it has time to find its use


def quantize(
    quantizer: ResidualVectorQuantizer, latent: Tensor, used: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Item b of latent [B, T, D] goes through its first used[b] codebooks; gradients pass straight through and reach the entries.

    -> quantized [B, T, D], commitment loss, codes [K, B * T], what each codebook was given [K, B * T, D].
    """
    residual = latent.detach().float().flatten(0, 1)
    total, commitment = (
        torch.zeros_like(latent, dtype=torch.float32),
        latent.new_zeros((), dtype=torch.float32),
    )
    codes, given = [], []
    for index, layer in enumerate(quantizer.vq.layers):
        given.append(residual)
        codes.append(layer._codebook.quantize(residual))
        chosen = layer.codebook[codes[-1]]
        residual = residual - chosen.detach()
        on = (index < used).float()[:, None, None]
        total = total + on * chosen.view_as(total)
        commitment = commitment + (on * (latent.float() - total).square()).mean()
    return (
        total + latent - latent.detach(),
        commitment / len(codes),
        torch.stack(codes),
        torch.stack(given),
    )


def look_up(quantizer: ResidualVectorQuantizer, codes: Tensor, used: Tensor) -> Tensor:
    """What codes [B, K, T] stand for [B, T, D], of item b the first used[b] of each frame; entries may learn from it."""
    chosen = torch.stack(
        [
            layer.codebook[own]
            for layer, own in zip(quantizer.vq.layers, codes.unbind(1), strict=True)
        ]
    )
    on = torch.arange(len(chosen))[:, None] < used  # [K, B]
    return (chosen * on[..., None, None]).sum(0)


@torch.no_grad()
def update(
    quantizer: ResidualVectorQuantizer, codes: Tensor, given: Tensor, generator: torch.Generator
) -> None:
    """Move every codebook towards what it was given; codes [K, N], given [K, N, D]."""
    for layer, layer_codes, vectors in zip(quantizer.vq.layers, codes, given, strict=True):
        book = layer._codebook
        counts = torch.bincount(layer_codes, minlength=book.codebook_size).float()
        sums = torch.zeros_like(book.embed_avg).index_add_(0, layer_codes, vectors)
        book.cluster_size.lerp_(counts, 1 - DECAY)
        book.embed_avg.lerp_(sums, 1 - DECAY)
        mean = book.cluster_size.mean()
        dead = (book.cluster_size < DEAD_SHARE * mean).nonzero()[:, 0]
        picks = torch.randint(len(vectors), (len(dead),), generator=generator)
        book.cluster_size[dead] = RESTART_SHARE * mean
        book.embed_avg[dead] = RESTART_SHARE * mean * vectors[picks]
        book.embed.copy_(book.embed_avg / book.cluster_size[:, None])


@torch.no_grad()
def start(
    quantizer: ResidualVectorQuantizer, latent: Tensor, batch: int, generator: torch.Generator
) -> None:
    """Set every codebook by k-means on what the ones before it leave of latent [N, D]; `batch` vectors make a step."""
    residual = latent.float()
    for layer in quantizer.vq.layers:
        book = layer._codebook
        book.embed.copy_(
            residual[torch.randperm(len(residual), generator=generator)[: book.codebook_size]]
        )
        for _ in range(10):
            codes = book.quantize(residual)
            counts = torch.bincount(codes, minlength=book.codebook_size).float()
            means = (
                torch.zeros_like(book.embed).index_add_(0, codes, residual)
                / counts.clamp(min=1)[:, None]
            )
            spare = residual[
                torch.randint(len(residual), (book.codebook_size,), generator=generator)
            ]
            book.embed.copy_(torch.where(counts[:, None] > 0, means, spare))
        codes = book.quantize(residual)
        counts = torch.bincount(codes, minlength=book.codebook_size).float()
        book.cluster_size.copy_((counts + 0.1) * batch / len(residual))
        book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
        residual = residual - book.embed[codes]
