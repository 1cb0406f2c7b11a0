"""Whisper's weights are read from the file of CTranslate2."""

import struct

import numpy as np

from duplex.model.asr.ctranslate2 import read_tensors


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def test_tensors_with_a_prefix_are_read(tmp_path):
    """From a file written here by the format's rules: two wanted tensors, one of another part."""
    arrays = {
        "encoder/a": np.arange(6, dtype=np.float16).reshape(2, 3),
        "decoder/b": np.ones(4, np.float32),
        "encoder/heads": np.array(6, np.int16),
    }
    kinds = {"float32": 0, "int16": 2, "float16": 4}

    data = struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    for name, array in arrays.items():
        data += string(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        data += struct.pack("<BI", kinds[array.dtype.name], array.nbytes) + array.tobytes()
    (tmp_path / "model.bin").write_bytes(data + struct.pack("<I", 0))
    tensors = read_tensors(tmp_path / "model.bin", "encoder/")
    assert tensors.keys() == {"encoder/a", "encoder/heads"}
    assert np.array_equal(tensors["encoder/a"], arrays["encoder/a"])
    assert tensors["encoder/heads"] == 6
