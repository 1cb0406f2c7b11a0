"""Weights of a Llama-family decoder, from a GGUF file or a folder of `transformers`, into our LM.

Any size will do, if the output layer is the embedding and positions 3 to 16 of the vocabulary hold
no text: they become the control tokens. The SmolLM2 models are such.
"""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file

from duplex.errors import BackboneError
from duplex.model import tokens
from duplex.model.lm import LM

# Field of LMConfig -> metadata of a Llama GGUF file, key of a `transformers` config.json.
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


def read_backbone(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Read a GGUF file, or a folder with config.json and safetensors.

    Returns sizes as fields of LMConfig, and tensors under the names that `transformers` uses,
    without the leading "model.". Raises BackboneError.
    """
    try:
        return read_folder(path) if path.is_dir() else read_gguf(path)
    except (OSError, KeyError) as error:
        what = "no Llama-family GGUF file and no folder with config.json and safetensors"
        raise BackboneError(f"{path} is {what}: {error!r}") from error


def read_folder(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """See `read_backbone`."""
    config = json.loads((path / "config.json").read_text())
    if config.get("model_type") != "llama":
        raise BackboneError(f"{path} holds a {config.get('model_type')!r} model, not a Llama")
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
    return sizes, checked(path, tensors, head_width, sizes)


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
    return f"layers.{parts[1]}.{inner[parts[2]]}.weight"


def read_gguf(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """See `read_backbone`; the tensors are dequantised."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(path)  # It takes five seconds.
    sizes = gguf_sizes(path, reader.fields)
    head_width = sizes["width"] // sizes["heads"]
    tensors = {}
    for item in reader.tensors:
        value = torch.from_numpy(dequantize(item.data, item.tensor_type).copy())
        if ".attn_q." in item.name or ".attn_k." in item.name:
            # llama.cpp interleaves the two halves of each head's rotary pairs.
            pairs = value.view(value.shape[0] // head_width, head_width // 2, 2, -1)
            value = pairs.transpose(1, 2).reshape(value.shape)
        tensors[transformers_name(item.name)] = value
    return sizes, checked(path, tensors, head_width, sizes)


def gguf_sizes(path: Path, fields: dict) -> dict:
    """What the metadata of a Llama GGUF file says about its size, as fields of LMConfig."""
    kind = fields["general.architecture"].contents()
    if kind != "llama":
        raise BackboneError(f"{path} holds a {kind!r} model, not a Llama")
    sizes = {field: fields[f"llama.{name}"].contents() for field, (name, _) in SIZES.items()}
    # Numbers are stored in 32 bits: six digits of them are meant.
    return {
        field: float(f"{size:.6g}") if isinstance(size, float) else size
        for field, size in sizes.items()
    }


def checked(
    path: Path, tensors: dict[str, torch.Tensor], head_width: int, sizes: dict
) -> dict[str, torch.Tensor]:
    """The tensors without an output layer of their own. Raises BackboneError where our LM has no
    place for them."""
    if head_width * sizes["heads"] != sizes["width"]:
        raise BackboneError(
            f"{path} has heads of {head_width}, not its width divided by their number"
        )
    output = tensors.pop("lm_head.weight", None)
    if output is not None and not torch.equal(output, tensors["embed_tokens.weight"]):
        raise BackboneError(
            f"the output layer of {path} is not its embedding; only tied ones are supported"
        )
    return tensors


@torch.no_grad()
def fill_lm(lm: LM, tensors: dict[str, torch.Tensor]) -> LM:
    """Copy a backbone's tensors into `lm`, fusing q, k, v and gate, up."""
    lm.embedding.copy_(tensors["embed_tokens.weight"])
    lm.norm.copy_(tensors["norm.weight"])
    for i, block in enumerate(lm.blocks):

        def part(name: str, i: int = i) -> torch.Tensor:
            return tensors[f"layers.{i}.{name}.weight"]

        block.attention_norm.copy_(part("input_layernorm"))
        block.qkv.weight.copy_(torch.cat([part(f"self_attn.{n}_proj") for n in "qkv"]))
        block.out.weight.copy_(part("self_attn.o_proj"))
        block.mlp_norm.copy_(part("post_attention_layernorm"))
        block.gate_up.weight.copy_(torch.cat([part("mlp.gate_proj"), part("mlp.up_proj")]))
        block.down.weight.copy_(part("mlp.down_proj"))
    return lm


def check_tokenizer(tokenizer) -> None:
    """Raises BackboneError where a control token would take the place of text."""
    places = range(tokens.NEXT, tokens.FIRST_TEXT_ID)
    names = [tokenizer.id_to_token(place) or "<none>" for place in places]
    taken = [name for name in names if not re.fullmatch(r"<.+>", name)]
    if taken:
        raise BackboneError(
            f"positions {places[0]} to {places[-1]} of the vocabulary hold text "
            f"({' '.join(taken)}); they are to become the control tokens"
        )


@torch.no_grad()
def start_controls(lm: LM, tokenizer) -> None:
    """First rows of the control tokens: chat marks and words nearest to their meaning."""
    table = lm.embedding

    def mean(text: str) -> torch.Tensor:
        return table[tokenizer.encode(text, add_special_tokens=False).ids].mean(0)

    lm.control_in.copy_(table[: tokens.FIRST_TEXT_ID])
    lm.control_out.copy_(table[: tokens.FIRST_TEXT_ID])
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
        lm.control_out[control] = mean(text)
    lm.blank.copy_(mean(" ...") * 0.5)


def trained_tensors(lm: LM) -> dict[str, torch.Tensor]:
    """What belongs to the agent rather than to the backbone: adapters, control rows, blank,
    projector."""
    return {name: p.detach() for name, p in lm.named_parameters() if p.requires_grad}
