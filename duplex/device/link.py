"""The way between this machine's memory and a device: what goes there, what is waited for.

Whatever is read back makes the host wait until the device has done all it was asked for. So there
is one door, `Link.fetch`, and it counts.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class Link:
    """A device, how its functions are run, and what went over the way to it."""

    device: torch.device
    # A backend of torch.compile for each function; None: eager, or as CUDA graphs on a GPU.
    backend: str | None = None
    # How often the host waited, how many functions were started, and the processor's time that
    # starting them took: on a CPU, that of their work.
    waits: int = 0
    launches: int = 0
    seconds: float = 0.0

    @property
    def captures(self) -> bool:
        """Whether functions are captured as CUDA graphs."""
        return self.device.type == "cuda" and self.backend is None

    def buffer(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Zeros on the device that stay where they are."""
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def upload(self, buffer: Tensor, given: np.ndarray | Tensor) -> None:
        """Copy from this machine's memory into a buffer of the same shape; nothing waits."""
        given = torch.as_tensor(given)
        if self.device.type == "cuda":
            given = given.pin_memory()  # torch keeps it until it is copied
        buffer.copy_(given, non_blocking=True)

    def fetch(self, tensor: Tensor) -> np.ndarray:
        """What a tensor of the device holds, once all that was started is done."""
        self.waits += 1
        return tensor.to("cpu", copy=True).numpy()


class Graph:
    """A function of fixed shapes, whose inputs and state never move.

    On a GPU it is captured at its first call: then a call is one launch, whatever it does.
    """

    def __init__(
        self,
        link: Link,
        function: Callable[..., Tensor | None],
        inputs: list[Tensor],
        state: list[Tensor] = (),
    ):
        """
        Args:
            function: of the inputs; it changes its state in place, and nothing else.
            inputs: buffers; as they are now the function does no harm.
            state: what the function changes and is to be unchanged by the capture.
        """
        self.link = link
        self.function = function
        if link.backend is not None:
            self.function = torch.compile(
                function, backend=link.backend, fullgraph=True, dynamic=False
            )
        self.inputs = inputs
        self.state = state
        self.graph = None
        self.output: Tensor | None = None

    def __call__(self, *given: np.ndarray | Tensor) -> Tensor | None:
        """Run it on these inputs. The output is overwritten by the next call."""
        self.prepare()
        begun = time.thread_time()
        for buffer, one in zip(self.inputs, given, strict=True):
            self.link.upload(buffer, one)
        if self.graph is None:
            self.output = self.function(*self.inputs)
        else:
            self.graph.replay()
        self.link.launches += 1
        self.link.seconds += time.thread_time() - begun
        return self.output

    def prepare(self, warm_ups: int = 3) -> None:
        """Capture it, where that is to be done and is not done yet."""
        if not self.link.captures or self.graph is not None:
            return
        kept = [tensor.clone() for tensor in self.state]
        stream = torch.cuda.Stream(self.link.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(warm_ups):
                self.function(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = self.function(*self.inputs)
        for tensor, value in zip(self.state, kept, strict=True):
            tensor.copy_(value)
