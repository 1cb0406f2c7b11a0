"""Training of the LM on scenes: it learns, resumes, and draws each kind in its share."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from duplex import checkpoint
from duplex.training import duplex
from duplex.training.common.distributed import join
from duplex.training.scenes.example import Tokenizer
from duplex.training.scenes.recognition import load_recognizer
from duplex.training.scenes.recordings import Recordings
from duplex.training.scenes.scene import Scene, read_dialogues
from duplex.training.scenes.setup import build, build_recognizer
from duplex.training.scenes.source import DialogueSource, SceneSource, add_note
from duplex.training.scenes.trainer import Trainer
from duplex.weights import DEFAULT_AGENT
from tests.tiny_speech_agent import tiny_tokenizer
from tests.training.helpers import part_options, strings, tiny_lm


def options(parts, prepared, out, *more) -> list[str]:
    told = ["--recordings", prepared, *part_options(parts), "--positions", 400]
    return strings(*told, "--out", out, *more)


def fine_tune(parts, prepared, out) -> dict[str, torch.Tensor]:
    """Four steps from the tiny LM, or what is left of them. Returns the run's weights."""
    args = duplex.parse_arguments(options(parts, prepared, out, "--steps", 4))
    duplex.run(args, tiny_lm(), build_recognizer(args))
    return checkpoint.load_tensors(out)


def progress(out) -> dict:
    return json.loads((out / "progress.json").read_text())


