"""SmolLM2-135M-Instruct in `transformers`: the language model of the cascade, and a judge."""

from collections.abc import Sequence
from pathlib import Path

import torch

from duplex import weights
from duplex.model.backbone import read_gguf
from duplex.model.vocabulary import load_tokenizer


def prompt(messages: Sequence[tuple[str, str]]) -> str:
    """(role, text) of each message in the model's chat form, up to where the assistant speaks."""
    turns = [f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def load_llama(path: Path):
    """A GGUF file of a Llama-family model -> a transformers.LlamaForCausalLM in bfloat16.

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
        self.end = self.tokenizer.token_to_id("<|im_end|>")

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, control tokens included."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    @torch.inference_mode()
    def reply(self, messages: Sequence[tuple[str, str]], max_tokens: int = 48) -> tuple[str, int]:
        """The greedy answer to (role, text) messages, and how many tokens it took."""
        ids = torch.tensor([self.encode(prompt(messages))])
        found = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            eos_token_id=self.end,
            pad_token_id=self.end,
            max_new_tokens=max_tokens,
        )
        answer = found[0, ids.shape[1] :]
        return self.tokenizer.decode(answer.tolist()).strip(), len(answer)

    @torch.inference_mode()
    def log_likelihood(self, question: str, answer: str) -> float:
        """Natural logarithm of the probability of the answer after the question."""
        before = self.encode(prompt([("user", question)]))
        after = self.encode(answer)
        logits = self.model(torch.tensor([before + after])).logits[0].float()
        scores = logits[len(before) - 1 : -1].log_softmax(-1)  # [answer, vocabulary]
        return float(scores.gather(1, torch.tensor(after)[:, None]).sum())
