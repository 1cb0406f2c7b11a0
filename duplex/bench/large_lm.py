"""What a call costs of an LM with a billion weights, where a tick cannot afford two.

Its weights are random. One position is what plain decoding feeds, three are what speculative
decoding feeds with two proposals.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from duplex.agent.loader import compiled
from duplex.model import kv_cache
from duplex.model.lm import LM, LMConfig
from duplex.model.parts import Parts


def median_ms(work: Callable[[], object], times: int = 8) -> float:
    """What `work` takes."""
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return round(1000 * float(np.median(seconds)), 1)


@torch.inference_mode()
def measure(config: LMConfig | None = None) -> dict:
    """Milliseconds of a call of one position and of three.

    config: by default a Llama of a billion weights in its blocks.
    """
    if config is None:
        sizes = {"width": 2048, "layers": 18, "heads": 32, "kv_heads": 8, "hidden": 8192}
        config = LMConfig(**sizes, lora_rank=0)
    torch.manual_seed(0)
    lm = LM(config).merge().eval()
    weights = sum(weight.numel() for weight in lm.blocks.parameters())
    parts = compiled(Parts(lm=lm))
    state = kv_cache.initial_state(config, 1)

    def call(count: int) -> None:
        x = torch.randn(count, config.width)
        kv_cache.step(parts.lm, x, [count], np.zeros(count, bool), state)

    times = {
        "1 position": median_ms(lambda: call(1)),
        "3 positions": median_ms(lambda: call(3)),
    }
    return {"weights in blocks": weights, "ms": times}