@pytest.mark.slow
def test_a_run_on_recordings_alone_learns_and_describes_itself(parts, prepared, tmp_path):
    before = tiny_lm().state_dict()
    after = fine_tune(parts, prepared, tmp_path / "run")
    moved = [name for name, value in after.items() if not torch.equal(value, before[name])]
    assert "control_out" in moved and "residual.weight" in moved
    assert any("lora_b" in name for name in moved)
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["arguments"]["recordings"] == [[str(prepared), 1.0]]
    assert told["arguments"]["steps"] == 4
    assert told["versions"]["torch"] == torch.__version__
    assert told["program"] == "duplex.training.duplex"


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_weights(parts, prepared, tmp_path):
    """Cut off in its third step after two were saved, it goes on with the batches left."""
    whole = fine_tune(parts, prepared, tmp_path / "whole")
    parted = tmp_path / "parted"
    args = duplex.parse_arguments(options(parts, prepared, parted, "--steps", 4))
    recognizer = build_recognizer(args)
    source = SceneSource(args, "train", Tokenizer(args.tokenizer, recognizer), recognizer)
    trainer = Trainer(args, tiny_lm(), source, join())
    for _ in range(2):
        trainer.step(trainer.done())
    trainer.save()
    trainer.step(trainer.done())
    assert progress(parted)["step"] == 2
    resumed = fine_tune(parts, prepared, parted)
    assert progress(parted)["step"] == 4
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
def test_two_processes_train_one_model_and_go_on_where_they_stopped(parts, prepared, tmp_path):
    """As on two GPUs: each draws its own data, one writes; both hold the same weights."""
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        vocab_size=tiny_tokenizer().get_vocab_size(),
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "backbone")
    out = tmp_path / "run"
    begin = ["--backbone", tmp_path / "backbone", "--scratch", "--rank", 2, "--no-residual"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    for steps in (25, 30):
        told = options(parts, prepared, out, *begin, "--steps", steps)
        done = subprocess.run(
            [*launch, "-m", "duplex.training.duplex", *told],
            env={**os.environ, "ACCELERATE_USE_CPU": "true"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert progress(out)["step"] == steps and len(progress(out)["queues"]) == 2
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines if "train" in line] == [25]
    assert list((out / "tensorboard").glob("events.*"))


def tiny_backbone(folder) -> list:
    """Options to begin from a small Llama that is written there."""
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        vocab_size=tiny_tokenizer().get_vocab_size(),
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return ["--backbone", folder, "--scratch", "--rank", 2, "--no-residual"]


def launch(told: list[str]) -> subprocess.Popen:
    """A training of two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen([*command, "-m", "duplex.training.duplex", *told], env=environment)


def loss_curve(out) -> dict[int, float]:
    """The loss of each step as TensorBoard has it; of a step done twice the last."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for path in sorted((out / "tensorboard").glob("events.*"), key=lambda p: p.stat().st_mtime):
        events = EventAccumulator(str(path))
        events.Reload()
        found |= {event.step: event.value for event in events.Scalars("loss")}
    return found


@pytest.mark.slow
def test_a_process_killed_costs_nothing_but_time(parts, prepared, tmp_path):
    """One of two dies in the middle; the same command goes on with the same losses and weights.

    Those two share the backbone between them (--shard), the ones compared with hold all of it.
    """
    begin = [*tiny_backbone(tmp_path / "backbone"), "--steps", 12, "--save-minutes", 0]
    whole = tmp_path / "whole"
    parted = tmp_path / "parted"
    assert launch(options(parts, prepared, whole, *begin)).wait(600) == 0
    told = options(parts, prepared, parted, *begin, "--shard")
    broken = launch(told)
    until = time.monotonic() + 600
    while not (parted / "progress.json").exists() or progress(parted)["step"] < 4:
        assert broken.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    victim = psutil.Process(broken.pid).children()[1]
    victim.kill()
    assert broken.wait(600) != 0
    assert 4 <= progress(parted)["step"] < 12
    assert launch(told).wait(600) == 0
    curve = loss_curve(parted)
    assert sorted(curve) == list(range(1, 13))
    assert curve == pytest.approx(loss_curve(whole), abs=1e-5)
    after = checkpoint.load_tensors(parted)
    for name, value in checkpoint.load_tensors(whole).items():
        torch.testing.assert_close(after[name], value, atol=1e-5, rtol=1e-4)


def test_each_process_reads_its_own_files(tmp_path):
    """Where there are fewer files than processes, all read all."""
    for name in "abc":
        line = json.dumps({"turns": [], "kind": name, "split": "train"})
        (tmp_path / f"{name}.jsonl").write_text(line + "\n")

    def kinds(*part) -> str:
        return "".join(one["kind"] for one in read_dialogues(tmp_path, "train", part))

    assert (kinds(0, 1), kinds(0, 2), kinds(1, 2), kinds(3, 4)) == ("abc", "ac", "b", "abc")
    assert read_dialogues(tmp_path / "b.jsonl", "train")[0]["kind"] == "b"


@pytest.fixture
def corpus(tmp_path):
    """One dialogue."""
    turns = [{"role": "user", "text": "hi you"}, {"role": "agent", "text": "Yes."}]
    line = json.dumps({"turns": turns, "kind": "a", "split": "train"})
    (tmp_path / "corpus.jsonl").write_text(line + "\n")
    return tmp_path / "corpus.jsonl"


def corpus_source(parts, corpus, recognizer, *more) -> SceneSource:
    told = ["--corpus", corpus, "--simulated", 1, "--out", corpus.parent / "run", *more]
    args = duplex.parse_arguments(strings(*told, "--tokenizer", parts / "tokenizer"))
    return SceneSource(args, "train", Tokenizer(args.tokenizer), recognizer)


def test_without_recordings_no_random_number_is_drawn_for_them(parts, corpus):
    source = corpus_source(parts, corpus, None)
    drawn = source.draw(np.random.default_rng(3))
    rng = np.random.default_rng(3)
    assert rng.integers(1) == 0 and rng.uniform() < 1, "the dialogue, without sound or with it"
    again = source.dialogues.simulate(source.dialogues.dialogues[0], rng)
    assert np.array_equal(drawn.sequence.token, again.sequence.token)
    assert drawn.tokens == again.tokens


def test_recordings_take_their_share(parts, corpus, prepared):
    recognizer = load_recognizer(parts / "encoder", parts / "lexicon")
    source = corpus_source(parts, corpus, recognizer, "--recordings", f"{prepared}=0.5")
    rng = np.random.default_rng(0)
    drawn = [source.pick_recordings(rng) for _ in range(400)]
    assert 160 < sum(found is not None for found in drawn) < 240
    assert len(Recordings(prepared, "train")) and source.batches(rng, 400, 1)


def test_a_pool_without_the_split_leaves_its_share_to_dialogues(parts, corpus, tone_pool):
    """The share of the pool after it stays as it is."""
    recognizer = load_recognizer(parts / "encoder", parts / "lexicon")
    empty = corpus.parent / "empty"
    empty.mkdir()
    (empty / "index.jsonl").write_text("")
    (empty / "audio.i16").write_bytes(b"\0\0")
    shares = ["--sentences", f"{empty}=0.5", "--sentences", f"{tone_pool}=0.25"]
    source = corpus_source(parts, corpus, recognizer, *shares)
    rng = np.random.default_rng(0)
    drawn = [source.pick_sentences(rng) for _ in range(400)]
    assert 70 < sum(found is not None for found in drawn) < 130
    assert isinstance(source.dialogues, DialogueSource)


def test_a_note_is_read_after_the_instructions():
    scene = Scene(1.0, instructions="Be kind.")
    add_note(scene, {})
    assert scene.instructions == "Be kind."
    add_note(scene, {"note": "A note."})
    assert scene.instructions == "Be kind. A note."


BAD = {
    "nothing": ([], "give --corpus, --recordings or both"),
    "no corpus": (["--corpus", "nowhere.jsonl"], "there is no file nowhere.jsonl"),
    "no recordings": (["--recordings", "nowhere=0.5"], "nowhere is not a speech pool"),
    "no share": (["--recordings", "nowhere=much"], "FOLDER or FOLDER=SHARE, not 'nowhere=much'"),
    "no encoder": (["--encoder", "nowhere"], "nowhere holds no trained part"),
    "no noise": (["--noise", "nowhere"], "nowhere holds no audio.jsonl"),
    "two beginnings": (["--scratch", "--start", DEFAULT_AGENT / "lm"], "not allowed with argument"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_told_in_one_sentence(tmp_path, capsys, case):
    more, sentence = BAD[case]
    with pytest.raises(SystemExit) as told:
        build(duplex.parse_arguments(strings("--out", tmp_path / "run", *more)))
    said = capsys.readouterr().err.splitlines()[-1:]
    assert sentence in (said[0] if said else str(told.value))
    assert not (tmp_path / "run").exists()
