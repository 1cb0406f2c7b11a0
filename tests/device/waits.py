"""A device that is none: on a CPU, what was made on "the device" may not be read but by fetch."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from duplex.device.link import Graph, Link

# What reads a tensor's numbers, or has a shape that depends on them.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")
READERS = ("cpu", "item", "numpy", "tolist", "__bool__", "__float__", "__index__", "__int__")


class Device(TorchDispatchMode):
    """Counts operations; raises where one of the device's tensors is read or meets another's."""

    def __init__(self):
        super().__init__()
        self.storages: dict[int, torch.UntypedStorage] = {}
        self.is_fetching = False
        self.is_running = False
        self.operations = 0

    def claim(self, tensors) -> None:
        """These tensors are on the device."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self.storages[storage._cdata] = storage  # kept, so that no other gets its place

    def holds(self, tensor) -> bool:
        """Whether a tensor is on the device."""
        return isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata in self.storages

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = [x for x in tree_leaves((args, kwargs or {})) if isinstance(x, torch.Tensor)]
        own = [x for x in given if self.holds(x)]
        name = str(function)
        if (own or self.is_running) and not self.is_fetching:
            assert not any(f"aten.{wait}" in name for wait in WAITS), f"{name} waits"
            by_mask = "aten.index" in name and any(x.dtype == torch.bool for x in given[1:])
            assert not by_mask, f"{name} by a mask has a shape that depends on numbers"
        if self.is_running and "aten.where" in name:  # torch would copy the number to a GPU
            assert "Scalar" not in name and all(x.dim() or self.holds(x) for x in given), name
        result = function(*args, **(kwargs or {}))
        if self.is_running:
            self.operations += 1
            found = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
            self.claim(found)
        elif own and not self.is_fetching and name != "aten.copy_.default":
            self.claim(x for x in tree_leaves(result) if isinstance(x, torch.Tensor))
        return result


@contextmanager
def forbidden_waits(monkeypatch, agent) -> Iterator[Device]:
    """While open, the agent's device is one that can be waited for in Link.fetch alone."""
    device = Device()
    fetch = Link.fetch
    call = Graph.__call__

    def fetching(self, tensor):
        assert device.holds(tensor)
        device.is_fetching = True
        try:
            return fetch(self, tensor)
        finally:
            device.is_fetching = False

    def running(self, *given):
        own = [one for one in given if isinstance(one, torch.Tensor) and device.holds(one)]
        assert not own, "what is uploaded is in this machine's memory"
        device.claim(self.inputs)
        device.is_running = True
        try:
            return call(self, *given)
        finally:
            device.is_running = False

    with monkeypatch.context() as patch:
        patch.setattr(Link, "fetch", fetching)
        patch.setattr(Graph, "__call__", running)
        for reader in READERS:
            patch.setattr(torch.Tensor, reader, guarded(device, getattr(torch.Tensor, reader)))
        parts = agent.parts
        cache = agent.context.cache
        device.claim([cache.keys, cache.values, parts.lm.ring, parts.lm.pool])
        device.claim([parts.ears.vectors, parts.voice.silent_ticks])
        for network in (parts.lm.lm, parts.ears.encoder, parts.voice.codec):
            device.claim(network.parameters())
            device.claim(network.buffers())
        device.claim(parts.voice.codec_state.tensors())
        with device:
            yield device


def guarded(device: Device, reader):
    """A way to read a tensor that refuses those of the device."""

    def read(self, *args, **kwargs):
        assert device.is_fetching or not device.holds(self), "read without fetch"
        return reader(self, *args, **kwargs)

    return read
