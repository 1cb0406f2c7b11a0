"""SmolLM2-135M-Instruct as it comes, in `transformers`: the language model of the cascade and the judge of relevance."""

from collections.abc import Sequence

import torch

from duplex.model.backbone import read_gguf
from duplex.model.tokens import load_tokenizer

LONGEST_ANSWER = 48  # tokens
BEGIN, END = "<|im_start|>", "<|im_end|>"


def prompt(messages: Sequence[tuple[str, str]]) -> str:
    """(role, text) of each message in the model's own chat form, up to where the assistant is to speak."""
    return (
        "".join(f"{BEGIN}{role}\n{text}{END}\n" for role, text in messages) + f"{BEGIN}assistant\n"
    )


class SmolLM2:
    def __init__(self, offline: bool = False):
        from transformers import LlamaConfig, LlamaForCausalLM

        from duplex import weights

        config = LlamaConfig(
            hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
            vocab_size=49152, max_position_embeddings=8192, rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
            rms_norm_eps=1e-5, tie_word_embeddings=True,
        )  # fmt: skip
        _, tensors = read_gguf(next(weights.smollm2(offline).glob("*.gguf")))
        self.model = LlamaForCausalLM(config)
        self.model.model.load_state_dict(tensors)
        self.model = self.model.to(torch.bfloat16).eval()
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
