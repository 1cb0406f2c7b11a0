"""Objectives that draw speech and text together in the LM.

- Contrastive: at the LM's input the mean of an utterance's ticks is nearest to the mean of its own
  words' embeddings (InfoNCE over the batch), and a small classifier that tells speech from text is
  deceived through a gradient-reversal layer (Sofer et al., Interspeech 2025, "Pull It Together").
- Consistency: read from the speech alone, without a transcript, an answer has the distributions
  that a frozen LM gives it that reads the text (Kullback-Leibler divergence, position by position).

A batch is a list of duplex.training.scenes.utterances.Utterance.
"""

import copy
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from duplex.model.lm import LM
from duplex.model.tokens import AGENT, USER, USER_END, Grammar
from duplex.training.common.greedy import greedy
from duplex.training.common.precision import mixed
from duplex.training.objectives.next_symbol import collate_examples
from duplex.training.scenes.example import Example
from duplex.training.scenes.sequence import IGNORE, NEVER, Sequence
from duplex.training.scenes.utterances import Utterance

# Tokens of an answer at most.
ANSWER_TOKENS = 16


class AlignmentHeads(nn.Module):
    """What only training needs: the contrast's temperature, and the judge of speech and text."""

    def __init__(self, width: int):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.judge = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, 1))


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """x itself, but its gradient comes back times -strength (Ganin and Lempitsky, 2015)."""
    return x.detach() * (1 + strength) - x * strength


def project_ticks(lm: LM, utterance: Utterance) -> Tensor:
    """The ticks as the LM meets them [T, D]."""
    return lm.project(utterance.features, utterance.tokens)


def mean_embeddings(lm: LM, batch: list[Utterance]) -> tuple[Tensor, Tensor]:
    """Of every utterance the mean tick and the mean embedding of its words, both float32 [B, D]."""
    speech = [project_ticks(lm, utterance).float().mean(0) for utterance in batch]
    text = [lm.embed(torch.tensor(utterance.said)).float().mean(0) for utterance in batch]
    return torch.stack(speech), torch.stack(text)


def contrastive(
    heads: AlignmentHeads, speech: Tensor, text: Tensor, reversal: float = 0.3
) -> Tensor:
    """InfoNCE both ways, and the judge's cross entropy, which speech tries to raise.

    speech, text: as `mean_embeddings` gives them, [B, D]. `reversal` of the judge's gradient comes
    back: 0.3 is enough to close the gap, and too little to move the words.
    """
    scale = heads.log_scale.exp().clamp(max=100)
    scores = scale * F.normalize(speech, dim=-1) @ F.normalize(text, dim=-1).T
    own = torch.arange(len(speech))
    both = reverse_gradient(torch.cat([speech, text]), reversal) / text.std().detach()
    judged = heads.judge(both)[:, 0]
    is_speech = torch.cat([torch.ones(len(speech)), torch.zeros(len(text))])
    contrast = (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2
    return contrast + F.binary_cross_entropy_with_logits(judged, is_speech)


def frozen_copy(lm: LM) -> LM:
    """The LM as it is now. The backbone's weights, most of it, are shared."""
    shared = {id(p): p for p in lm.parameters() if not p.requires_grad}
    return copy.deepcopy(lm, shared).requires_grad_(False)


def question_sequence(prompt: list[int], user: list[int], answer: list[int]) -> Sequence:
    """prompt <user> user </user> <agent> answer; the labels are the answer's tokens.

    user: tokens, or -1 for each tick.
    """
    token = np.array([*prompt, USER, *user, USER_END, AGENT, *answer[:-1]])
    tick = np.maximum(np.cumsum(token < 0) - 1, 0)
    label = np.full(len(token), IGNORE)
    label[-len(answer) :] = answer
    return Sequence(token, tick, label, np.full(len(token), NEVER))


def label_log_probs(lm: LM, examples: list[Example]) -> Tensor:
    """The log-probabilities at all labels of `question_sequence` [N, V]."""
    x, positions, visible, labels = collate_examples(lm, examples)
    with mixed(x.device.type):
        hidden = lm(x, positions, visible)[labels != IGNORE]
        return lm.logits(hidden).log_softmax(-1)


def consistency(
    lm: LM, frozen: LM, batch: list[Utterance], answers: list[list[int]], prompt: list[int]
) -> Tensor:
    """Mean divergence of the answers' distributions, from text that `frozen` reads to speech."""
    read = []
    heard = []
    for utterance, answer in zip(batch, answers, strict=True):
        text = question_sequence(prompt, utterance.said, answer)
        read.append(Example(text, None, [[]]))
        speech = question_sequence(prompt, [-1] * len(utterance.features), answer)
        heard.append(Example(speech, utterance.features, utterance.tokens))
    with torch.no_grad():
        wanted = label_log_probs(frozen, read)
    return F.kl_div(label_log_probs(lm, heard), wanted, reduction="batchmean", log_target=True)


class Answers:
    """A frozen LM's own short answers to texts.

    They are kept in a file: making one takes longer than learning from it.
    """

    def __init__(self, path: Path, frozen: LM, prompt: list[int]):
        self.path = path
        self.frozen = frozen
        self.prompt = prompt
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.known = {row["text"]: row["answer"] for row in rows}

    def __call__(self, batch: list[Utterance]) -> list[list[int]]:
        """The tokens of every answer; the last one is <end> if there was room for it."""
        new = [utterance for utterance in batch if utterance.text not in self.known]
        if new:
            begun = [
                self.frozen.embed(torch.tensor([*self.prompt, USER, *u.said, USER_END, AGENT]))
                for u in new
            ]
            made = greedy(self.frozen, begun, [], Grammar(AGENT, agent_open=True), ANSWER_TOKENS)
            with open(self.path, "a") as file:
                for utterance, answer in zip(new, made, strict=True):
                    self.known[utterance.text] = answer
                    file.write(json.dumps({"text": utterance.text, "answer": answer}) + "\n")
        return [self.known[utterance.text] for utterance in batch]
