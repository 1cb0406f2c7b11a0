"""Weights of a Llama or Qwen2 decoder, from a GGUF file or a folder of `transformers`.

Any size will do. Positions 3 to 16 of the vocabulary become the control tokens: those of the
SmolLM2 models hold no text, others' texts move to spare places, see vocabulary.py.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from duplex.errors import BackboneError
from duplex.model import tokens
from duplex.model.lm import LM
from duplex.model.vocabulary import exchanged

# Field of LMConfig -> metadata of a GGUF file, key of a `transformers` config.json.
SIZES = {
    "width": ("embedding_length", "hidden_size"),
    "layers": ("block_count", "num_hidden_layers"),
    "heads": ("attention.head_count", "num_attention_heads"),
    "kv_heads": ("attention.head_count_kv", "num_key_value_heads"),
    "hidden": ("feed_forward_length", "intermediate_size"),
    "vocabulary": ("vocab_size", "vocab_size"),
    "rope_theta": ("rope.freq_base", "rope_theta"),
    "norm_eps": ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
}
# Architectures, by the names of both.
KINDS = ("llama", "qwen2")


def read_backbone(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Read a GGUF file, or a folder with config.json and safetensors.

    Returns sizes as fields of LMConfig, and tensors under the names that `transformers` uses,
    without the leading "model.". Raises BackboneError.
    """
    try:
        return read_folder(path) if path.is_dir() else read_gguf(path)
    except (OSError, KeyError) as error:
        what = "no GGUF file of a Llama or Qwen2, and no folder with config.json and safetensors"
        raise BackboneError(f"{path} is {what}: {error!r}") from error


