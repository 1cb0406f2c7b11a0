"""What a tick costs a device, counted: kernels started, bytes moved, products made.

The functions of duplex.device run on tensors that have shapes and no numbers, so a 1.5B with 512
slots is counted on any machine. From the counts comes a time for a GPU of known speed. It is
simulated, not measured: each operation is one kernel and takes at least `gap_s`, and reaches a
fixed share of the GPU's bandwidth or of its arithmetic.

Letters in shapes: B slots.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from duplex import device
from duplex.agent import AgentConfig
from duplex.model import kv_cache
from duplex.model.lm import LM, CacheCells, LMConfig
from duplex.model.parts import Parts

# Backbones whose shapes are known here.
BACKBONES = {
    "135M": {},
    "0.5B": {
        "width": 896,
        "layers": 24,
        "heads": 14,
        "kv_heads": 2,
        "hidden": 4864,
        "vocabulary": 151_936,
        "qkv_bias": True,
    },
    "1.5B": {
        "width": 1536,
        "layers": 28,
        "heads": 12,
        "kv_heads": 2,
        "hidden": 8960,
        "vocabulary": 151_936,
        "qkv_bias": True,
    },
}

# Operations that read some rows of their first tensor, not all of it.
PARTIAL = ("embedding", "index_select", "index.Tensor", "gather", "index_put", "index_copy")


# Products, and which of their tensors has the summed width last.
PRODUCTS = {"linear": 0, "matmul": 0, "mm": 0, "bmm": 0, "addmm": 1}


@dataclass(frozen=True)
class GPU:
    """Speeds and memory of a GPU."""

    bytes_s: float
    flops: float  # in bfloat16
    memory: float  # bytes
    # What kernels reach of both, and the least that one takes inside a graph; assumed.
    bytes_share: float = 0.75
    flops_share: float = 0.6
    gap_s: float = 2.5e-6


# The H200's first two figures were measured on one, the others are its maker's.
GPUS = {
    "H200": GPU(4.3e12, 790e12, 141e9),
    "L4": GPU(300e9, 121e12, 24e9),
    "RTX 4090": GPU(1008e9, 165e12, 24e9),
}


@dataclass
class Kernel:
    """One operation."""

    name: str
    bytes: float
    flops: float

    def seconds(self, gpu: GPU) -> float:
        """What it takes on a GPU, by the roofline."""
        moved = self.bytes / (gpu.bytes_s * gpu.bytes_share)
        made = self.flops / (gpu.flops * gpu.flops_share)
        return max(gpu.gap_s, moved, made)


class FusedAttention(TorchFunctionMode):
    """Notes attention as the one kernel that it is on a GPU."""

    def __init__(self, kernels: list[Kernel]):
        super().__init__()
        self.kernels = kernels

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        q, k, v = args
        found = torch.empty_like(q)
        moved = sum(map(_bytes, (q, k, v, kwargs["attn_mask"], found)))
        self.kernels.append(Kernel("attention", moved, 4.0 * q.numel() * k.shape[-2]))
        return found


class Counter(TorchDispatchMode):
    """Notes each operation that is a kernel; views and what only reserves memory are none."""

    def __init__(self):
        super().__init__()
        self.kernels: list[Kernel] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        name = str(function)
        given = _tensors((args, kwargs or {}))
        made = _tensors(found)
        returned = function._schema.returns
        is_in_place = any(one.alias_info and one.alias_info.is_write for one in returned)
        memory = {one.untyped_storage()._cdata for one in given}
        is_view = any(one.untyped_storage()._cdata in memory for one in made)
        if is_view and not is_in_place or "aten.empty" in name:
            return found
        if any(one in name for one in PARTIAL):
            given = given[1:]  # and of the first one as much as is written
            moved = 2 * sum(map(_bytes, made if "put" not in name else given))
            moved = min(moved, 2 * sum(map(_bytes, given + made)))
        else:
            moved = sum(map(_bytes, given + made))
        flops = 0.0
        kind = name.split(".")[1]
        if kind in PRODUCTS:
            flops = 2.0 * made[0].numel() * given[PRODUCTS[kind]].shape[-1]
        self.kernels.append(Kernel(name, moved, flops))
        return found


def _tensors(tree) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _bytes(tensor: torch.Tensor) -> int:
    """Of different numbers: what is expanded is read once."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    sizes = [size for size, stride in pairs if stride]
    return int(torch.Size(sizes).numel()) * tensor.element_size()


