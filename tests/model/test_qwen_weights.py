"""Qwen2.5's real weights in our LM, beside `transformers`: runs where they are in the cache."""

from pathlib import Path

import gguf
import pytest
import torch
from gguf.quants import dequantize
from transformers import Qwen2Config, Qwen2ForCausalLM

from duplex import weights
from duplex.model.backbone import fill_lm, read_backbone
from duplex.model.lm import LM, LMConfig
from duplex.model.tokens import FIRST_TEXT_ID
from duplex.model.vocabulary import MARKS, check_room

FOLDER = weights.place(weights.QWEN_HALF)
# "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
ASKED = [151644, 872, 198, 3838, 374, 279, 6722, 315, 9625, 30, 151645, 198, 151644, 77091, 198]
# "The", as in "The capital of France is Paris."
ANSWERED = 785


@pytest.fixture(scope="module")
def file() -> Path:
    found = sorted(FOLDER.glob("*.gguf"))
    if not found:
        pytest.skip(f"no weights in {FOLDER}: python -m duplex.weights qwen_half")
    return found[0]


def reference_logits(reader: gguf.GGUFReader, tokens: list[int]) -> torch.Tensor:
    """[L, V] of `transformers`, by the names and sizes that the file's own library knows."""
    sizes = {
        "hidden_size": "embedding_length",
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "intermediate_size": "feed_forward_length",
    }
    found = {name: reader.fields[f"qwen2.{key}"].contents() for name, key in sizes.items()}
    config = Qwen2Config(
        **found,
        vocab_size=len(reader.fields["tokenizer.ggml.tokens"].contents()),
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,  # the file has the output layer in another precision
    )
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    stored = {item.name: item for item in reader.tensors}
    tensors = {}
    for name in model.state_dict():
        item = stored[names.get_name(name, (".weight", ".bias"))]
        tensors[name] = torch.from_numpy(dequantize(item.data, item.tensor_type).copy())
    model.load_state_dict(tensors, assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    with torch.no_grad():
        return model.eval()(torch.tensor([tokens])).logits[0]


def our_logits(file: Path, words: list[str], tokens: list[int]) -> torch.Tensor:
    """[L, V] of our LM, in the order of the file's ids.

    As in use the words at the first ids change places with chat marks and spare ids.
    """
    spare = next(n for n, word in enumerate(words) if word.startswith("[PAD"))
    places = [*(words.index(mark) for mark in MARKS), *range(spare, len(words))]
    moved = tuple(zip(range(FIRST_TEXT_ID), places, strict=False))
    check_room(moved, len(words))
    place = torch.arange(len(words))
    for first, other in moved:
        place[[first, other]] = place[[other, first]]
    sizes, tensors = read_backbone(file)
    lm = fill_lm(LM(LMConfig(**sizes, moved=moved, lora_rank=0, feature_width=8)), tensors).eval()
    count = len(tokens)
    causal = torch.ones(1, count, count, dtype=torch.bool).tril()
    with torch.no_grad():
        # The chat marks are control tokens: here their rows are what the file holds.
        lm.control_in.copy_(lm.embedding[:FIRST_TEXT_ID])
        lm.control_out.copy_(lm.output[:FIRST_TEXT_ID])
        x = lm.embed(place[torch.tensor([tokens])])
        return lm.logits(lm(x, torch.arange(count)[None], causal))[0][:, place]


@pytest.mark.slow
def test_real_weights_give_the_logits_of_transformers(file):
    reader = gguf.GGUFReader(file)
    words = reader.fields["tokenizer.ggml.tokens"].contents()
    text = "".join(words[n] for n in ASKED).replace("Ġ", " ").replace("Ċ", "\n")
    asked = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    assert text == asked
    expected = reference_logits(reader, ASKED)
    assert expected[-1].argmax() == ANSWERED
    torch.testing.assert_close(our_logits(file, words, ASKED), expected, rtol=1e-4, atol=1e-3)
