"""Checkpoints: what is saved is what is loaded, quantized, compressed or neither."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from duplex.checkpoint import (
    COMPRESSED,
    DTYPES,
    SCALE,
    load_config,
    load_tensors,
    quantize,
    read,
    save,
    write_compressed,
)
from duplex.cpu import products
from duplex.model.asr.lexicon import load_lexicon, unpack
from duplex.model.lm import LMConfig
from duplex.model.tts.codec import Codec, CodecConfig, load_codec, save_codec
from duplex.model.vocabulary import load_tokenizer
from duplex.training.export import export_codec, export_lexicon, export_part, export_tokenizer
from tests.tiny_speech_agent import tiny_tokenizer, tiny_words


@dataclass(frozen=True)
class Config:
    width: int = 3
    pieces: tuple[int, ...] = ()


def test_round_trip(tmp_path):
    tensors = {"a": torch.randn(4, 5), "n": torch.arange(3)}
    save(tensors, Config(7, (1, 2)), tmp_path)
    assert load_config(Config, tmp_path) == Config(7, (1, 2))
    loaded = load_tensors(tmp_path)
    assert torch.equal(loaded["a"], tensors["a"]) and torch.equal(loaded["n"], tensors["n"])


def test_quantized_rows_keep_their_own_scale(tmp_path):
    """8 bits cost a small matrix nothing, a large one at most half a step of its own row."""
    large = torch.randn(3, 64, 128) * torch.logspace(-3, 3, 3)[:, None, None]
    tensors = {"large": large, "small": torch.randn(4, 4), "ids": torch.arange(5)}
    save_file(quantize(tensors), tmp_path / "model.safetensors")
    loaded = load_tensors(tmp_path)
    assert set(loaded) == set(tensors) and torch.equal(loaded["ids"], tensors["ids"])
    step = large.abs().amax(-1, keepdim=True) / 127
    assert ((loaded["large"] - large).abs() <= 0.52 * step).all()
    torch.testing.assert_close(loaded["small"], tensors["small"], rtol=1e-3, atol=1e-3)


def test_one_output_of_a_convolution_has_one_scale():
    kernels_of_three = torch.randn(64, 128, 3) * torch.logspace(-3, 3, 64)[:, None, None]
    assert quantize({"weight": kernels_of_three})["weight" + SCALE].shape == (64, 1, 1)


def test_only_the_named_matrices_are_quantized():
    tensors = {"decoder.up": torch.randn(128, 128), "encoder.up": torch.randn(128, 128)}
    stored = quantize(tensors, ("decoder.",))
    assert stored["decoder.up"].dtype == torch.int8
    assert torch.equal(stored["encoder.up"], tensors["encoder.up"].half())


@pytest.mark.parametrize("shape", [(256, 128), (64, 96, 3)])
def test_a_cpu_quantizes_quantized_weights_to_the_same(tmp_path, shape):
    """So what it runs is the same, whether it was quantized on the way or not."""
    weight = torch.randn(shape) * torch.logspace(-2, 2, shape[0]).view(-1, *[1] * (len(shape) - 1))
    write_compressed(quantize({"weight": weight}), tmp_path / "model.safetensors")
    loaded = load_tensors(tmp_path)["weight"]
    true, ours = (products.pack(whole.flatten(1)) for whole in (weight, loaded))
    assert np.array_equal(true.weight, ours.weight)
    np.testing.assert_allclose(true.scale, ours.scale, rtol=3e-7)


@pytest.mark.parametrize("shape", [(), (0, 4), (7,), (2, 3, 5)])
@pytest.mark.parametrize("dtype", DTYPES.values())
def test_compressed_and_read_it_is_the_same(tmp_path, dtype, shape):
    tensor = (100 * torch.rand(shape)).to(dtype)
    turned = tensor.transpose(0, -1) if tensor.dim() else tensor  # not contiguous
    write_compressed({"tensor": tensor, "turned": turned}, tmp_path / "file")
    found = read(tmp_path / "file")
    for name, true in (("tensor", tensor), ("turned", turned)):
        assert found[name].dtype == dtype
        assert torch.equal(found[name], true)


def test_weights_are_smaller_when_compressed(tmp_path):
    tensors = quantize({"large": torch.randn(512, 512), "small": torch.randn(10_000)})
    save_file(tensors, tmp_path / "plain")
    write_compressed(tensors, tmp_path / "compressed")
    plain, compressed = ((tmp_path / name).stat().st_size for name in ("plain", "compressed"))
    assert compressed < 0.93 * plain


@pytest.mark.parametrize("fault", ["cut", "changed", "longer", "shorter", "missing", "dtype"])
def test_a_broken_file_is_told_in_a_sentence(tmp_path, fault):
    write_compressed({"weight": torch.randn(64, 64)}, tmp_path / "model.safetensors")
    streams = load_file(tmp_path / "model.safetensors")
    stream, layout = streams["weight"].clone(), ["float32", 64, 64]
    if fault == "cut":
        stream = stream[:-100].clone()
    elif fault == "changed":
        stream[len(stream) // 2] ^= 1
    elif fault in ("longer", "shorter"):
        layout = ["float32", 64, 65 if fault == "longer" else 63]
    elif fault == "dtype":
        layout = ["object", 64, 64]
    name = "other" if fault == "missing" else "weight"
    header = {COMPRESSED: json.dumps({"weight": layout})}
    save_file({name: stream}, tmp_path / "model.safetensors", header)
    with pytest.raises(ValueError, match="model.safetensors is broken at weight"):
        load_tensors(tmp_path)


def test_an_exported_part_is_quantized_and_its_adapters_may_be_weaker(tmp_path):
    weight = torch.randn(300, 64)
    save({"block.weight": weight}, LMConfig(lora_scale=2.0), tmp_path / "lm")
    export_part(tmp_path / "lm", tmp_path / "agent" / "lm", strength=0.8)
    assert load_config(LMConfig, tmp_path / "agent" / "lm").lora_scale == pytest.approx(1.6)
    assert (load_tensors(tmp_path / "agent" / "lm")["block.weight"] - weight).abs().max() < 0.03


def test_an_exported_codec_finds_the_same_codes_and_sounds_alike(tmp_path):
    """Its decoder alone is in 8 bits. One in half precision, as older agents have it, is loaded."""
    torch.manual_seed(0)
    config = CodecConfig(codebook_size=32, latent_width=16, encoder_width=96, decoder_width=96)
    codec = Codec(config).eval()
    for codebook in codec.quantizer.vq.layers:
        codebook._codebook.embed.normal_()
    save_codec(codec, tmp_path / "run", torch.float16)
    export_codec(tmp_path / "run", tmp_path / "agent" / "codec")
    stored = read(tmp_path / "agent" / "codec" / "model.safetensors")
    in_8_bits = {name for name, value in stored.items() if value.dtype == torch.int8}
    assert in_8_bits and all(name.startswith("decoder.") for name in in_8_bits)
    half, exported = load_codec(tmp_path / "run"), load_codec(tmp_path / "agent" / "codec")
    wave = 0.1 * torch.randn(1, 1, 20 * 320)
    codes = half.encode(wave)
    assert torch.equal(exported.encode(wave), codes)
    sound, true = exported.decode(codes), half.decode(codes)
    assert (sound - true).norm() < 0.05 * true.norm()


def test_an_exported_lexicon_and_tokenizer_are_the_same(tmp_path):
    words, folder = tiny_words(), tmp_path / "run"
    folder.mkdir()
    tensors = {name: torch.from_numpy(value.copy()) for name, value in words.items()}
    save_file(tensors, folder / "model.safetensors")
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    export_lexicon(folder, tmp_path / "agent" / "lexicon")
    export_tokenizer(folder, tmp_path / "agent")
    loaded, true = load_lexicon(tmp_path / "agent" / "lexicon"), unpack(words)
    assert loaded.words == true.words
    assert np.array_equal(loaded.trigram_keys, true.trigram_keys)
    assert np.array_equal(loaded.trigrams, true.trigrams)
    exported = load_tokenizer(tmp_path / "agent")
    assert exported.to_str() == load_tokenizer(folder).to_str() == tiny_tokenizer().to_str()