def read_folder(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """See `read_backbone`."""
    config = json.loads((path / "config.json").read_text())
    kind = config.get("model_type")
    if kind not in KINDS:
        raise BackboneError(f"{path} holds a {kind!r} model, not a Llama or Qwen2")
    if kind == "qwen2" and config.get("use_sliding_window"):
        raise BackboneError(f"{path} has sliding windows of its own; they are not supported")
    rope = {**config, **(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    if rope.get("rope_type", "default") != "default":
        raise BackboneError(
            f"{path} scales its rotary positions ({rope['rope_type']}); "
            "only plain ones are supported"
        )
    sizes = {field: rope[name] for field, (_, name) in SIZES.items()}
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise BackboneError(f"{path} has no .safetensors files")
    tensors = {}
    for file in files:
        for name, value in load_file(file).items():
            tensors[name.removeprefix("model.")] = value
    head_width = config.get("head_dim", sizes["width"] // sizes["heads"])
    return checked(path, tensors, head_width, sizes)


def transformers_name(gguf_name: str) -> str:
    """What `transformers` calls a tensor of a GGUF file."""
    outer = {"token_embd": "embed_tokens", "output_norm": "norm", "output": "lm_head"}
    inner = {
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
    parts = gguf_name.split(".")
    if parts[0] != "blk":
        return f"{outer[parts[0]]}.weight"
    return f"layers.{parts[1]}.{inner[parts[2]]}.{parts[3]}"


def read_gguf(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """See `read_backbone`; the tensors are dequantised."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(path)  # It takes five seconds.
    kind, sizes = gguf_sizes(path, reader.fields)
    head_width = sizes["width"] // sizes["heads"]
    tensors = {}
    for item in reader.tensors:
        value = torch.from_numpy(dequantize(item.data, item.tensor_type).copy())
        if kind == "llama" and (".attn_q." in item.name or ".attn_k." in item.name):
            # llama.cpp interleaves the two halves of each head's rotary pairs.
            pairs = value.view(value.shape[0] // head_width, head_width // 2, 2, -1)
            value = pairs.transpose(1, 2).reshape(value.shape)
        tensors[transformers_name(item.name)] = value
    return checked(path, tensors, head_width, sizes)


def gguf_sizes(path: Path, fields: dict) -> tuple[str, dict]:
    """The architecture of a GGUF file, and what it says about its size, as fields of LMConfig."""
    kind = fields["general.architecture"].contents()
    if kind not in KINDS:
        raise BackboneError(f"{path} holds a {kind!r} model, not a Llama or Qwen2")
    found = {field: fields.get(f"{kind}.{name}") for field, (name, _) in SIZES.items()}
    # Some files leave the size of the vocabulary to its list.
    found["vocabulary"] = found["vocabulary"] or fields["tokenizer.ggml.tokens"]
    sizes = {field: value.contents() for field, value in found.items()}
    if isinstance(sizes["vocabulary"], list):
        sizes["vocabulary"] = len(sizes["vocabulary"])
    # Numbers are stored in 32 bits: six digits of them are meant.
    return kind, {
        field: float(f"{size:.6g}") if isinstance(size, float) else size
        for field, size in sizes.items()
    }


def checked(
    path: Path, tensors: dict[str, torch.Tensor], head_width: int, sizes: dict
) -> tuple[dict, dict[str, torch.Tensor]]:
    """All sizes as fields of LMConfig, and the tensors without an output layer that is the
    embedding once more. Raises BackboneError where our LM has no place for them."""
    if head_width * sizes["heads"] != sizes["width"]:
        raise BackboneError(
            f"{path} has heads of {head_width}, not its width divided by their number"
        )
    output = tensors.get("lm_head.weight")
    tied = output is None or torch.equal(output, tensors["embed_tokens.weight"])
    if tied:
        tensors.pop("lm_head.weight", None)
    has_bias = "layers.0.self_attn.q_proj.bias" in tensors
    return {**sizes, "qkv_bias": has_bias, "tied": tied}, tensors


@torch.no_grad()
def fill_lm(lm: LM, tensors: dict[str, torch.Tensor]) -> LM:
    """Copy a backbone's tensors into `lm`, fusing q, k, v and gate, up."""
    lm.embedding.copy_(exchanged(tensors["embed_tokens.weight"], lm.config.moved))
    if lm.output is not None:
        lm.output.copy_(exchanged(tensors["lm_head.weight"], lm.config.moved))
    lm.norm.copy_(tensors["norm.weight"])
    for i, block in enumerate(lm.blocks):

        def part(name: str, i: int = i, kind: str = "weight") -> torch.Tensor:
            return tensors[f"layers.{i}.{name}.{kind}"]

        block.attention_norm.copy_(part("input_layernorm"))
        block.qkv.weight.copy_(torch.cat([part(f"self_attn.{n}_proj") for n in "qkv"]))
        if block.qkv.bias is not None:
            biases = [part(f"self_attn.{n}_proj", kind="bias") for n in "qkv"]
            block.qkv.bias.copy_(torch.cat(biases))
        block.out.weight.copy_(part("self_attn.o_proj"))
        block.mlp_norm.copy_(part("post_attention_layernorm"))
        block.gate_up.weight.copy_(torch.cat([part("mlp.gate_proj"), part("mlp.up_proj")]))
        block.down.weight.copy_(part("mlp.down_proj"))
    return lm


@torch.no_grad()
def start_controls(lm: LM, tokenizer) -> None:
    """First rows of the control tokens: chat marks and words nearest to their meaning."""
    table = lm.embedding
    output = table if lm.output is None else lm.output

    def mean(text: str, table: torch.Tensor = table) -> torch.Tensor:
        return table[tokenizer.encode(text, add_special_tokens=False).ids].mean(0)

    lm.control_in.copy_(table[: tokens.FIRST_TEXT_ID])
    lm.control_out.copy_(output[: tokens.FIRST_TEXT_ID])
    meaning = {
        tokens.USER: "<|im_start|>user",
        tokens.USER_END: "<|im_end|>",
        tokens.AGENT: "<|im_start|>assistant",
        tokens.END: "<|im_end|>",
        tokens.ASIDE: "<|im_end|>",
        tokens.STOP: "<|im_end|>",
        tokens.BACK: " okay",
        tokens.NEXT: " ",
    }
    for control, text in meaning.items():
        lm.control_in[control] = mean(text)
        lm.control_out[control] = mean(text, output)
    lm.blank.copy_(mean(" ...") * 0.5)


def trained_tensors(lm: LM) -> dict[str, torch.Tensor]:
    """What belongs to the agent rather than to the backbone: adapters, control rows, blank,
    projector."""
    return {name: p.detach() for name, p in lm.named_parameters() if p.requires_grad}
