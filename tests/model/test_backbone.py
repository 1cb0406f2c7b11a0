"""Backbones of any size: a folder as `transformers` saves it, and a GGUF file, give the same LM;
what cannot work is refused."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from duplex.agent import load_agent
from duplex.errors import BackboneError
from duplex.model.backbone import fill_lm, read_backbone, start_controls
from duplex.model.lm import LM, LMConfig
from duplex.model.tokens import FIRST_TEXT_ID
from duplex.model.vocabulary import MARKS, check_room, moves, with_room
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
    "qkv_bias": False,
    "tied": True,
}


def qwen(is_tied: bool = True, vocabulary: int = 64) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
        vocab_size=vocabulary,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=is_tied,
    )
    model = Qwen2ForCausalLM(config).eval()
    for name, value in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(value)
    return model


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


def write_gguf(model, path: Path) -> None:
    """As llama.cpp stores it: its own names, a Llama's rotary halves interleaved."""
    kind = model.config.model_type
    writer = gguf.GGUFWriter(path, kind)
    writer.add_embedding_length(128)
    writer.add_block_count(2)
    writer.add_feed_forward_length(48)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_vocab_size(64)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[kind.upper()], 2)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        value = value.numpy()
        if kind == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = len(value) // 64
            value = value.reshape(heads, 2, 32, -1).swapaxes(1, 2).reshape(value.shape)
        value = np.ascontiguousarray(value, dtype=np.float32)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ours_of(path: Path, **more) -> LM:
    sizes, tensors = read_backbone(path)
    return fill_lm(LM(LMConfig(**sizes, **more, lora_rank=0, feature_width=8)), tensors).eval()


def logits(lm: LM, tokens: torch.Tensor) -> torch.Tensor:
    count = tokens.shape[1]
    causal = torch.ones(1, count, count, dtype=torch.bool).tril()
    return lm.logits(lm(lm.embed(tokens), torch.arange(count)[None], causal))


@pytest.mark.parametrize("kind", ["folder", "gguf"])
@pytest.mark.parametrize("make", [llama, qwen])
@pytest.mark.parametrize("is_tied", [True, False])
def test_backbone_runs_as_in_transformers(kind, make, is_tied, tmp_path):
    reference = make(is_tied)
    path = tmp_path if kind == "folder" else tmp_path / "model.gguf"
    if kind == "folder":
        reference.save_pretrained(path)
    else:
        write_gguf(reference, path)
    assert read_backbone(path)[0] == SIZES | {"tied": is_tied, "qkv_bias": make is qwen}
    tokens = torch.randint(FIRST_TEXT_ID, 64, (1, 9))
    with torch.no_grad():
        got = logits(ours_of(path), tokens)
        expected = reference(tokens).logits
    text = slice(FIRST_TEXT_ID, None)
    torch.testing.assert_close(got[..., text], expected[..., text], rtol=1e-4, atol=1e-5)


def text_first_tokenizer() -> Tokenizer:
    """As Qwen2's: text from id 0 on, the chat marks behind it."""
    letters = {letter: i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.add_special_tokens(list(MARKS))
    return tokenizer


@pytest.mark.parametrize("is_tied", [True, False])
def test_text_in_place_of_controls_moves_to_spare_ids(is_tied, tmp_path):
    raw = text_first_tokenizer()
    moved = moves(raw)
    tokenizer = with_room(raw, moved)
    assert [tokenizer.token_to_id(mark) for mark in MARKS] == [0, 1, 2]
    text = "<|im_start|>aquickfox<|im_end|>"
    before = raw.encode(text).ids
    after = tokenizer.encode(text).ids
    assert before != after
    assert tokenizer.decode(after) == raw.decode(before)
    assert all(n >= FIRST_TEXT_ID for n in after[1:-1])

    reference = qwen(is_tied)
    reference.save_pretrained(tmp_path)
    ours = ours_of(tmp_path, moved=moved)
    start_controls(ours, tokenizer)
    with torch.no_grad():
        got = logits(ours, torch.tensor([after]))[0]
        expected = reference(torch.tensor([before])).logits[0]
    for n in range(29):  # what the tokenizer knew: its text and its marks
        new = tokenizer.token_to_id(raw.id_to_token(n))
        if new > 2:
            torch.testing.assert_close(got[:, new], expected[:, n], rtol=1e-4, atol=1e-5)


def test_room_for_controls_is_there_or_refused():
    assert moves(tiny_tokenizer()) == ()
    assert with_room(tiny_tokenizer(), ()).to_str() == tiny_tokenizer().to_str()
    with pytest.raises(BackboneError, match="hold text"):
        moves(Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate("abc")}, merges=[])))
    moved = moves(text_first_tokenizer())
    check_room(moved, 29 + 14)
    with pytest.raises(BackboneError, match="lacks 2 spare ids"):
        check_room(moved, 29 + 12)


def test_missing_backbone_is_refused(tmp_path):
    with pytest.raises(BackboneError, match="no GGUF file of a Llama or Qwen2"):
        read_backbone(tmp_path / "nothing.gguf")
    with pytest.raises(BackboneError, match=r"config\.json"):
        read_backbone(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"rope_type": "llama3"}, "rope_parameters": None}, "scales"),
        ({"model_type": "gemma"}, "gemma"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "sliding"),
    ],
)
def test_other_architectures_are_refused(change, message, tmp_path):
    llama().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(BackboneError, match=message):
        read_backbone(tmp_path)


@pytest.mark.slow
def test_agent_refuses_another_backbone_than_its_own(tmp_path):
    llama().save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=r"another backbone.*width"):
        load_agent(backbone=tmp_path)
