"""Objectives that draw speech and text together: each does what it says."""

import pytest
import torch
from torch.nn import functional as F

from duplex.model.tokens import AGENT, END, FIRST_TEXT_ID, USER, USER_END
from duplex.training.common.precision import mixed
from duplex.training.evaluation.align import distances
from duplex.training.objectives.alignment import (
    ANSWER_TOKENS,
    AlignmentHeads,
    Answers,
    consistency,
    contrastive,
    frozen_copy,
    label_log_probs,
    question_sequence,
    reverse_gradient,
)
from duplex.training.scenes.example import Example
from duplex.training.scenes.sequence import IGNORE
from duplex.training.scenes.utterances import Utterance
from tests.training.helpers import tiny_lm

PROMPT = [FIRST_TEXT_ID + 3, FIRST_TEXT_ID + 5]


def certain(*texts: list[int]) -> list[Utterance]:
    """Utterances of which a token is recognised for certain in every tick.

    So the ticks are the words' embeddings.
    """
    made = []
    for indices in texts:
        said = [FIRST_TEXT_ID + 20 + i for i in indices]
        tokens = [[(token, 1.0)] for token in said]
        made.append(Utterance(str(indices), said, None, torch.randn(len(indices), 96), tokens))
    return made


def text_ids(*numbers: int) -> list[int]:
    return [FIRST_TEXT_ID + number for number in numbers]


def test_gradient_reversal_reverses():
    x = torch.randn(3, 5, requires_grad=True)
    (2 * reverse_gradient(x, 0.3) ** 2).sum().backward()
    torch.testing.assert_close(reverse_gradient(x, 0.3), x)
    torch.testing.assert_close(x.grad, -0.3 * 4 * x.detach())


def test_the_judge_learns_and_speech_is_pushed_to_deceive_it():
    """A step against the gradient makes the judge surer, and speech harder to tell from text."""
    torch.manual_seed(0)
    heads = AlignmentHeads(8)
    text = torch.randn(64, 8)
    heads.log_scale.data.fill_(-30.0)  # No contrast: only the judge is left.
    speech = (text.flip(0) + 1.0).requires_grad_()

    def judged(cloud: torch.Tensor) -> float:
        scores = heads.judge(cloud / text.std())[:, 0]
        return float(F.binary_cross_entropy_with_logits(scores, torch.ones(64)).detach())

    for _ in range(50):  # A judge that knows its trade.
        speech.grad = None
        heads.zero_grad()
        contrastive(heads, speech, text).backward()
        with torch.no_grad():
            for parameter in heads.judge.parameters():
                parameter -= 0.3 * parameter.grad
    before = judged(speech.detach())
    assert before < 0.3 and judged((speech - 100 * speech.grad).detach()) > before


def test_contrast_falls_and_retrieval_rises():
    torch.manual_seed(0)
    text = torch.randn(40, 16)
    far = text @ torch.linalg.qr(torch.randn(16, 16))[0] + 2.0
    heads = AlignmentHeads(16)
    projector = torch.nn.Linear(16, 16)
    optimizer = torch.optim.Adam([*heads.parameters(), *projector.parameters()], lr=0.02)
    with torch.no_grad():
        before = contrastive(heads, projector(far), text)
        apart = distances(projector(far), text)
    for _ in range(150):
        optimizer.zero_grad()
        contrastive(heads, projector(far), text).backward()
        optimizer.step()
    with torch.no_grad():
        after = contrastive(heads, projector(far), text)
        near = distances(projector(far), text)
    assert after < 0.5 * before
    for way in ("text by speech", "speech by text"):
        recall = f"recall at 1, {way}"
        assert apart[recall] < 0.2 and near[recall] > 0.9
    gap = "gap between centroids, in mean spreads"
    assert near[gap] < 0.5 * apart[gap]
    same = distances(text, text)
    assert same[gap] == 0
    assert same["recall at 1, text by speech"] == same["recall at 10, speech by text"] == 1


