"""Who tells the codec's voice from the true one: the multi-scale STFT discriminator of the encodec package, and its losses.

Hinge losses, feature matching and the balance of gradients are those of Défossez et al. (2022), section 3.4. Features count
for little here: they know phases, which our voice does not try to copy, and where phases differ less sound looks better.
"""

import warnings

import torch
import torch.nn.functional as F
from duplex.training.common.precision import mixed
from torch import Tensor, nn

FILTERS = 16  # of 32: a discriminator must not cost more than the decoder
SHARES = {"spectral": 2.0, "fooling": 1.0, "features": 0.5}  # of the gradient at the wave


def discriminator() -> nn.Module:
    from encodec.msstftd import MultiScaleSTFTDiscriminator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's weight_norm has a newer form
        return MultiScaleSTFTDiscriminator(filters=FILTERS)


def judge(network: nn.Module, wave: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
    """wave [B, N] -> per scale: logits, and the features of every layer."""
    with mixed(wave.device.type):
        logits, features = network(wave[:, None])
    return [scale.float() for scale in logits], [
        [layer.float() for layer in scale] for scale in features
    ]


def telling_loss(network: nn.Module, ours: Tensor, true: Tensor) -> Tensor:
    """What the discriminator learns from: `true` above 1, `ours` below -1; both [B, N]."""
    pairs = zip(judge(network, true)[0], judge(network, ours.detach())[0], strict=True)
    parts = [F.relu(1 - real).mean() + F.relu(1 + made).mean() for real, made in pairs]
    return torch.stack(parts).mean()


def fooling_terms(network: nn.Module, ours: Tensor, true: Tensor) -> dict[str, Tensor]:
    """What the decoder learns from: `fooling` it, and `features` like those of the true wave; both waves [B, N]."""
    with torch.no_grad():
        wanted = judge(network, true)[1]
    logits, found = judge(network, ours)
    fooling = torch.stack([F.relu(1 - scale).mean() for scale in logits]).mean()
    pairs = [
        (a, b)
        for layers, goals in zip(found, wanted, strict=True)
        for a, b in zip(layers, goals, strict=True)
    ]
    features = torch.stack(
        [(a - b).abs().mean() / b.abs().mean().clamp(min=1e-6) for a, b in pairs]
    ).mean()
    return {"fooling": fooling, "features": features}


def balanced_gradient(terms: dict[str, Tensor], wave: Tensor) -> Tensor:
    """The gradient at the wave, like it: every term has its share of it, however large it is; as long as `spectral`'s alone."""
    gradients = {
        name: torch.autograd.grad(terms[name], wave, retain_graph=True)[0] for name in SHARES
    }
    norms = {name: gradient.norm().clamp(min=1e-12) for name, gradient in gradients.items()}
    total = sum(SHARES.values())
    return norms["spectral"] * sum(
        SHARES[name] / total * gradients[name] / norms[name] for name in SHARES
    )
