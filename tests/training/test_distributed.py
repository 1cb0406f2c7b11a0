"""Gradients of several processes: their mean is in all of them."""

import pytest
import torch

from duplex.training.common.distributed import average_gradients


class TwoProcesses:
    """In place of an Accelerator: the other process has 5 in every gradient."""

    num_processes = 2

    def reduce(self, tensor, how):
        assert how == "mean"
        return (tensor + 5.0) / 2


@pytest.mark.parametrize("gradients", [(1.0, 3.0), (None, 3.0)])
def test_gradients_of_all_processes_count_alike(gradients):
    """A parameter without a gradient has zeros."""
    parameters = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(4))]
    for parameter, value in zip(parameters, gradients, strict=True):
        parameter.grad = None if value is None else torch.full_like(parameter, value)
    average_gradients(TwoProcesses(), parameters)
    for parameter, value in zip(parameters, gradients, strict=True):
        mean = ((value or 0.0) + 5.0) / 2
        assert torch.equal(parameter.grad, torch.full_like(parameter, mean))