def test_consistency_is_zero_when_ticks_are_the_texts_embeddings():
    batch = certain([1, 4, 2, 7, 3], [9, 5], [6, 8, 1])
    answers = [[*text_ids(9, 2), END], [*text_ids(1), END], text_ids(4, 4)]
    lm = tiny_lm()
    frozen = frozen_copy(lm)
    assert frozen.embedding is lm.embedding and frozen.control_in is not lm.control_in
    loss = consistency(lm, frozen, batch, answers, PROMPT)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)


def test_consistency_falls_and_its_teacher_does_not_move():
    torch.manual_seed(0)
    batch = certain([1, 4, 2, 7, 3], [9, 5], [6, 8, 1])
    answers = [[*text_ids(9, 2), END], [*text_ids(1), END], text_ids(4, 4)]
    lm = tiny_lm()
    frozen = frozen_copy(lm)
    torch.nn.init.normal_(lm.residual.weight, std=0.1)
    start = float(consistency(lm, frozen, batch, answers, PROMPT).detach())
    optimizer = torch.optim.Adam([p for p in lm.parameters() if p.requires_grad], lr=0.01)
    for _ in range(40):
        loss = consistency(lm, frozen, batch, answers, PROMPT)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert start > 1e-4 and float(loss.detach()) < 0.3 * start
    assert torch.equal(frozen.control_in, tiny_lm().control_in)


def test_the_divergence_is_the_sum_over_the_vocabulary():
    batch = certain([1, 4], [9, 5, 2])
    answers = [[*text_ids(9), END], [*text_ids(1, 0), END]]
    lm = tiny_lm()
    frozen = frozen_copy(lm)
    torch.nn.init.normal_(lm.residual.weight, std=0.1)
    total = 0.0
    count = 0
    for u, answer in zip(batch, answers, strict=True):  # One by one: padding takes no part.
        read = Example(question_sequence(PROMPT, u.said, answer), None, [[]])
        ticks = question_sequence(PROMPT, [-1] * len(u.features), answer)
        heard = Example(ticks, u.features, u.tokens)
        wanted = label_log_probs(frozen, [read]).double()
        got = label_log_probs(lm, [heard]).double()
        assert len(wanted) == len(answer)
        total += float((wanted.exp() * (wanted - got)).sum().detach())
        count += len(answer)
    loss = float(consistency(lm, frozen, batch, answers, PROMPT).detach())
    assert loss == pytest.approx(total / count, rel=0.02)


def test_a_question_and_its_answer_are_one_sequence():
    sequence = question_sequence([20, 21], [-1, -1, -1], [30, 31, END])
    assert sequence.token.tolist() == [20, 21, USER, -1, -1, -1, USER_END, AGENT, 30, 31]
    assert sequence.label.tolist() == [IGNORE] * 7 + [30, 31, END]
    assert sequence.tick[3:6].tolist() == [0, 1, 2] and set(sequence.tick[6:]) == {2}


def plain_answer(lm, said: list[int]) -> list[int]:
    """The likeliest answer, read again from its beginning for every token."""
    answer = []
    while len(answer) < ANSWER_TOKENS and END not in answer:
        tokens = torch.tensor([[*PROMPT, USER, *said, USER_END, AGENT, *answer]])
        length = tokens.shape[1]
        visible = torch.ones(1, length, length, dtype=torch.bool).tril()
        with torch.no_grad(), mixed():
            hidden = lm(lm.embed(tokens), torch.arange(length)[None], visible)
            scores = lm.logits(hidden[0, -1])
        scores[[i for i in range(FIRST_TEXT_ID) if i != END]] = -torch.inf
        answer.append(int(scores.argmax()))
    return answer


def test_greedy_answers_are_those_of_a_plain_loop(tmp_path):
    """Several at once, of different lengths, as if each were alone; they are kept in a file."""
    lm = tiny_lm()
    batch = certain([1, 4, 2, 7], [9], [6, 8])
    torch.nn.init.normal_(lm.control_in, std=0.5)
    answers = Answers(tmp_path / "answers.jsonl", frozen_copy(lm), PROMPT)
    made = answers(batch)
    assert made == [plain_answer(lm, utterance.said) for utterance in batch]
    kept = Answers(tmp_path / "answers.jsonl", None, PROMPT)
    assert kept(batch) == made