@dataclass
class Counted:
    """The functions of a tick, each with its kernels, and bytes held on the device."""

    functions: dict[str, list[Kernel]]
    weights: int
    a_slot: int

    def seconds(self, gpu: GPU, bursts: int) -> float:
        """Simulated seconds of a tick with so many calls of the LM after the first."""
        spent = {name: sum(k.seconds(gpu) for k in found) for name, found in self.functions.items()}
        once = sum(spent[name] for name in ("ears", "words", "LM", "decision", "phones", "voice"))
        return once + bursts * (spent["burst"] + spent["decision"])

    def launches(self) -> int:
        """Kernels of a tick without a burst."""
        return sum(len(found) for name, found in self.functions.items() if name != "burst")


def lm_config(backbone: str, like: LMConfig) -> LMConfig:
    """A backbone of BACKBONES with what else an LM has."""
    kept = {name: getattr(like, name) for name in ("feature_width", "tick_window", "text_window")}
    return LMConfig(**BACKBONES[backbone], **kept, lora_rank=0)


def count(parts: Parts, config: LMConfig, slots: int, dtype=torch.bfloat16) -> Counted:
    """Count a tick of all slots. parts: whose ears and voice; config: of the LM."""
    nowhere = torch.device("meta")
    config = replace(config, lora_rank=0)  # merged
    with nowhere:
        lm = LM(config).to(dtype)
    shapes = Parts(
        encoder=copy.deepcopy(parts.encoder).to(nowhere),
        speaker=parts.speaker and copy.deepcopy(parts.speaker).to(nowhere),
        sound=parts.sound and copy.deepcopy(parts.sound).to(nowhere),
        talker=copy.deepcopy(parts.talker).to(nowhere),
        codec=copy.deepcopy(parts.codec).to(nowhere),
        lm=lm,
    )
    agent = device.agent_config(AgentConfig())
    placed = device.place(shapes, device.DeviceConfig("meta"), agent).on(slots)
    own = placed.lm
    cache = kv_cache.initial_state(
        config, slots, 2 * agent.prompt_cells, nowhere, dtype, spare=own.spare
    )
    cells = CacheCells(cache.keys, cache.values, *[torch.zeros(0)] * 3)
    calls = [own.call_of(shape, cells) for shape in own.shapes[:2]]
    graphs = {
        "ears": placed.ears.graph,
        "words": own.hear,
        "LM": calls[0],
        "burst": calls[1],
        "decision": placed.draws.graph,
        "phones": placed.voice.phones,
        "voice": placed.voice.graph,
    }
    networks = (shapes.encoder, shapes.talker, shapes.codec, lm)
    weights = sum(w.numel() * w.element_size() for net in networks for w in net.parameters())
    state = [cache.keys, cache.values, own.pool, own.ring, *placed.ears.tensors()]
    state += placed.voice.tensors()
    held = sum(tensor.numel() * tensor.element_size() for tensor in state)
    functions = {name: kernels_of(graph.function, graph.inputs) for name, graph in graphs.items()}
    return Counted(functions, weights, held // slots)


@torch.inference_mode()
def kernels_of(function: Callable, inputs: list[torch.Tensor]) -> list[Kernel]:
    """What a function starts."""
    counter = Counter()
    with counter, FusedAttention(counter.kernels):
        function(*inputs)
    return counter.kernels
