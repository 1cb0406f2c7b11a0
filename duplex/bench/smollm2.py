"""SmolLM2-135M-Instruct as it comes, in `transformers`: the language model of the cascade and the judge of relevance."""

from collections.abc import Sequence
from pathlib import Path

import torch

from duplex import weights
from duplex.model.backbone import read_gguf
from duplex.model.tokens import load_tokenizer

LONGEST_ANSWER = 48  # tokens
BEGIN, END = "<|im_start|>", "<|im_end|>"


def prompt(messages: Sequence[tuple[str, str]]) -> str:
    """(role, text) of each message in the model's own chat form, up to where the assistant is to speak."""
    return (
        "".join(f"{BEGIN}{role}\n{text}{END}\n" for role, text in messages) + f"{BEGIN}assistant\n"
    )


def load_llama(path: Path):
    """A GGUF file of a Llama-family model -> transformers.LlamaForCausalLM, bfloat16, for inference.

    Raises BackboneError.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes, tensors = read_gguf(path)
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=sizes["width"],
            intermediate_size=sizes["hidden"],
            num_hidden_layers=sizes["layers"],
            num_attention_heads=sizes["heads"],
            num_key_value_heads=sizes["kv_heads"],
            vocab_size=sizes["vocabulary"],
            rope_parameters={"rope_type": "default", "rope_theta": sizes["rope_theta"]},
            rms_norm_eps=sizes["norm_eps"],
            tie_word_embeddings=True,
        )
    )
    model.model.load_state_dict(tensors)
    return model.to(torch.bfloat16).eval()


class SmolLM2:
    """The model with its tokenizer: replies to conversations, and judges answers."""

    def __init__(self, offline: bool = False):
        """Raises WeightsError."""
        self.model = load_llama(next(weights.smollm2(offline).glob("*.gguf")))
        self.tokenizer = load_tokenizer(weights.DEFAULT_AGENT)
        self.end = self.tokenizer.token_to_id(END)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    @torch.inference_mode()
    def reply(self, messages: Sequence[tuple[str, str]]) -> tuple[str, int]:
        """The greedy answer and how many tokens it took."""
        ids = torch.tensor([self.encode(prompt(messages))])
        mask = torch.ones_like(ids)
        options = {
            "do_sample": False,
            "eos_token_id": self.end,
            "pad_token_id": self.end,
            "max_new_tokens": LONGEST_ANSWER,
        }
        new = self.model.generate(ids, attention_mask=mask, **options)[0, ids.shape[1] :]
        return self.tokenizer.decode(new.tolist()).strip(), len(new)

    @torch.inference_mode()
    def log_likelihood(self, question: str, answer: str) -> float:
        """Natural logarithm of the probability of the answer after the question."""
        before, after = self.encode(prompt([("user", question)])), self.encode(answer)
        scores = (
            self.model(torch.tensor([before + after])).logits[0, len(before) - 1 : -1].float()
        )  # [answer, vocabulary]
        return float(scores.log_softmax(-1).gather(1, torch.tensor(after)[:, None]).sum())
