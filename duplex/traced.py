"""On a CPU most of a small model's tick is Python between kernels: recorded once, the same kernels run without it."""

import warnings

import torch
from torch import nn


class Recorded(nn.Module):
    """A module's method, so that `torch.jit.trace` can record it."""

    def __init__(self, module: nn.Module, method: str):
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *tensors):
        return getattr(self.module, self.method)(*tensors)


@torch.no_grad()
def trace(module: nn.Module, method: str, *examples: torch.Tensor) -> None:
    """Replace `module.method` by its recording, made with example tensors that it may write to.

    Only tensors may come in and go out. Sizes read from shapes stay variable; Python numbers and branches do not.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of assertions on shapes, which a recording leaves out
        recorded = torch.jit.trace(Recorded(module, method), examples, check_trace=False)

    def play(*tensors):
        with torch.jit.optimized_execution(False):  # its optimiser takes half a second of the first ticks and gains nothing
            return recorded(*tensors)

    object.__setattr__(module, method, play)
