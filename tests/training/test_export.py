"""Trained parts become an agent folder; what is not given is the shipped agent's."""

import errno
import json

import pytest
import torch
from safetensors.torch import load_file

from duplex import checkpoint
from duplex.training import export
from duplex.training.average import average
from duplex.training.data.provenance import trained_on
from duplex.weights import DEFAULT_AGENT
from tests.tiny_speech_agent import tiny_encoder
from tests.training.helpers import strings, tiny_lm


def test_an_exported_lm_makes_a_whole_agent(tmp_path):
    lm = tiny_lm()
    checkpoint.save(lm.state_dict(), lm.config, tmp_path / "run")
    out = tmp_path / "agent"
    export.main(strings("--lm", tmp_path / "run", "--strength", 0.5, "--out", out))
    told = json.loads((out / "lm" / "config.json").read_text())
    assert told["lora_scale"] == 0.5 * lm.config.lora_scale and told["width"] == lm.config.width
    tensors = checkpoint.load_tensors(out / "lm")
    assert tensors.keys() == lm.state_dict().keys()
    for name in ("encoder", "lexicon", "talker", "codec", "speaker", "sounds"):
        shipped = (DEFAULT_AGENT / name / "model.safetensors").read_bytes()
        assert (out / name / "model.safetensors").read_bytes() == shipped
    assert (out / "tokenizer.json.gz").exists()


def test_an_exported_encoder_tells_its_sources(tmp_path):
    encoder = tiny_encoder()
    checkpoint.save(encoder.state_dict(), encoder.config, tmp_path / "run")
    out = tmp_path / "agent"
    options = ("--encoder", tmp_path / "run", "--out", out)
    export.main(strings(*options, "--source", "x/b", "--source", "x/a"))
    assert trained_on(out / "encoder") == ["x/a", "x/b"]
    export.main(strings(*options))  # These weights tell nothing, so what stood there is wrong.
    assert trained_on(out / "encoder") is None


def test_parts_that_are_there_stay(tmp_path):
    encoder = tmp_path / "agent" / "encoder"
    encoder.mkdir(parents=True)
    (encoder / "model.safetensors").write_bytes(b"mine")
    export.main(strings("--out", tmp_path / "agent"))
    assert (encoder / "model.safetensors").read_bytes() == b"mine"
    assert not (tmp_path / "agent" / "sounds").exists(), "its heads know the shipped encoder"


def test_a_copy_that_was_killed_is_made_again(tmp_path, monkeypatch):
    """The disk was full in the middle of a part's weights."""
    out = tmp_path / "agent"

    def full(source, part):
        part.write_bytes(source.read_bytes()[:100])
        if source.name == "model.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="is full: make room"):
        patch.setattr("shutil.copy", full)
        export.main(strings("--out", out))
    export.main(strings("--out", out))
    weights = (out / "encoder" / "model.safetensors").read_bytes()
    assert weights == (DEFAULT_AGENT / "encoder" / "model.safetensors").read_bytes()


def test_a_shipped_part_is_no_run(tmp_path):
    with pytest.raises(SystemExit, match="in 8 bits already"):
        export.main(strings("--lm", DEFAULT_AGENT / "lm", "--out", tmp_path / "agent"))


def test_an_average_is_weighted_by_the_shares(tmp_path):
    lm = tiny_lm()
    names = ("a", "b")
    for name, value in zip(names, (0.0, 4.0), strict=True):
        tensors = {"weight": torch.full((2, 2), value), "count": torch.tensor(3)}
        checkpoint.save(tensors, lm.config, tmp_path / name)
    average([(tmp_path / "a", 0.25), (tmp_path / "b", 0.75)], tmp_path / "mean")
    found = load_file(tmp_path / "mean" / "model.safetensors")
    assert found["weight"].eq(3.0).all() and found["count"] == 3
