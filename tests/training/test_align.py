"""Training of the alignment of speech and text: alone, together, stopped anywhere, compared."""

import argparse
import json
import shutil

import numpy as np
import pytest
import torch

from duplex import checkpoint
from duplex.model.tokens import FIRST_TEXT_ID, NEXT, USER_END, Grammar, advance, allowed_mask
from duplex.training import align
from duplex.training.evaluation.align import evaluate_align
from duplex.training.objectives.alignment import AlignmentHeads, Answers, frozen_copy
from duplex.training.scenes import aligner
from duplex.training.scenes.example import Tokenizer
from duplex.training.scenes.recognition import load_recognizer
from duplex.training.scenes.sequence import IGNORE
from duplex.training.scenes.setup import build_recognizer
from duplex.training.scenes.utterances import UtteranceSource
from tests.training.helpers import part_options, strings, tiny_lm


def arguments(parts, pool, out, *more) -> list[str]:
    told = ["--pool", pool, *part_options(parts), "--utterances", 4, "--lr", 3e-3, "--out", out]
    return strings(*told, "--steps", 4, *more)


def aligned(parts, pool, out, *more) -> dict[str, torch.Tensor]:
    """A run of the tiny LM, or what is left of one. Returns its weights."""
    args = align.parse_arguments(arguments(parts, pool, out, *more))
    torch.manual_seed(args.seed)
    align.run(args, tiny_lm(), build_recognizer(args))
    return checkpoint.load_tensors(out)


def log_lines(out) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def source(parts, tone_pool) -> UtteranceSource:
    args = argparse.Namespace(pool=[tone_pool], noise=None)
    recognizer = load_recognizer(parts / "encoder", parts / "lexicon")
    return UtteranceSource(args, "train", Tokenizer(parts / "tokenizer"), recognizer)


def test_the_transcript_obeys_the_runtime_and_ends_with_the_turn(source):
    batch = source.batch(np.random.default_rng(0), 6)
    assert len({utterance.text for utterance in batch}) == 6
    for utterance in batch:
        sequence = utterance.sequence
        assert sequence.token[-1] == USER_END and sequence.label[-1] == IGNORE
        assert len(utterance.features) == sequence.tick[-1] + 1
        heard = [token for tick in utterance.tokens for token, _ in tick]
        of_ticks = sequence.token[sequence.tick >= 0]
        written = [int(token) for token in of_ticks if token >= FIRST_TEXT_ID]
        places = range(len(heard) - len(written) + 1)
        assert written and any(heard[i : i + len(written)] == written for i in places)
        grammar = Grammar()
        rows = zip(sequence.token, sequence.label, sequence.tick, strict=True)
        for token, label, tick in rows:
            if token >= 0 and tick >= 0:
                grammar = advance(grammar, int(token))
            assert label == IGNORE or allowed_mask(grammar, 512, False, False)[label]
        # In the silence before the first word.
        assert sequence.label[sequence.token == -1][0] == NEXT


@pytest.mark.slow
def test_contrast_alone_moves_only_what_makes_the_ticks(parts, tone_pool, tmp_path):
    before = tiny_lm().state_dict()
    after = aligned(parts, tone_pool, tmp_path, "--objectives", "contrastive")
    moved = {name for name in before if name in after and not after[name].equal(before[name])}
    assert moved == {"blank", "residual.weight", "residual.bias"}
    assert not (tmp_path / "answers.jsonl").exists()
    assert set(log_lines(tmp_path)[0]["train"]) == {"contrastive"}


@pytest.mark.slow
def test_hearing_alone_does_not_move_the_heads(parts, tone_pool, tmp_path):
    before = tiny_lm().state_dict()
    after = aligned(parts, tone_pool, tmp_path, "--objectives", "supervised")
    assert after["alignment.log_scale"].equal(AlignmentHeads(32).log_scale)
    assert not after["control_out"].equal(before["control_out"])
    assert set(log_lines(tmp_path)[0]["train"]) == {"supervised"}


def test_an_objective_is_the_same_alone_and_among_others(source, tmp_path):
    batch = source.batch(np.random.default_rng(0), 6)
    lm = tiny_lm()
    answers = Answers(tmp_path / "answers.jsonl", frozen_copy(lm), source.prompt)
    lm.alignment = AlignmentHeads(32)

    def losses(names) -> dict[str, torch.Tensor]:
        found = aligner.objective_losses(names, lm, answers, batch, np.random.default_rng(0))
        assert list(found) == list(names)
        return found

    together = losses(aligner.OBJECTIVES)
    for name in aligner.OBJECTIVES:
        torch.testing.assert_close(losses([name])[name], together[name])


