"""What 8 bits do to weights, in torch: the reference of the compiled networks."""

import copy

import torch


def round_rows(matrix: torch.Tensor) -> torch.Tensor:
    """Rows of 255 steps, as `kernels.pack` makes them: matrix [..., out, in]."""
    step = matrix.abs().amax(-1, keepdim=True).clamp(min=1e-8) / 127
    return torch.round(matrix / step) * step


def rounded(module: torch.nn.Module, names: tuple[str, ...]) -> torch.nn.Module:
    """A copy of a network whose matrices of these names are rounded."""
    module = copy.deepcopy(module)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 and any(part in name for part in names):
            is_convolution = parameter.ndim == 3 and "conv" in name
            matrix = parameter.data.flatten(1) if is_convolution else parameter.data
            parameter.data.copy_(round_rows(matrix).view_as(parameter))
    return module


def assert_near(ours: torch.Tensor, theirs: torch.Tensor, share: float) -> None:
    """The difference is at most so large a share of what is compared."""
    assert ours.shape == theirs.shape
    assert float((ours - theirs).detach().norm() / theirs.detach().norm()) < share
