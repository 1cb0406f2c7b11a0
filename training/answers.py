"""Short spoken answers of the base LM itself (SmolLM2-135M-Instruct), so that training keeps its way of answering.

    python -m duplex.training.answers --out CORPUS --gguf SmolLM2-135M-Instruct.Q4_1.gguf --minutes 8 --threads 1

Questions are made from texts/topics.txt. Each one gets a greedy answer after a system prompt and examples that ask for
one short spoken sentence; the first sentence is kept if it is short, complete and clean. CORPUS/answers.jsonl is
appended to, a second run goes on where the last one ended, and `python -m duplex.training.corpus` then mixes the answers in.
"""

import argparse
import json
import random
import re
import time
from collections import Counter
from pathlib import Path

import torch
from duplex.training.text.repeats import UNWANTED
from duplex.training.text.templates import read_lines
from transformers import AutoTokenizer

from duplex.bench.smollm2 import load_llama

SYSTEM = (
    "You are Duplex, a friendly voice assistant. You answer in one short spoken sentence of at most fifteen words. "
    "Don't use lists."
)
EXAMPLES = [
    ("What do you think about rain?", "I like rain, because it sounds so calm."),
    ("I lost my umbrella.", "Oh no, I hope you find it again soon."),
    ("What is a hobby?", "A hobby is something you do for fun in your free time."),
    ("Do you have a car?", "No, I'm a voice assistant, so I can't drive."),
    ("How can I sleep better?", "Try to go to bed at the same time every night."),
]
NEW_TOKENS = 26
BATCH = 32
CLEAN = re.compile(r"[A-Z][A-Za-z,' -]+[.!?]")
STALE = re.compile(
    r"\b(AI|language model|assist you|Duplex|assistant|chatbot|user|prompt|sorry|not sure)\b", re.I
)


def chat(turns: list[tuple[str, str]]) -> str:
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)


def questions(rng: random.Random) -> list[str]:
    """Every form of texts/topics.txt with every thing it is about, in random order."""
    found = []
    for line in read_lines("topics"):
        forms, things = line.split(" | ")
        for form in re.findall(r"[^.?]+[.?]", forms):
            found += [form.strip().replace("$x", thing.strip()) for thing in things.split(",")]
    rng.shuffle(found)
    return list(dict.fromkeys(found))


def clean(question: str, text: str) -> str:
    """The first sentence of an answer, or nothing."""
    sentence = re.split(r"(?<=[.!?])\s", text.strip())[0].strip()
    words = sentence.split()
    good = CLEAN.fullmatch(sentence) and 3 <= len(words) <= 18
    if (
        not good
        or STALE.search(sentence)
        or UNWANTED.search(sentence)
        or sentence.lower() == question.lower()
    ):
        return ""
    return sentence


def load(path: Path):
    """(model in bfloat16, tokenizer) of a SmolLM2 GGUF file."""
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return load_llama(path), tokenizer


@torch.inference_mode()
def answer(
    model, prefix: torch.Tensor, ids: torch.Tensor, ends: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Greedy first sentences for questions of one length, with the log-probability of each token.

    prefix [1, P], ids [B, T] -> tokens [B, N], log-probabilities [B, N], N <= NEW_TOKENS
    """
    cache = model(prefix, use_cache=True, logits_to_keep=1).past_key_values
    cache.batch_repeat_interleave(len(ids))
    chosen, scores = [], []
    done = torch.zeros(len(ids), dtype=torch.bool)
    for _ in range(NEW_TOKENS):
        output = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        score, ids = (
            output.logits[:, -1].float().log_softmax(-1).max(-1, keepdim=True)
        )  # [B, 1] each
        chosen.append(ids)
        scores.append(score)
        done |= torch.isin(ids[:, 0], ends)
        if done.all():
            break
    return torch.cat(chosen, 1), torch.cat(scores, 1)


def batches(asked: list[str], tokenizer) -> list[list[tuple[str, list[int]]]]:
    """Groups of at most BATCH questions with equally many tokens."""
    by_length: dict[int, list] = {}
    for question in asked:
        ids = tokenizer.encode(
            chat([("user", question)]) + "<|im_start|>assistant\n", add_special_tokens=False
        )
        by_length.setdefault(len(ids), []).append((question, ids))
    groups = [
        group[i : i + BATCH] for group in by_length.values() for i in range(0, len(group), BATCH)
    ]
    return sorted(groups, key=len, reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the corpus; answers.jsonl is appended to"
    )
    parser.add_argument("--gguf", type=Path, required=True, help="weights of the base LM")
    parser.add_argument(
        "--minutes", type=float, default=8, help="stop after this much processor time"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, tokenizer = load(args.gguf)
    end, *marks = tokenizer.convert_tokens_to_ids(["<|im_end|>", ".", "!", "?"])
    ends = torch.tensor([end, *marks])
    examples = [
        (role, text)
        for pair in EXAMPLES
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    prefix = torch.tensor(
        [tokenizer.encode(chat([("system", SYSTEM), *examples]), add_special_tokens=False)]
    )
    path = args.out / "answers.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {row["question"] for row in rows}
    given = Counter(row["answer"] for row in rows)
    asked = [question for question in questions(random.Random(args.seed)) if question not in known]
    with path.open("a", encoding="utf-8") as file:
        for group in batches(asked, tokenizer):
            if time.process_time() > 60 * args.minutes:
                break
            tokens, scores = answer(model, prefix, torch.tensor([ids for _, ids in group]), ends)
            for (question, _), row, score in zip(group, tokens.tolist(), scores, strict=True):
                length = 1 + next(
                    (i for i, token in enumerate(row) if token in (end, *marks)), len(row) - 1
                )
                sure = score[:length].mean().item()
                sentence = clean(
                    question, tokenizer.decode([token for token in row[:length] if token != end])
                )
                given[sentence] += 1
                sentence = sentence if given[sentence] <= 4 else ""  # no stock phrases
                file.write(
                    json.dumps({"question": question, "answer": sentence, "score": round(sure, 2)})
                    + "\n"
                )
            file.flush()
            kept = sum(count for sentence, count in given.items() if sentence)
            print(
                f"{sum(given.values())} asked, {kept} good, {time.process_time():.0f} s", flush=True
            )


if __name__ == "__main__":
    main()
