"""Which number format a training multiplies in: bfloat16 where the machine is faster with it, float32 elsewhere.

Processors without instructions for bfloat16 (Intel's Ice Lake, AMD's before Zen 4, most laptops) take four times as long
for it as for float32.
"""

import torch


def fast_dtype(device: str = "cpu") -> torch.dtype:
    """torch.bfloat16 on every accelerator; on a CPU if it has the instructions."""
    if device != "cpu":
        return torch.bfloat16
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return (
        torch.bfloat16
        if known.get("avx512_bf16") or known.get("amx_bf16") or known.get("bf16")
        else torch.float32
    )


def mixed(device: str = "cpu") -> torch.autocast:
    """The context in which a training's forward pass runs."""
    return torch.autocast(device, torch.bfloat16, enabled=fast_dtype(device) == torch.bfloat16)