@pytest.mark.slow
def test_together_all_learn_and_the_run_describes_itself(parts, tone_pool, tmp_path):
    names = ["supervised", "contrastive=0.5", "consistency"]
    after = aligned(parts, tone_pool, tmp_path, "--objectives", *names)
    before = tiny_lm().state_dict()
    for name in ("control_in", "control_out", "blank", "residual.weight", "blocks.0.qkv.lora_b"):
        assert not torch.equal(after[name], before[name])
    told = json.loads((tmp_path / "run.json").read_text())
    assert told["program"] == "duplex.training.align"
    assert told["arguments"]["objectives"][1] == ["contrastive", 0.5]
    (line,) = log_lines(tmp_path)
    assert line["step"] == 4 and set(line["train"]) == set(line["valid"]) == set(aligner.OBJECTIVES)


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_weights(parts, tone_pool, tmp_path):
    """Cut off in its third step after two were saved."""
    whole = aligned(parts, tone_pool, tmp_path / "whole")
    parted = tmp_path / "parted"
    args = align.parse_arguments(arguments(parts, tone_pool, parted))
    lm = tiny_lm()  # It seeds what comes after it.
    recognizer = build_recognizer(args)
    source = UtteranceSource(args, "train", Tokenizer(args.tokenizer, recognizer), recognizer)
    parted.mkdir()
    answers = Answers(parted / "answers.jsonl", frozen_copy(lm), source.prompt)
    lm.alignment = AlignmentHeads(lm.config.width)
    trainer = aligner.AlignmentTrainer(args, lm, answers)
    for _ in range(2):
        trainer.step(source)
    trainer.save()
    trainer.step(source)
    resumed = aligned(parts, tone_pool, parted)
    assert json.loads((parted / "progress.json").read_text())["step"] == 4
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
def test_the_report_compares_runs_that_began_alike(parts, tone_pool, tmp_path):
    told = {"out": tmp_path, "clips": 4, "seed": 0, "threads": 1}

    def report(*runs) -> dict:
        args = argparse.Namespace(run=list(runs), **told)
        return evaluate_align(args, build_lm=lambda args: tiny_lm())

    a = tmp_path / "a"
    b = tmp_path / "b"
    aligned(parts, tone_pool, a, "--objectives", "contrastive", "--steps", 60)
    aligned(parts, tone_pool, b, "--objectives", "supervised")
    table = report(a, b)
    assert list(table) == ["before", "a", "b"]
    assert 4 < table["before"]["utterances matched, heard"][0] <= 9
    assert all(np.isfinite(value).all() for row in table.values() for value in row.values())
    gap = "gap between centroids, in mean spreads"
    assert table["a"][gap] != table["before"][gap], "every run is measured with its own weights"
    lines = log_lines(a)
    assert lines[-1]["train"]["contrastive"] < lines[0]["train"]["contrastive"]
    assert all((run / "clouds.png").read_bytes()[:4] == b"\x89PNG" for run in (a, b))
    shutil.copytree(b, tmp_path / "c")
    told_c = json.loads((b / "run.json").read_text())
    told_c["arguments"]["rank"] = 3
    (tmp_path / "c" / "run.json").write_text(json.dumps(told_c))
    with pytest.raises(SystemExit, match="did not begin as .* did: --rank differs"):
        report(a, tmp_path / "c")
    with pytest.raises(SystemExit, match="give --run"):
        report()
    with pytest.raises(SystemExit, match="is not the folder of a run"):
        report(tone_pool)


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
    "no steps": (["--steps", "0"], "0 is not above zero"),
    "nothing to contrast": (
        ["--utterances", "1"],
        "at least one step of two utterances, not 4 of 1",
    ),
    "no pool": (["--pool", "nowhere"], "nowhere is not a speech pool: it has no index.jsonl"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_told_in_one_sentence(parts, tone_pool, tmp_path, capsys, case):
    more, sentence = BAD[case]
    with pytest.raises(SystemExit):
        align.parse_arguments(arguments(parts, tone_pool, tmp_path / "run", *more))
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_pool_of_silence_is_told(parts, tmp_path):
    """What is never said is never heard: no word of the lexicon is in digital silence."""
    pool = tmp_path / "silence"
    pool.mkdir()
    entry = {"samples": 24_000, "words": [["-", 0.3, 0.5]], "split": "train"}
    lines = [json.dumps({"offset": 24_000 * n, "text": f"- {n}", **entry}) for n in range(4)]
    (pool / "index.jsonl").write_text("\n".join(lines) + "\n")
    np.zeros(4 * 24_000, np.int16).tofile(pool / "audio.i16")
    args = align.parse_arguments(arguments(parts, pool, tmp_path / "run"))
    with pytest.raises(SystemExit, match="Fewer than two utterances"):
        align.run(args, tiny_lm(), build_recognizer(args))
