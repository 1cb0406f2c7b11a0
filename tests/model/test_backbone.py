"""Backbones of any size: a folder as `transformers` saves it, and a GGUF file, give the same LM;
what cannot work is refused."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM

from duplex.agent import load_agent
from duplex.errors import BackboneError
from duplex.model.backbone import check_tokenizer, fill_lm, read_backbone
from duplex.model.lm import LM, LMConfig
from duplex.model.tokens import FIRST_TEXT_ID
from tests.tiny_speech_agent import tiny_tokenizer

SIZES = {
    "width": 128,
    "layers": 2,
    "heads": 2,
    "kv_heads": 1,
    "hidden": 48,
    "vocabulary": 64,
    "rope_theta": 5000.0,
    "norm_eps": 1e-5,
}


def llama(is_tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
        vocab_size=64,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=is_tied,
    )
    return LlamaForCausalLM(config).eval()


def write_gguf(model: LlamaForCausalLM, path: Path) -> None:
    """As llama.cpp stores a Llama: its own names, rotary halves of queries and keys interleaved."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_embedding_length(128)
    writer.add_block_count(2)
    writer.add_feed_forward_length(48)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_vocab_size(64)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        value = value.numpy()
        if "q_proj" in name or "k_proj" in name:
            heads = len(value) // 64
            value = value.reshape(heads, 2, 32, -1).swapaxes(1, 2).reshape(value.shape)
        value = np.ascontiguousarray(value, dtype=np.float32)
        writer.add_tensor(names.get_name(name, (".weight",)), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_backbone_runs_as_in_transformers(kind, tmp_path):
    reference = llama()
    path = tmp_path if kind == "folder" else tmp_path / "model.gguf"
    if kind == "folder":
        reference.save_pretrained(path)
    else:
        write_gguf(reference, path)
    sizes, tensors = read_backbone(path)
    assert sizes == SIZES
    ours = fill_lm(LM(LMConfig(**sizes, lora_rank=0, feature_width=8)), tensors).eval()
    tokens = torch.randint(FIRST_TEXT_ID, 64, (1, 9))
    causal = torch.ones(1, 9, 9, dtype=torch.bool).tril()
    with torch.no_grad():
        got = ours.logits(ours(ours.embed(tokens), torch.arange(9)[None], causal))
        expected = reference(tokens).logits
    text = slice(FIRST_TEXT_ID, None)
    torch.testing.assert_close(got[..., text], expected[..., text], rtol=1e-4, atol=1e-5)


def test_missing_backbone_is_refused(tmp_path):
    with pytest.raises(BackboneError, match="no Llama-family GGUF file"):
        read_backbone(tmp_path / "nothing.gguf")
    with pytest.raises(BackboneError, match=r"config\.json"):
        read_backbone(tmp_path)


def test_output_layer_of_its_own_is_refused(tmp_path):
    llama(is_tied=False).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="not its embedding"):
        read_backbone(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"rope_type": "llama3"}, "rope_parameters": None}, "scales"),
        ({"model_type": "qwen2"}, "qwen2"),
    ],
)
def test_other_architectures_are_refused(change, message, tmp_path):
    llama().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(BackboneError, match=message):
        read_backbone(tmp_path)


def test_vocabulary_with_text_in_place_of_controls_is_refused():
    check_tokenizer(tiny_tokenizer())
    letters = {letter: i for i, letter in enumerate("abcdefghijklmnopqrstu")}
    with pytest.raises(BackboneError, match="hold text"):
        check_tokenizer(Tokenizer(models.BPE(vocab=letters, merges=[])))


@pytest.mark.slow
def test_agent_refuses_another_backbone_than_its_own(tmp_path):
    llama().save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=r"another backbone.*width"):
        load_agent(backbone=tmp_path)
