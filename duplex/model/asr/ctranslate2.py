"""Read the weights of a CTranslate2 `model.bin`, the form in which Whisper travels, as arrays.

The file is little endian: u32 version, name of the specification, u32 revision, u32 count; then for
each tensor its name, u8 rank, u32 dimensions, u8 type, u32 bytes and the data; at the end aliases,
which are not needed here.
"""

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np


def read_tensors(path: str | Path, prefix: str = "") -> dict[str, np.ndarray]:
    """All tensors whose name begins with `prefix`, in the type in which they are stored."""
    types = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
    tensors = {}
    with open(path, "rb") as file:
        _unpack(file, "I")  # The version.
        _string(file)
        _unpack(file, "I")  # The revision.
        (count,) = _unpack(file, "I")
        for _ in range(count):
            name = _string(file)
            (rank,) = _unpack(file, "B")
            shape = _unpack(file, f"{rank}I")
            (kind,) = _unpack(file, "B")
            (size,) = _unpack(file, "I")
            if not name.startswith(prefix) or kind not in types:
                file.seek(size, 1)
                continue
            tensors[name] = np.frombuffer(file.read(size), types[kind]).reshape(shape)
    return tensors


def _unpack(file: BinaryIO, form: str) -> tuple[int, ...]:
    """The next numbers of a file; form: as struct has it."""
    return struct.unpack("<" + form, file.read(struct.calcsize("<" + form)))


def _string(file: BinaryIO) -> str:
    """The next text of a file."""
    (length,) = _unpack(file, "H")
    return file.read(length)[:-1].decode()  # The last byte is a zero.
