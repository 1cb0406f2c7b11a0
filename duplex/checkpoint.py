"""A checkpoint is a folder: config.json (one dataclass) and model.safetensors. Never a pickle.

A training writes its tensors as they are (`save`). What ships is quantized (`quantize`) and then
compressed without loss (`write_compressed`). `load_tensors` reads both.
"""

import dataclasses
import json
import math
import os
import zlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

# Ending of the name of a quantized tensor's scales, with which its rows are multiplied.
SCALE = ".scale"
# Key of a file's header under which the dtype and shape of each compressed tensor stand.
COMPRESSED = "compressed"
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint16,
        torch.uint8,
        torch.bool,
    )
}


def save(
    tensors: dict[str, torch.Tensor], config, folder: Path, dtype: torch.dtype | None = None
) -> None:
    """Write both files, floating point tensors as `dtype` where it is given.

    Each file is replaced in one move, so nobody ever reads half of one, even after a crash.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = {
        name: (value.to(dtype) if dtype and value.is_floating_point() else value).contiguous()
        for name, value in tensors.items()
    }
    save_file(stored, folder / "model.safetensors.part")
    os.replace(folder / "model.safetensors.part", folder / "model.safetensors")
    fields = json.dumps(dataclasses.asdict(config), indent=1)
    (folder / "config.json.part").write_text(fields + "\n")
    os.replace(folder / "config.json.part", folder / "config.json")


def quantize(
    tensors: dict[str, Tensor],
    prefixes: tuple[str, ...] = ("",),
    min_size: int = 1 << 14,
    max_kernel: int = 8,
) -> dict[str, Tensor]:
    """Large matrices in 8 bits with one scale a row, the rest in float16.

    A row is a run along the last axis, or all that makes one output channel of a convolution. Its
    scale is the one that `products.pack` finds, so what a CPU quantizes once more stays as it is.

    Args:
        prefixes: with which the names of the matrices begin that are quantized.
        min_size: numbers that a large matrix has at least.
        max_kernel: a last axis of at most this length is the kernel of a convolution.
    """
    quantized = {}
    for name, value in tensors.items():
        large = value.dim() >= 2 and value.numel() >= min_size
        if not value.is_floating_point():
            quantized[name] = value
        elif large and name.startswith(prefixes):
            first = 1 if value.shape[-1] <= max_kernel else value.dim() - 1
            axes = tuple(range(first, value.dim()))
            scale = (value.float().abs().amax(axes, keepdim=True) / 127).clamp(min=1e-8)
            quantized[name] = (value.float() / scale).round().to(torch.int8)
            quantized[name + SCALE] = scale
        else:
            quantized[name] = value.half()
    return quantized


def compress(tensor: Tensor) -> Tensor:
    """A tensor of any shape -> a stream [bytes] uint8, which `decompress` makes the same tensor of.

    The bytes are shuffled first, as HDF5 does it: all numbers' first bytes, then all second ones,
    because exponents compress well and the digits between them do not. Deflate is kept from looking
    for short matches: there are none in weights, and their Huffman code is shorter without.
    """
    numbers = tensor.contiguous().view(-1).view(torch.uint8).view(-1, tensor.itemsize)
    deflate = zlib.compressobj(level=9, memLevel=9, strategy=zlib.Z_FILTERED)
    stream = deflate.compress(numbers.T.contiguous().numpy()) + deflate.flush()
    return torch.frombuffer(bytearray(stream), dtype=torch.uint8)


def decompress(stream: Tensor, dtype: str, *shape: int) -> Tensor:
    """What `compress` was given. ValueError: the stream is broken, or is none of such a tensor."""
    size = math.prod(shape) * DTYPES[dtype].itemsize
    inflate = zlib.decompressobj()
    try:
        found = inflate.decompress(stream.numpy(), size + 1)  # so a broken stream takes no more
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(found) != size or not inflate.eof:
        raise ValueError(f"the stream does not hold the {size} bytes of {dtype} {list(shape)}")
    if not size:
        return torch.empty(shape, dtype=DTYPES[dtype])
    shuffled = torch.frombuffer(bytearray(found), dtype=torch.uint8)
    numbers = shuffled.view(DTYPES[dtype].itemsize, -1).T.contiguous()
    return numbers.view(-1).view(DTYPES[dtype]).view(shape)


def write_compressed(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file of compressed tensors; it is replaced in one move."""
    layouts = {
        name: [str(value.dtype).removeprefix("torch."), *value.shape]
        for name, value in tensors.items()
    }
    streams = {name: compress(value) for name, value in tensors.items()}
    part = path.with_name(path.name + ".part")
    save_file(streams, part, {COMPRESSED: json.dumps(layouts)})
    os.replace(part, path)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file as they were written, whether it is compressed or not.

    ValueError: a compressed one is broken.
    """
    with safe_open(path, "pt") as file:
        layouts = json.loads((file.metadata() or {}).get(COMPRESSED, "{}"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    for name, layout in layouts.items():
        try:
            tensors[name] = decompress(tensors[name], *layout)
        except (KeyError, ValueError) as error:  # KeyError: no such tensor, or no such dtype
            raise ValueError(f"{path} is broken at {name}: {error}") from None
    return tensors


def load_config(config_class: type, folder: Path):
    """The dataclass in folder/config.json; lists become tuples, as frozen configs want them."""
    fields = json.loads((folder / "config.json").read_text())
    return config_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


def load_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of folder/model.safetensors, dequantized; what is floating point in float32."""
    stored = read(folder / "model.safetensors")
    tensors = {}
    for name, value in stored.items():
        if name.endswith(SCALE):
            continue
        scale = stored.get(name + SCALE)
        if scale is not None:
            value = value.float() * scale
        tensors[name] = value.float() if value.is_floating_point() else value
    return tensors
