"""Alignment of speech and text: each objective does what it says, alone and together, and a run can stop anywhere."""

import argparse
import json

import numpy as np
import pytest
import torch
from duplex.training import align
from duplex.training.align import (
    Answers,
    Heads,
    Utterance,
    Utterances,
    answer_scores,
    asked,
    consistency,
    contrastive,
    frozen_copy,
    reverse,
)
from duplex.training.common.precision import mixed
from duplex.training.duplex import Tokenizer
from duplex.training.evaluation import align as evaluate_align
from duplex.training.scenes.recognition import load_ears
from duplex.training.scenes.sequence import IGNORE
from safetensors.numpy import save_file
from torch.nn import functional as F

from duplex import checkpoint
from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.model.tokens import (
    AGENT,
    END,
    FIRST_TEXT_ID,
    NEXT,
    USER,
    USER_END,
    Grammar,
    advance,
    allowed_mask,
)
from tests.conftest import break_off
from tests.tiny_speech_agent import tiny_encoder, tiny_tokenizer, tiny_words
from tests.training.test_prepare import tiny_lm

WORDS = ["so", "we", "go", "up", "a", "hill", "and", "it's", "far", "now", "then", "rain"]
PROMPT = [FIRST_TEXT_ID + 3, FIRST_TEXT_ID + 5]


def write_pool(folder, count: int) -> None:
    """Utterances of two words, a tone each; every fourth is set aside."""
    folder.mkdir()
    waves, lines, offset = [], [], 0
    for n in range(count):
        text = f"{WORDS[n % 12].capitalize()} {WORDS[n // 12 + n % 5]}."
        wave = np.zeros(int(1.6 * SAMPLE_RATE), np.int16)
        words = [[word, 0.3 + 0.5 * i, 0.7 + 0.5 * i] for i, word in enumerate(text.split())]
        for i, (_, start, end) in enumerate(words):
            times = np.arange(int(start * SAMPLE_RATE), int(end * SAMPLE_RATE))
            wave[times] = 8000 * np.sin(times * (0.03 + 0.01 * ((n + 5 * i) % 12)))
        line = {
            "offset": offset,
            "samples": len(wave),
            "text": text,
            "words": words,
            "split": "train" if n % 4 else "valid",
        }
        lines.append(json.dumps(line))
        waves.append(wave)
        offset += len(wave)
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n")
    np.concatenate(waves).tofile(folder / "audio.i16")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Folders of a tiny encoder with random weights, of a tiny lexicon, of a tokenizer whose tokens are bytes, and of a pool."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    encoder = tiny_encoder()
    checkpoint.save(encoder.state_dict(), encoder.config, folder / "encoder")
    (folder / "tokenizer").mkdir(), (folder / "lexicon").mkdir()
    save_file(tiny_words(), folder / "lexicon" / "model.safetensors")
    tiny_tokenizer().save(str(folder / "tokenizer" / "tokenizer.json"))
    write_pool(folder / "pool", 36)
    return folder


def arguments(parts, out, *more) -> list[str]:
    told = [
        "--pool",
        parts / "pool",
        "--encoder",
        parts / "encoder",
        "--lexicon",
        parts / "lexicon",
        "--backbone",
        "none.gguf",
    ]
    told += ["--tokenizer", parts / "tokenizer"]
    return [
        str(a) for a in [*told, "--utterances", 4, "--steps", 4, "--lr", 3e-3, "--out", out, *more]
    ]


def aligned(parts, out, *more) -> dict[str, torch.Tensor]:
    args = align.parse_arguments(arguments(parts, out, *more))
    torch.manual_seed(args.seed)
    align.run(args, tiny_lm(), align.build_ears(args))
    return checkpoint.load_tensors(out)


@pytest.fixture
def batch(parts) -> list[Utterance]:
    ears = load_ears(parts / "encoder", parts / "lexicon")
    return Utterances([parts / "pool"], None, "train", Tokenizer(parts / "tokenizer"), ears).batch(
        np.random.default_rng(0), 6
    )


def spelled(*texts: list[int]) -> list[Utterance]:
    """Utterances of which a piece is surely heard in every tick, so that the ticks are the words' embeddings."""
    made = []
    for indices in texts:
        tokens = [FIRST_TEXT_ID + 20 + i for i in indices]
        heard = [[(token, 1.0)] for token in tokens]
        made.append(Utterance(str(indices), tokens, None, torch.randn(len(indices), 96), heard))
    return made


