"""Train the codebooks of `encodec`'s residual vector quantizer.

They start by k-means and follow moving averages; a dead code begins anew. The package's own
training path is not used: its restart is undone by the moving average in the same step, its k-means
takes minutes on a CPU, and it cannot give each item of a batch its own number of codebooks.
"""

import torch
from encodec.quantization import ResidualVectorQuantizer
from torch import Tensor


def quantize(
    quantizer: ResidualVectorQuantizer, latent: Tensor, used: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Quantize item b of latent [B, T, D] with its first used[b] codebooks.

    Gradients pass straight through, and reach the entries. Returns quantized [B, T, D], commitment
    loss, codes [K, B * T], what each codebook was given [K, B * T, D].
    """
    residual = latent.detach().float().flatten(0, 1)
    total = torch.zeros_like(latent, dtype=torch.float32)
    commitment = latent.new_zeros((), dtype=torch.float32)
    codes = []
    given = []
    for index, layer in enumerate(quantizer.vq.layers):
        given.append(residual)
        codes.append(layer._codebook.quantize(residual))
        chosen = layer.codebook[codes[-1]]
        residual = residual - chosen.detach()
        on = (index < used).float()[:, None, None]
        total = total + on * chosen.view_as(total)
        commitment = commitment + (on * (latent.float() - total).square()).mean()
    quantized = total + latent - latent.detach()
    return quantized, commitment / len(codes), torch.stack(codes), torch.stack(given)


def look_up(quantizer: ResidualVectorQuantizer, codes: Tensor, used: Tensor) -> Tensor:
    """What codes [B, K, T] stand for [B, T, D], of item b the first used[b] of each frame.

    Entries may learn from it.
    """
    layers = zip(quantizer.vq.layers, codes.unbind(1), strict=True)
    chosen = torch.stack([layer.codebook[own] for layer, own in layers])  # [K, B, T, D]
    on = torch.arange(len(chosen))[:, None] < used  # [K, B]
    return (chosen * on[..., None, None]).sum(0)


@torch.no_grad()
def update(
    quantizer: ResidualVectorQuantizer,
    codes: Tensor,
    given: Tensor,
    generator: torch.Generator,
    decay: float = 0.99,
) -> None:
    """Move every codebook towards what it was given; codes [K, N], given [K, N, D].

    decay: of the moving averages, per step. A code used less than 3 % of the mean is given a new
    place, and counts as used 30 %, so that it has time to find its use.
    """
    for layer, layer_codes, vectors in zip(quantizer.vq.layers, codes, given, strict=True):
        book = layer._codebook
        counts = torch.bincount(layer_codes, minlength=book.codebook_size).float()
        sums = torch.zeros_like(book.embed_avg).index_add_(0, layer_codes, vectors)
        book.cluster_size.lerp_(counts, 1 - decay)
        book.embed_avg.lerp_(sums, 1 - decay)
        mean = book.cluster_size.mean()
        dead = (book.cluster_size < 0.03 * mean).nonzero()[:, 0]
        picks = torch.randint(len(vectors), (len(dead),), generator=generator)
        book.cluster_size[dead] = 0.3 * mean
        book.embed_avg[dead] = 0.3 * mean * vectors[picks]
        book.embed.copy_(book.embed_avg / book.cluster_size[:, None])


@torch.no_grad()
def start(
    quantizer: ResidualVectorQuantizer, latent: Tensor, batch: int, generator: torch.Generator
) -> None:
    """Set every codebook by ten rounds of k-means on what the ones before it leave.

    latent [N, D]; `batch` vectors make a step of the training.
    """
    residual = latent.float()
    for layer in quantizer.vq.layers:
        book = layer._codebook
        size = book.codebook_size
        book.embed.copy_(residual[torch.randperm(len(residual), generator=generator)[:size]])
        for _ in range(10):
            codes = book.quantize(residual)
            counts = torch.bincount(codes, minlength=size).float()
            sums = torch.zeros_like(book.embed).index_add_(0, codes, residual)
            means = sums / counts.clamp(min=1)[:, None]
            spare = residual[torch.randint(len(residual), (size,), generator=generator)]
            book.embed.copy_(torch.where(counts[:, None] > 0, means, spare))
        codes = book.quantize(residual)
        counts = torch.bincount(codes, minlength=size).float()
        book.cluster_size.copy_((counts + 0.1) * batch / len(residual))
        book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
        residual = residual - book.embed[codes]
