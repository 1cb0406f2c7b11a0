"""One model trained by several processes.

`accelerate launch -m duplex.training.duplex ...` makes one for each GPU; without GPUs:
`ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 -m duplex.training.duplex ...`.

Each process draws its own data and has all of the model, or with --shard its part of the frozen
backbone. What is learned (adapters, control rows, projector) is small, so its gradients are
averaged in one piece after every batch. Started alone, a process is all there is.

When a process dies, those of its node are ended by the launcher and those of others by their time
limit. The same command, on other nodes if need be, goes on from the last save: `--save-minutes`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator


def join(device: str | None = None) -> Accelerator:
    """This process among those that were launched together, and its device.

    device: "cpu" where an accelerator that is there is not to be used.
    """
    from accelerate import Accelerator

    return Accelerator(cpu=device == "cpu")


def average_gradients(accelerator: Accelerator, parameters: list[torch.nn.Parameter]) -> None:
    """Give every process the mean of all gradients; a parameter without one has zeros."""
    if accelerator.num_processes == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    mean = accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "mean")
    parts = mean.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def agreed(accelerator: Accelerator, number: float) -> float:
    """The first process's number, in all: their clocks differ."""
    if accelerator.num_processes == 1:
        return number
    from accelerate.utils import broadcast

    own = torch.tensor([number], dtype=torch.float64, device=accelerator.device)
    return float(broadcast(own)[0])


def shard_frozen(accelerator: Accelerator, blocks: torch.nn.ModuleList) -> None:
    """Leave each process its part of each block's frozen weights (FSDP), whole while it computes.

    What is trained stays whole in all. From then on all must compute together.
    """
    from torch.distributed.fsdp import fully_shard

    if accelerator.num_processes == 1:
        return
    for block in blocks:
        trained = {parameter for parameter in block.parameters() if parameter.requires_grad}
        fully_shard(block, ignored_params=trained)


def own_files(files: list[Path], number: int, processes: int) -> list[Path]:
    """The files that process `number` of so many reads: every one its own, if there are enough."""
    return files[number::processes] if len(files) >= processes else files


def collected(accelerator: Accelerator, value) -> list:
    """What each process has, in the order of their numbers."""
    from accelerate.utils import gather_object

    return gather_object([value]) if accelerator.num_processes > 1 else [value]


def leave(accelerator: Accelerator) -> None:
    """End what `join` began: a process that exits while another still talks to it aborts that."""
    accelerator.wait_for_everyone()
    accelerator.end_training()


def check_together(accelerator: Accelerator, parameters: list[torch.nn.Parameter]) -> None:
    """Raise RuntimeError if the processes have come to hold different models."""
    sums = collected(accelerator, sum(float(p.detach().double().abs().sum()) for p in parameters))
    if any(abs(one - sums[0]) > 1e-6 * abs(sums[0]) for one in sums):
        raise RuntimeError(
            f"the processes' models differ (sums of weights {sums}); start again from the last save"
        )