def test_the_transcript_obeys_the_runtime_and_ends_with_the_turn(batch):
    assert len({u.text for u in batch}) == 6
    for u in batch:
        grammar, sequence = Grammar(), u.sequence
        assert (
            sequence.token[-1] == USER_END
            and sequence.label[-1] == IGNORE
            and len(u.vectors) == sequence.tick[-1] + 1
        )
        heard = [token for pieces in u.heard for token, _ in pieces]
        written = [int(t) for t in sequence.token[sequence.tick >= 0] if t >= FIRST_TEXT_ID]
        places = range(len(heard) - len(written) + 1)
        assert written and any(heard[i : i + len(written)] == written for i in places), (
            "whatever was said, this was heard"
        )
        for token, label, tick in zip(sequence.token, sequence.label, sequence.tick, strict=True):
            if token >= 0 and tick >= 0:
                grammar = advance(grammar, int(token))
            assert label == IGNORE or allowed_mask(grammar, 512, False, False)[label]
        assert (
            sequence.label[sequence.token == -1][0] == NEXT
        )  # in the silence before the first word


def test_the_reversal_reverses():
    x = torch.randn(3, 5, requires_grad=True)
    (2 * reverse(x, 0.3) ** 2).sum().backward()
    torch.testing.assert_close(reverse(x, 0.3), x)
    torch.testing.assert_close(x.grad, -0.3 * 4 * x.detach())


def test_the_judge_learns_and_speech_is_pushed_to_deceive_it():
    """One step against the gradient of the contrastive loss makes the judge surer, and speech harder to tell from text."""
    torch.manual_seed(0)
    heads, text = Heads(8), torch.randn(64, 8)
    heads.log_scale.data.fill_(-30.0)  # no contrast: only the judge is left
    speech = (text.flip(0) + 1.0).requires_grad_()

    def judged(cloud):
        return float(
            F.binary_cross_entropy_with_logits(
                heads.judge(cloud / text.std())[:, 0], torch.ones(64)
            ).detach()
        )

    for _ in range(50):  # a judge that knows its trade
        speech.grad = None
        heads.zero_grad()
        contrastive(heads, speech, text).backward()
        with torch.no_grad():
            for p in heads.judge.parameters():
                p -= 0.3 * p.grad
    before = judged(speech.detach())
    assert before < 0.3 and judged((speech - 100 * speech.grad).detach()) > before


def test_contrast_falls_and_retrieval_rises():
    torch.manual_seed(0)
    text = torch.randn(40, 16)
    far = text @ torch.linalg.qr(torch.randn(16, 16))[0] + 2.0
    heads, projector = Heads(16), torch.nn.Linear(16, 16)
    optimizer = torch.optim.Adam([*heads.parameters(), *projector.parameters()], lr=0.02)
    with torch.no_grad():
        before, apart = (
            contrastive(heads, projector(far), text),
            evaluate_align.distances(projector(far), text),
        )
    for _ in range(150):
        optimizer.zero_grad()
        contrastive(heads, projector(far), text).backward()
        optimizer.step()
    with torch.no_grad():
        after, near = (
            contrastive(heads, projector(far), text),
            evaluate_align.distances(projector(far), text),
        )
    assert after < 0.5 * before
    for way in ("text by speech", "speech by text"):
        assert apart[f"recall at 1, {way}"] < 0.2 and near[f"recall at 1, {way}"] > 0.9
    gap = "gap between centroids, in mean spreads"
    assert near[gap] < 0.5 * apart[gap]
    same = evaluate_align.distances(text, text)
    assert (
        same[gap] == 0
        and same["recall at 1, text by speech"] == same["recall at 10, speech by text"] == 1
    )


def test_consistency_is_zero_when_speech_is_the_texts_embeddings():
    batch = spelled([1, 4, 2, 7, 3], [9, 5], [6, 8, 1])
    answers = [
        [FIRST_TEXT_ID + 9, FIRST_TEXT_ID + 2, END],
        [FIRST_TEXT_ID + 1, END],
        [FIRST_TEXT_ID + 4, FIRST_TEXT_ID + 4],
    ]
    lm = tiny_lm()
    frozen = frozen_copy(lm)
    assert frozen.embedding is lm.embedding and frozen.control_in is not lm.control_in
    assert float(consistency(lm, frozen, batch, answers, PROMPT).detach()) == pytest.approx(
        0, abs=1e-6
    )
    torch.nn.init.normal_(lm.residual.weight, std=0.1)
    start = float(consistency(lm, frozen, batch, answers, PROMPT).detach())
    optimizer = torch.optim.Adam([p for p in lm.parameters() if p.requires_grad], lr=0.01)
    for _ in range(40):
        loss = consistency(lm, frozen, batch, answers, PROMPT)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert start > 1e-4 and float(loss.detach()) < 0.3 * start
    assert torch.equal(frozen.control_in, tiny_lm().control_in)  # the teacher did not move


