"""The LM: it equals `transformers`, is causal, and projects what was recognised."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from duplex.model.backbone import fill_lm
from duplex.model.lm import LM, LMConfig

TINY = LMConfig(
    width=32,
    layers=3,
    heads=4,
    kv_heads=2,
    hidden=48,
    vocabulary=64,
    rope_theta=1000.0,
    lora_rank=4,
    feature_width=12,
)


@pytest.fixture
def model() -> LM:
    torch.manual_seed(0)
    return LM(TINY).eval()


def causal(batch: int, length: int) -> torch.Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()[None].expand(batch, -1, -1)


def test_logits_equal_those_of_transformers():
    """With the same random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        vocab_size=64,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    reference = LlamaForCausalLM(config).eval()
    for name, parameter in reference.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    ours = LM(TINY).eval()
    tensors = {name.removeprefix("model."): t for name, t in reference.state_dict().items()}
    fill_lm(ours, tensors)
    ours.control_in.data.copy_(ours.embedding[: len(ours.control_in)])
    ours.control_out.data.copy_(ours.embedding[: len(ours.control_out)])
    tokens = torch.randint(0, 64, (2, 9))
    with torch.no_grad():
        expected = reference(tokens).logits
        positions = torch.arange(9)[None].expand(2, -1)
        got = ours.logits(ours(ours.embed(tokens), positions, causal(2, 9)))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_network_is_causal(model):
    x = torch.randn(1, 8, TINY.width, requires_grad=True)
    model(x, torch.arange(8)[None], causal(1, 8))[0, 4].sum().backward()
    assert x.grad[0, :5].abs().sum(-1).min() > 0
    assert x.grad[0, 5:].abs().max() == 0


def test_merged_adapters_change_nothing(model):
    for block in model.blocks:
        for linear in (block.qkv, block.out, block.gate_up, block.down):
            torch.nn.init.normal_(linear.lora_b, std=0.1)
    x = torch.randn(1, 6, TINY.width)
    inputs = x, torch.arange(6)[None], causal(1, 6)
    with torch.no_grad():
        expected = model.logits(model(*inputs))
        merged = model.merge()
        got = merged.logits(merged(*inputs))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_logits_without_text_are_those_of_control_tokens(model):
    hidden = torch.randn(3, TINY.width)
    controls = model.logits(hidden, text=False)
    torch.testing.assert_close(controls, model.logits(hidden)[:, : controls.shape[1]])


def test_projector_mixes_embeddings(model):
    """A tick with one certain token looks like its embedding, with two like their mean, without
    confidence like the blank; features add a residual."""
    recognised = [[(24, 1.0)], [], [(24, 1.0), (30, 1.0)], [(24, 0.25)]]
    with torch.no_grad():
        one, none, two, uncertain = model.project(torch.randn(4, 12), recognised)
    torch.testing.assert_close(one, model.embedding[24])
    torch.testing.assert_close(none, model.blank)
    torch.testing.assert_close(two, model.embedding[[24, 30]].mean(0))
    torch.testing.assert_close(uncertain, 0.25 * model.embedding[24] + 0.75 * model.blank)
    torch.nn.init.normal_(model.residual.weight)
    with_features = model.project(torch.randn(1, 12), [[(24, 1.0)]])[0]
    assert not torch.allclose(with_features, model.embedding[24])
