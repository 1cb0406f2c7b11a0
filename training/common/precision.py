"""Which number format a training multiplies in.

bfloat16 where the machine is faster with it, float32 elsewhere: processors without instructions for
bfloat16 (Intel's Ice Lake, AMD's before Zen 4, most laptops) take four times as long for it.
"""

import torch


def fast_dtype(device: str = "cpu") -> torch.dtype:
    """torch.bfloat16 on every accelerator, and on a CPU if it has the instructions."""
    if device != "cpu":
        return torch.bfloat16
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    has_bfloat16 = any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if has_bfloat16 else torch.float32


def mixed(device: str = "cpu") -> torch.autocast:
    """The context in which a training's forward pass runs."""
    return torch.autocast(device, torch.bfloat16, enabled=fast_dtype(device) == torch.bfloat16)