def test_the_divergence_is_the_sum_over_the_vocabulary():
    batch, answers = (
        spelled([1, 4], [9, 5, 2]),
        [[FIRST_TEXT_ID + 9, END], [FIRST_TEXT_ID + 1, FIRST_TEXT_ID, END]],
    )
    lm = tiny_lm()
    frozen = frozen_copy(lm)
    torch.nn.init.normal_(lm.residual.weight, std=0.1)
    total, count = 0.0, 0
    for u, answer in zip(batch, answers, strict=True):  # one by one, so padding takes no part
        read = (asked(PROMPT, u.pieces, answer), None, [[]])
        heard = (asked(PROMPT, [-1] * len(u.vectors), answer), u.vectors, u.heard)
        wanted, got = answer_scores(frozen, [read]).double(), answer_scores(lm, [heard]).double()
        assert len(wanted) == len(answer)
        total, count = total + float((wanted.exp() * (wanted - got)).sum()), count + len(answer)
    assert float(consistency(lm, frozen, batch, answers, PROMPT).detach()) == pytest.approx(
        total / count, rel=0.02
    )


def test_a_question_and_its_answer_as_one_sequence():
    sequence = asked([20, 21], [-1, -1, -1], [30, 31, END])
    assert sequence.token.tolist() == [20, 21, USER, -1, -1, -1, USER_END, AGENT, 30, 31]
    assert sequence.label.tolist() == [IGNORE] * 7 + [30, 31, END]
    assert sequence.tick[3:6].tolist() == [0, 1, 2] and set(sequence.tick[6:]) == {2}


def test_greedy_answers_are_those_of_a_plain_loop(tmp_path):
    """Several at once, of different lengths, as if each were alone and read again from its beginning for every token."""
    lm, batch = tiny_lm(), spelled([1, 4, 2, 7], [9], [6, 8])
    torch.nn.init.normal_(lm.control_in, std=0.5)
    answers = Answers(tmp_path / "answers.jsonl", frozen_copy(lm), PROMPT)
    for u, made in zip(batch, answers(batch), strict=True):
        plain = []
        while len(plain) < align.ANSWER_TOKENS and END not in plain:
            tokens = torch.tensor([[*PROMPT, USER, *u.pieces, USER_END, AGENT, *plain]])
            visible = torch.ones(1, tokens.shape[1], tokens.shape[1], dtype=torch.bool).tril()
            with torch.no_grad(), mixed():
                scores = lm.logits(
                    lm(lm.embed(tokens), torch.arange(tokens.shape[1])[None], visible)[0, -1]
                )
            scores[[i for i in range(FIRST_TEXT_ID) if i != END]] = -torch.inf
            plain.append(int(scores.argmax()))
        assert made == plain
    kept = Answers(
        tmp_path / "answers.jsonl", None, PROMPT
    )  # nobody to ask: they come from the file
    assert kept(batch) == answers(batch)


def test_an_objective_that_is_off_contributes_nothing(parts, batch, tmp_path):
    """Contrast alone moves only what makes the ticks, hearing alone not the heads, and a weight scales its objective."""
    before = tiny_lm().state_dict()
    contrast = aligned(parts, tmp_path / "contrast", "--objectives", "contrastive")
    moved = {
        name
        for name, value in contrast.items()
        if name in before and not torch.equal(value, before[name])
    }
    assert (
        moved == {"blank", "residual.weight", "residual.bias"}
        and not (tmp_path / "contrast" / "answers.jsonl").exists()
    )
    supervised = aligned(parts, tmp_path / "supervised", "--objectives", "supervised")
    heads = Heads(32).state_dict()
    assert supervised["alignment.log_scale"] == heads["log_scale"]
    assert not torch.equal(supervised["control_out"], before["control_out"])
    lines = {
        name: json.loads((tmp_path / name / "log.jsonl").read_text())
        for name in ("contrast", "supervised")
    }
    assert set(lines["contrast"]["train"]) == {"contrastive"} and set(
        lines["supervised"]["train"]
    ) == {"supervised"}
    lm = tiny_lm()
    answers = Answers(tmp_path / "answers.jsonl", frozen_copy(lm), PROMPT)
    alone = {}
    for names in (*([name] for name in align.OBJECTIVES), align.OBJECTIVES):
        found = align.objective_losses(
            names, lm, Heads(32), answers, batch, np.random.default_rng(0)
        )
        assert list(found) == list(names)
        alone |= found if len(names) == 1 else {}
    for name in ("supervised", "consistency"):  # contrast has random heads
        torch.testing.assert_close(found[name], alone[name])


