"""Short spoken answers of the base LM itself, so that training keeps its way of answering.

    python -m duplex.training.answers --out CORPUS --minutes 8 --threads 1

Questions are made from texts/topics.txt. Each one gets a greedy answer of SmolLM2-135M-Instruct
after a system prompt and examples that ask for one short spoken sentence; the first sentence is
kept if it is short, complete and clean. CORPUS/answers.jsonl is appended to, a second run goes on
where the last one ended, and `python -m duplex.training.corpus` then mixes the answers in.
"""

import argparse
import json
import random
import re
import time
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer

from duplex.bench.smollm2 import load_llama
from duplex.training.common.options import add_backbone, backbone_path
from duplex.training.text.repeats import UNWANTED
from duplex.training.text.templates import read_lines


def examples() -> list[tuple[str, str]]:
    """(role, text) of the turns before each question: instructions, and exchanges as wanted."""
    turns = [
        (
            "system",
            "You are Duplex, a friendly voice assistant. You answer in one short spoken sentence "
            "of at most fifteen words. Don't use lists.",
        )
    ]
    for question, reply in (
        ("What do you think about rain?", "I like rain, because it sounds so calm."),
        ("I lost my umbrella.", "Oh no, I hope you find it again soon."),
        ("What is a hobby?", "A hobby is something you do for fun in your free time."),
        ("Do you have a car?", "No, I'm a voice assistant, so I can't drive."),
        ("How can I sleep better?", "Try to go to bed at the same time every night."),
    ):
        turns += [("user", question), ("assistant", reply)]
    return turns


def chat(turns: list[tuple[str, str]]) -> str:
    """(role, text) of all turns as SmolLM2 reads them."""
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)


def questions(rng: random.Random) -> list[str]:
    """Every form of texts/topics.txt with everything it is about, in random order."""
    found = []
    for line in read_lines("topics"):
        forms, things = line.split(" | ")
        for form in re.findall(r"[^.?]+[.?]", forms):
            found += [form.strip().replace("$x", thing.strip()) for thing in things.split(",")]
    rng.shuffle(found)
    return list(dict.fromkeys(found))


def clean(question: str, text: str) -> str:
    """The first sentence of an answer, or "" where it is not to be kept."""
    sentence = re.split(r"(?<=[.!?])\s", text.strip())[0].strip()
    is_plain = re.fullmatch(r"[A-Z][A-Za-z,' -]+[.!?]", sentence)
    is_short = 3 <= len(sentence.split()) <= 18
    # It would be about the LM, or it would say nothing.
    stale = "AI|language model|assist you|Duplex|assistant|chatbot|user|prompt|sorry|not sure"
    is_stale = re.search(rf"\b({stale})\b", sentence, re.I)
    is_unwanted = is_stale or UNWANTED.search(sentence)
    if not (is_plain and is_short) or is_unwanted or sentence.lower() == question.lower():
        return ""
    return sentence


def load(path: Path):
    """The model in bfloat16 and the tokenizer of a SmolLM2 GGUF file."""
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return load_llama(path), tokenizer


@torch.inference_mode()
def answer(
    model, prefix: Tensor, ids: Tensor, ends: Tensor, max_tokens: int = 26
) -> tuple[Tensor, Tensor]:
    """Greedy first sentences for questions of one length.

    prefix [1, P], ids [B, T]; ends: tokens that end a sentence. Returns tokens [B, N] and their
    log-probabilities [B, N], N <= max_tokens.
    """
    cache = model(prefix, use_cache=True, logits_to_keep=1).past_key_values
    cache.batch_repeat_interleave(len(ids))
    chosen = []
    scores = []
    done = torch.zeros(len(ids), dtype=torch.bool)
    for _ in range(max_tokens):
        output = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        log_probs = output.logits[:, -1].float().log_softmax(-1)
        score, ids = log_probs.max(-1, keepdim=True)  # [B, 1] each
        chosen.append(ids)
        scores.append(score)
        done |= torch.isin(ids[:, 0], ends)
        if done.all():
            break
    return torch.cat(chosen, 1), torch.cat(scores, 1)


def batches(asked: list[str], tokenizer, size: int = 32) -> list[list[tuple[str, list[int]]]]:
    """Groups of at most `size` questions with equally many tokens: (question, token ids)."""
    by_length: dict[int, list] = {}
    for question in asked:
        text = chat([("user", question)]) + "<|im_start|>assistant\n"
        ids = tokenizer.encode(text, add_special_tokens=False)
        by_length.setdefault(len(ids), []).append((question, ids))
    groups = []
    for group in by_length.values():
        groups += [group[i : i + size] for i in range(0, len(group), size)]
    return sorted(groups, key=len, reverse=True)


class AnswerFile:
    """answers.jsonl: a line {"question", "answer", "score"} for each question asked."""

    def __init__(self, path: Path):
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.path = path
        self.questions = {row["question"] for row in rows}
        self.counts = Counter(row["answer"] for row in rows)

    def append(self, question: str, sentence: str, score: float) -> None:
        """Write an answer; "" from the fifth time on that it is the same: no stock phrases."""
        self.counts[sentence] += 1
        kept = sentence if self.counts[sentence] <= 4 else ""
        row = {"question": question, "answer": kept, "score": round(score, 2)}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def describe(self) -> str:
        """How many were asked, and how many answers are good."""
        good = sum(count for sentence, count in self.counts.items() if sentence)
        return f"{sum(self.counts.values())} asked, {good} good"


def ask_all(model, tokenizer, file: AnswerFile, minutes: float, seed: int) -> None:
    """Ask what was not asked yet, for so many minutes of processor time."""
    end, *marks = tokenizer.convert_tokens_to_ids(["<|im_end|>", ".", "!", "?"])
    ends = torch.tensor([end, *marks])
    prefix = torch.tensor([tokenizer.encode(chat(examples()), add_special_tokens=False)])
    asked = [text for text in questions(random.Random(seed)) if text not in file.questions]
    for group in batches(asked, tokenizer):
        if time.process_time() > 60 * minutes:
            break
        tokens, scores = answer(model, prefix, torch.tensor([ids for _, ids in group]), ends)
        for (question, _), row, score in zip(group, tokens.tolist(), scores, strict=True):
            stops = [i for i, token in enumerate(row) if token in (end, *marks)]
            length = 1 + (stops[0] if stops else len(row) - 1)
            text = tokenizer.decode([token for token in row[:length] if token != end])
            file.append(question, clean(question, text), score[:length].mean().item())
        print(f"{file.describe()}, {time.process_time():.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the corpus; answers.jsonl is appended to"
    )
    add_backbone(parser)
    parser.add_argument(
        "--minutes", type=float, default=8, help="of processor time, then it stops (default 8)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load(backbone_path(args.backbone))
    file = AnswerFile(args.out / "answers.jsonl")
    ask_all(model, tokenizer, file, args.minutes, args.seed)


if __name__ == "__main__":
    main()
