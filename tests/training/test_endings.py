"""Programs that cannot go on end with a sentence, and Ctrl-C lets a step finish."""

import errno
import json
import os
import signal

import numpy as np
import pytest
from safetensors import SafetensorError

from duplex.errors import WeightsError
from duplex.training import align, duplex, export
from duplex.training.common.distributed import join
from duplex.training.common.endings import in_a_sentence, need_extra
from duplex.training.common.interruption import finishing_steps
from duplex.training.scenes import trainer
from duplex.training.scenes.example import Tokenizer
from duplex.training.scenes.setup import build_recognizer
from duplex.training.scenes.source import SceneSource
from duplex.weights import DEFAULT_AGENT
from tests.training.helpers import part_options, strings, tiny_lm

WRONG = {
    "disk": (OSError(errno.ENOSPC, "No space left on device"), "is full: make room"),
    "disk, told by safetensors": (
        SafetensorError("I/O error: No space left on device (os error 28)"),
        "is full: make room",
    ),
    "weights": (WeightsError("nothing was fetched"), "^nothing was fetched.$"),
    "two Ctrl-C": (KeyboardInterrupt(), "the same command goes on"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_went_wrong_outside_is_a_sentence(tmp_path, case):
    error, sentence = WRONG[case]
    with pytest.raises(SystemExit, match=sentence), in_a_sentence(tmp_path):
        raise error


def test_what_went_wrong_inside_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), in_a_sentence(tmp_path):
        (tmp_path / "nowhere").read_text()


def test_a_missing_extra_is_named():
    need_extra("json")
    with pytest.raises(SystemExit, match=r"needs no_such_package: pip install -e '.\[train\]'"):
        need_extra("json", "no_such_package")


def test_the_first_ctrl_c_is_noted_and_the_second_ends():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), finishing_steps() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.is_wanted
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.slow
def test_an_interrupted_run_has_saved_its_step(parts, prepared, tmp_path, monkeypatch, capsys):
    """The signal comes within the second of many steps."""
    out = tmp_path / "run"
    told = ["--recordings", prepared, *part_options(parts), "--positions", 400, "--out", out]
    args = duplex.parse_arguments(strings(*told, "--steps", 50))
    steps = []

    def interrupt(self, done):
        steps.append(done)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, done)

    step = duplex.Trainer.step
    monkeypatch.setattr(duplex.Trainer, "step", interrupt)
    duplex.run(args, tiny_lm(), build_recognizer(args))
    assert json.loads((out / "progress.json").read_text())["step"] == 2
    assert "saved at step 2; the same command goes on" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_gains_nothing_ends(parts, prepared, tmp_path, monkeypatch):
    """Every validation is worse than the one before; two of them are enough."""
    losses = iter(range(1, 100))

    def worse(lm, source) -> dict:
        return {"hearing": [float(next(losses)), 0.0]}

    monkeypatch.setattr(trainer, "validate", worse)
    monkeypatch.setattr(trainer.Trainer, "is_validation_due", lambda self: True)
    monkeypatch.setattr(trainer.SceneSource, "is_empty", False)
    told = ["--recordings", prepared, *part_options(parts), "--positions", 400]
    args = duplex.parse_arguments(strings(*told, "--out", tmp_path / "run", "--steps", 50))
    recognizer = build_recognizer(args)
    source = SceneSource(args, "train", Tokenizer(args.tokenizer, recognizer), recognizer)
    run = trainer.Trainer(args, tiny_lm(), source, join())
    assert trainer.train(run, source, patience=2)
    assert run.progress["step"] == 2 and not (tmp_path / "run" / "best").exists()


def write_pool(folder, tone_pool, set_aside: int) -> None:
    """The tone pool with so many utterances set aside."""
    folder.mkdir()
    lines = [json.loads(line) for line in (tone_pool / "index.jsonl").read_text().splitlines()]
    for n, line in enumerate(lines):
        line["split"] = "valid" if n < set_aside else "train"
    (folder / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "audio.i16").write_bytes((tone_pool / "audio.i16").read_bytes())


@pytest.mark.slow
def test_alignment_with_one_utterance_set_aside_is_saved(parts, tone_pool, tmp_path, capsys):
    write_pool(tmp_path / "pool", tone_pool, 1)
    told = ["--pool", tmp_path / "pool", *part_options(parts), "--utterances", 4, "--steps", 2]
    args = align.parse_arguments(strings(*told, "--out", tmp_path / "run"))
    align.run(args, tiny_lm(), build_recognizer(args))
    assert (tmp_path / "run" / "progress.json").exists()
    assert "the run is not validated" in capsys.readouterr().out


def test_a_preparation_that_was_killed_is_not_trained_on(prepared, tmp_path, capsys):
    (prepared / "READY").unlink()
    with pytest.raises(SystemExit):
        duplex.parse_arguments(strings("--recordings", prepared, "--out", tmp_path / "run"))
    assert "was not prepared to its end" in capsys.readouterr().err


OTHER_PART = {
    "encoder": ["--encoder", DEFAULT_AGENT / "codec"],
    "lm": ["--start", DEFAULT_AGENT / "talker"],
    "lexicon": ["--lexicon", DEFAULT_AGENT / "lm"],
    "tokenizer": ["--tokenizer", DEFAULT_AGENT / "lm"],
}


@pytest.mark.parametrize("name", OTHER_PART)
def test_another_part_is_refused(tmp_path, capsys, name):
    with pytest.raises(SystemExit):
        duplex.parse_arguments(strings(*OTHER_PART[name], "--out", tmp_path / "run"))
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"is no {name}: it holds another part" in said or "is no folder with a token" in said


def test_export_of_what_is_no_run_is_refused(tmp_path, capsys):
    (tmp_path / "begun").mkdir()
    for folder in ("nowhere", "begun"):
        with pytest.raises(SystemExit):
            export.main(strings("--lm", tmp_path / folder, "--out", tmp_path / "agent"))
        assert "holds no trained part" in capsys.readouterr().err


def test_a_long_recording_is_cut_at_its_pauses(tmp_path):
    """What a conversation's folder holds is long; alignment wants single utterances."""
    from duplex.training.data.pool import Pool
    from duplex.training.scenes.utterances import stretches

    words = [["a", 1.0, 1.4], ["b", 1.5, 2.0], ["c", 9.0, 9.5], ["d", 9.6, 10.0]]
    entry = {"offset": 0, "samples": 24_000 * 20, "words": words, "split": "train", "text": ""}
    (tmp_path / "index.jsonl").write_text(json.dumps(entry) + "\n")
    np.zeros(24_000 * 20, np.int16).tofile(tmp_path / "audio.i16")
    found = stretches(Pool(tmp_path), 0)
    assert [part.text for part in found] == ["a b", "c d"]
    assert found[1].start == pytest.approx(8.9)
    assert found[1].words[0] == ["c", pytest.approx(0.1), pytest.approx(0.6)]
    assert all(part.seconds < 8.0 for part in found)