def test_together_all_learn_and_the_run_describes_itself(parts, tmp_path):
    after = aligned(
        parts, tmp_path / "run", "--objectives", "supervised", "contrastive=0.5", "consistency"
    )
    before = tiny_lm().state_dict()
    for name in ("control_in", "control_out", "blank", "residual.weight", "blocks.0.qkv.lora_b"):
        assert not torch.equal(after[name], before[name])
    written = json.loads((tmp_path / "run" / "run.json").read_text())
    assert written["program"] == "duplex.training.align" and written["arguments"]["objectives"][
        1
    ] == ["contrastive", 0.5]
    line = json.loads((tmp_path / "run" / "log.jsonl").read_text())
    assert line["step"] == 4 and set(line["train"]) == set(line["valid"]) == set(align.OBJECTIVES)


def test_an_interrupted_run_ends_with_the_same_weights(parts, tmp_path, monkeypatch):
    whole = aligned(parts, tmp_path / "whole")
    monkeypatch.setattr(align, "SAVE_SECONDS", -1.0)
    break_off(monkeypatch, align, "objective_losses", 3)
    with pytest.raises(KeyboardInterrupt):
        aligned(parts, tmp_path / "parted")
    assert json.loads((tmp_path / "parted" / "progress.json").read_text())["step"] == 2
    resumed = aligned(parts, tmp_path / "parted")
    assert json.loads((tmp_path / "parted" / "progress.json").read_text())["step"] == 4
    assert whole.keys() == resumed.keys() and all(
        torch.equal(whole[name], resumed[name]) for name in whole
    )


def test_the_report_compares_runs_that_began_alike(parts, tmp_path, monkeypatch):
    told = argparse.Namespace(
        run=[tmp_path / "a", tmp_path / "b"], out=tmp_path, clips=4, seed=0, threads=1
    )
    aligned(parts, tmp_path / "a", "--objectives", "contrastive", "--steps", 30)
    aligned(parts, tmp_path / "b", "--objectives", "supervised")
    monkeypatch.setattr(evaluate_align, "build_lm", lambda args: tiny_lm())
    table = evaluate_align.evaluate_align(told)
    assert (
        list(table) == ["before", "a", "b"]
        and 4 < table["before"]["utterances matched, heard"][0] <= 9
    )
    assert all(np.isfinite(value).all() for row in table.values() for value in row.values())
    gap = "gap between centroids, in mean spreads"
    assert table["a"][gap] != table["before"][gap], "every run is measured with its own weights"
    lines = (tmp_path / "a" / "log.jsonl").read_text().splitlines()
    assert (
        json.loads(lines[-1])["train"]["contrastive"] < json.loads(lines[0])["train"]["contrastive"]
    )
    assert (tmp_path / "a" / "clouds.png").read_bytes()[:4] == b"\x89PNG" and (
        tmp_path / "b" / "clouds.png"
    ).exists()
    aligned(parts, tmp_path / "c", "--objectives", "contrastive", "--rank", 3)
    with pytest.raises(SystemExit, match="did not begin as .* did: --rank differs"):
        evaluate_align.evaluate_align(
            argparse.Namespace(**{**vars(told), "run": [tmp_path / "a", tmp_path / "c"]})
        )
    for runs, sentence in (([], "give --run"), ([parts / "pool"], "is not the folder of a run")):
        with pytest.raises(SystemExit, match=sentence):
            evaluate_align.evaluate_align(argparse.Namespace(**{**vars(told), "run": runs}))


BAD = {
    "no such objective": (
        ["--objectives", "cosine"],
        "there is no objective 'cosine', only supervised, contrastive, consistency",
    ),
    "no number": (
        ["--objectives", "contrastive=much"],
        "the weight of contrastive must be a number above zero, not 'much'",
    ),
    "nothing": (["--objectives", "supervised=0"], "leave out what is off"),
    "twice": (["--objectives", "supervised", "supervised=2"], "an objective is named twice"),
    "no steps": (["--steps", "0"], "at least one step of two utterances, not 0 of 4"),
    "nothing to contrast": (
        ["--utterances", "1"],
        "at least one step of two utterances, not 4 of 1",
    ),
    "no pool": (["--pool", "nowhere"], "nowhere is not a speech pool: it has no index.jsonl"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_told_in_one_sentence(parts, tmp_path, capsys, case):
    more, sentence = BAD[case]
    with pytest.raises(SystemExit):
        align.parse_arguments(arguments(parts, tmp_path / "run", *more))
    assert sentence in capsys.readouterr().err.splitlines()[-1] and not (tmp_path / "run").exists()


def test_a_pool_of_silence_is_told(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(
        align, "listen", lambda ears, channel: (None, [[] for _ in channel[::TICK_SAMPLES]])
    )
    args = align.parse_arguments(arguments(parts, tmp_path / "run"))
    with pytest.raises(SystemExit, match="Fewer than two utterances"):
        align.run(args, tiny_lm(), align.build_ears(args))
