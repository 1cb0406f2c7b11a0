"""`duplex tune`: one command from recordings to an agent's folder, and its report."""

import argparse
import json
from functools import partial

import numpy as np
import pytest

from duplex import cli
from duplex.agent import Agent, AgentConfig
from duplex.agent.hearing.second_pass import words_in
from duplex.agent.loader import with_instructions
from duplex.bench import scenes as bench_scenes
from duplex.checkpoint import load_tensors
from duplex.training import tune
from duplex.training.evaluation.behaviour import handled_scenes
from duplex.training.evaluation.own import measure, set_aside_questions
from duplex.training.scenes.own import OWN, own_dialogues, write_dialogues
from duplex.training.scenes.scene import read_dialogues
from duplex.training.tuning.instructions import write_instructions
from duplex.training.tuning.options import add_arguments
from tests.tiny_speech_agent import tiny_parts
from tests.training.helpers import USER_WORDS, alignments, prepare, record, strings, tiny_lm


@pytest.fixture
def calls(parts, tmp_path):
    """Four prepared conversations, one of them set aside."""
    lines = [record(tmp_path, f"call{n}", {"alignments": alignments()}) for n in range(4)]
    assert prepare(parts, tmp_path, lines, out=tmp_path / "calls") == 0
    return tmp_path / "calls"


def test_conversations_become_dialogues_of_text(calls, prepared):
    found = own_dialogues(calls)
    assert len(found) == 4 and {dialogue["kind"] for dialogue in found} == {OWN}
    texts = [(turn["role"], turn["text"]) for turn in found[0]["turns"]]
    assert texts == [
        ("user", "hi you"),
        ("agent", "Hello. Good day."),
        ("user", "and now"),
        ("agent", "Now then."),
    ]
    assert sorted(dialogue["split"] for dialogue in found) == ["train"] * 3 + ["valid"]
    assert "heard.wav" in (prepared / "index.jsonl").read_text()
    assert len(own_dialogues(prepared)) == 2, "what is only heard has no answers"


def test_rehearsal_keeps_both_splits_and_free_texts(calls, tmp_path):
    assert write_dialogues(calls, tmp_path / "dialogues.jsonl") == 3
    for split, least in (("train", 300), ("valid", 20)):
        found = read_dialogues(tmp_path / "dialogues.jsonl", split)
        others = [dialogue for dialogue in found if dialogue["kind"] != OWN]
        assert len(others) >= least
        for dialogue in others:
            assert dialogue["source"] in ("own", "own; samayo/country-json")
            assert {turn["role"] for turn in dialogue["turns"]} <= {"user", "agent"}


def test_facts_come_before_example_turns(calls, tmp_path):
    facts = tmp_path / "facts.txt"
    facts.write_text("\ufeffBread is two dollars.\n\nWe open at six.\n", encoding="utf-8")
    lines = write_instructions(tmp_path, calls, facts).read_text().splitlines()
    assert lines[1:3] == ["Bread is two dollars.", "We open at six."]
    assert lines[3] == 'Asked "hi you" you say: "Hello. Good day."'


def test_an_agents_folder_tells_what_to_keep_in_mind(tmp_path):
    (tmp_path / "instructions.txt").write_text("Be kind.\n" + "Sell sourdough bread.\n" * 99)
    config = with_instructions(AgentConfig(cancel_echo=False), tmp_path)
    agent = Agent(tiny_parts(), 1, config)
    agent.open(0, gradually=True)
    read = agent.tokenizer.decode(agent.sessions[0].inputs.prompt)
    assert "Be kind." in read and 1 <= read.count("sourdough") < 99
    assert len(agent.sessions[0].inputs.prompt) <= config.prompt_cells
    assert agent.sessions[0].names == ["sourdough", "bread"]
    agent.close(0)
    agent.open(0, instructions="Be short.", gradually=True)
    read = agent.tokenizer.decode(agent.sessions[0].inputs.prompt)
    assert "Be short." in read and "sourdough" not in read, "a client's instructions are its own"


def test_words_of_instructions_are_named_once():
    assert words_in("The sourdough, the Sourdough and sourdough: $7") == ["sourdough", "Sourdough"]
    assert with_instructions(AgentConfig(), "nowhere") == AgentConfig()


def test_set_aside_turns_are_asked_and_measured(calls):
    questions = set_aside_questions(calls)
    assert [(one.text, one.answer) for one in questions] == [
        ("hi you", "Hello. Good day."),
        ("and now", "Now then."),
    ]
    assert all(np.abs(one.wave).max() > 0.1 for one in questions)
    found = measure(Agent(tiny_parts(), 2, AgentConfig(cancel_echo=False)), questions)
    assert found["questions"] == len(found["rows"]) == 2 and len(found["kept"]) == 6
    assert found["rows"][0]["recorded"] == "Hello. Good day." and found["hearing WER"] > 0


def arguments(parts, data, out, *more) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    told = ["--encoder", parts / "encoder", "--lexicon", parts / "lexicon", "--second-pass", "off"]
    told += ["--min-fit", -99, "--positions", 300, "--lr", 3e-3, "--patience", 0]
    return parser.parse_args(strings(data, "--out", out, *told, *more))


def tuned(args, loaded: list) -> None:
    """Run with the tiny LM and an agent of tiny parts."""

    def load(folder, slots, **options):
        loaded.append(folder)
        return Agent(tiny_parts(), slots, AgentConfig(cancel_echo=False))

    tune.run(args, build=lambda args: tiny_lm(), load=load)


