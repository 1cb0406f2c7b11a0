"""Weights of a Llama-family decoder, from a GGUF file or a `transformers` state dict, into our LM."""

from pathlib import Path

import torch

from duplex.lm import LM
from duplex.tokens import AGENT, ASIDE, BACK, END, FIRST_TEXT_ID, NEXT, STOP, USER, USER_END

GGUF_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def read_gguf(path: Path, head_width: int = 64) -> dict[str, torch.Tensor]:
    """A Llama GGUF file, dequantised, under the names `transformers` uses (without the leading "model.")."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    tensors = {}
    for item in GGUFReader(path).tensors:
        value = torch.from_numpy(dequantize(item.data, item.tensor_type).copy())
        parts = item.name.split(".")
        if parts[0] == "blk":
            if parts[2] in ("attn_q", "attn_k"):  # llama.cpp interleaves the two halves of each head's rotary pairs
                heads = value.shape[0] // head_width
                value = value.view(heads, head_width // 2, 2, -1).transpose(1, 2).reshape(value.shape)
            tensors[f"layers.{parts[1]}.{GGUF_NAMES[parts[2]]}.weight"] = value
        else:
            tensors[{"token_embd": "embed_tokens", "output_norm": "norm"}[parts[0]] + ".weight"] = value
    return tensors


@torch.no_grad()
def fill(lm: LM, tensors: dict[str, torch.Tensor]) -> LM:
    """Copy a backbone's tensors into `lm`, fusing q, k, v and gate, up."""
    lm.embedding.copy_(tensors["embed_tokens.weight"])
    lm.norm.copy_(tensors["norm.weight"])
    for i, block in enumerate(lm.blocks):
        prefix = f"layers.{i}."
        part = {k.removeprefix(prefix).removesuffix(".weight"): v for k, v in tensors.items() if k.startswith(prefix)}
        block.attention_norm.copy_(part["input_layernorm"])
        block.qkv.weight.copy_(torch.cat([part[f"self_attn.{n}_proj"] for n in "qkv"]))
        block.out.weight.copy_(part["self_attn.o_proj"])
        block.mlp_norm.copy_(part["post_attention_layernorm"])
        block.gate_up.weight.copy_(torch.cat([part["mlp.gate_proj"], part["mlp.up_proj"]]))
        block.down.weight.copy_(part["mlp.down_proj"])
    return lm


@torch.no_grad()
def start_controls(lm: LM, tokenizer) -> None:
    """First rows of the control tokens: the chat marks and words that stand nearest to their meaning."""
    table = lm.embedding

    def mean(text: str) -> torch.Tensor:
        return table[tokenizer.encode(text, add_special_tokens=False).ids].mean(0)

    lm.control_in.copy_(table[:FIRST_TEXT_ID])
    lm.control_out.copy_(table[:FIRST_TEXT_ID])
    meaning = {USER: "<|im_start|>user", USER_END: "<|im_end|>", AGENT: "<|im_start|>assistant", END: "<|im_end|>"}
    for control, text in {**meaning, ASIDE: "<|im_end|>", STOP: "<|im_end|>", BACK: " okay", NEXT: " "}.items():
        lm.control_in[control] = mean(text)
        lm.control_out[control] = mean(text)
    lm.blank.copy_(mean(" ...") * 0.5)


def trained(lm: LM) -> dict[str, torch.Tensor]:
    """What belongs to the agent rather than to the backbone: adapters, control rows, blank, projector."""
    return {name: p.detach() for name, p in lm.named_parameters() if p.requires_grad}