@pytest.fixture
def tiny_work(parts, monkeypatch):
    """The tokenizer of the tiny parts, and two of the thirty scenes."""
    tokenizer = ["--tokenizer", str(parts / "tokenizer")]
    usual = tune.common_options
    monkeypatch.setattr(tune, "common_options", lambda args: [*usual(args), *tokenizer])
    few = partial(handled_scenes, scenes=bench_scenes.load()[8:10])
    monkeypatch.setattr(tune, "handled_scenes", few)


@pytest.mark.slow
def test_one_command_makes_an_agent_and_goes_on(parts, tmp_path, capsys, tiny_work):
    data = tmp_path / "data"
    data.mkdir()
    for n in range(4):
        record(data, f"call{n}", {"alignments": alignments()})
    out = tmp_path / "mine"
    loaded = []
    tuned(arguments(parts, data, out, "--steps", 2), loaded)
    assert loaded == [None, out]
    assert "next: duplex talk --agent" in capsys.readouterr().out
    assert (out / "lm" / "config.json").exists() and (out / "encoder").is_dir()
    assert "Hello." in (out / "instructions.txt").read_text()
    before = tiny_lm().state_dict()
    after = load_tensors(out / "tuning" / "run")
    assert not after["control_out"].equal(before["control_out"])
    page = (out / "report.html").read_text()
    for word in (
        "Before and after",
        "hearing WER",
        "Scenes it handles",
        "What it knew before",
        "<svg",
    ):
        assert word in page
    progress = json.loads((out / "tuning" / "run" / "progress.json").read_text())
    assert progress["step"] == 2 and progress["before"]
    tuned(arguments(parts, data, out, "--steps", 3), loaded)
    assert loaded == [None, out, out], "what is done already is not done again"
    progress = json.loads((out / "tuning" / "run" / "progress.json").read_text())
    assert progress["step"] == 3


@pytest.mark.slow
def test_alignment_is_a_part_of_it(parts, tmp_path, tiny_work):
    data = tmp_path / "data"
    data.mkdir()
    user = [*USER_WORDS, ["so", 7.9, 8.1], ["we", 8.2, 8.5]]
    for n in range(4):
        record(data, f"call{n}", {"alignments": alignments(user)})
    out = tmp_path / "mine"
    more = ("--steps", 1, "--align", "supervised,contrastive", "--align-steps", 2)
    tuned(arguments(parts, data, out, *more), [])
    page = (out / "report.html").read_text()
    assert "Speech and text in the LM" in page and "transcript WER" in page
    assert "<img src='data:image/png;base64," in page


BAD = {
    "no data": (["nowhere", "--out", "x"], "there is no file or folder nowhere"),
    "no out": (["."], "the following arguments are required: --out"),
    "no time": ([".", "--out", "x", "--minutes", "0"], "--minutes: 0 is not above zero"),
    "no step": ([".", "--out", "x", "--steps", "-3"], "--steps: -3 is not above zero"),
    "no number": ([".", "--out", "x", "--lr", "nan"], "--lr: nan is not above zero"),
    "no share": ([".", "--out", "x", "--own", "2"], "--own: 2 is no share from 0 to 1"),
    "no facts": ([".", "--out", "x", "--facts", "gone"], "--facts: there is no file gone"),
    "a file": ([".", "--out", __file__], "--out: "),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_told(capsys, case):
    more, sentence = BAD[case]
    with pytest.raises(SystemExit):
        cli.main(["tune", *more])
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_an_unknown_objective_is_told(parts, tmp_path):
    with pytest.raises(SystemExit, match="--align knows supervised, contrastive, consistency, not"):
        tune.run(arguments(parts, tmp_path, tmp_path / "out", "--align", "cosine"))


@pytest.mark.parametrize("name", ["cuda", "cuda:3", "mps"])
def test_a_missing_accelerator_is_told(parts, tmp_path, monkeypatch, name):
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda check_available: None)
    with pytest.raises(SystemExit, match=f"There is no {name} here: leave --compute out"):
        tune.run(arguments(parts, tmp_path, tmp_path / "out", "--compute", name))


def test_a_device_that_is_none_is_told(parts, tmp_path):
    with pytest.raises(
        SystemExit, match="--compute names a device of torch, as cpu or cuda, not gpu"
    ):
        tune.run(arguments(parts, tmp_path, tmp_path / "out", "--compute", "gpu"))


def test_of_several_processes_each_would_prepare(parts, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="duplex tune is one process; its steps alone can be"):
        tune.run(arguments(parts, tmp_path, tmp_path / "out"))


def test_recordings_that_cannot_be_used_are_told(parts, tmp_path):
    (tmp_path / "data").mkdir()
    record(tmp_path / "data", "a", None, channels=1)
    with pytest.raises(SystemExit, match=r"No recording can be used; .*report.html says why"):
        tuned(arguments(parts, tmp_path / "data", tmp_path / "out"), [])


def test_recordings_that_have_changed_are_told(parts, calls, tmp_path):
    """The folder was prepared of four; a fifth would be passed over."""
    work = tmp_path / "out" / "tuning"
    work.mkdir(parents=True)
    calls.rename(work / "prepared")
    args = arguments(parts, tmp_path / "data.jsonl", tmp_path / "out")
    assert tune.prepare_once(args, work) == work / "prepared"
    with open(tmp_path / "data.jsonl", "a") as lines:
        lines.write(record(tmp_path, "call4", {"alignments": alignments()}))
    with pytest.raises(SystemExit, match="has changed since .*out was begun: name another --out"):
        tune.prepare_once(args, work)
