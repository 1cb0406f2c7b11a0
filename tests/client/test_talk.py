"""`duplex talk` from its arguments to its files, and the one sentence of each mistake."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duplex import cli
from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.client.recorded import (
    Pauses,
)
from duplex.client.talk import questions_without_sound
from tests.helpers import tone, write_wave
from tests.tiny_agent import TinyAgent

PAUSES = Pauses()
ROOT = Path(__file__).parents[2]


def refused(capsys, *arguments: str) -> str:
    """The one sentence with which the command ends with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    [sentence] = [line for line in lines if line.startswith("duplex: ")]
    return sentence


def check_outputs(wave: Path, transcript: Path, picture: Path) -> list[dict]:
    stereo, rate = soundfile.read(wave)
    assert rate == SAMPLE_RATE and stereo.shape[1] == 2 and len(stereo) % TICK_SAMPLES == 0
    assert np.abs(stereo).max(axis=0).min() > 0.05  # both sides were heard
    text = transcript.with_suffix(".txt").read_text()
    assert "you: Word0" in text and "agent: Echo0" in text
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
    return [json.loads(line) for line in transcript.with_suffix(".jsonl").read_text().splitlines()]


def load_tiny(args, slots: int, cancel_echo: bool = True) -> TinyAgent:
    return TinyAgent(slots)


@pytest.mark.slow
def test_talk_with_a_server(server_url, tmp_path, capsys):
    question = write_wave(tmp_path / "q.wav", tone(8))
    answer = str(tmp_path / "a.wav")
    cli.main(["talk", "--server", server_url, "--input", question, "--output", answer])
    shown = capsys.readouterr()
    assert shown.out == "you>  Word0 word1\nagent> Echo0 echo1\n"
    assert "q.wav: answered after" in shown.err
    events = check_outputs(tmp_path / "a.wav", tmp_path / "a", tmp_path / "a.png")
    assert {"session.created"}.isdisjoint(event["type"] for event in events)
    assert events[-1]["type"] == "session.ended" and events[-1]["ticks"] > 20
    started = next(event["time_s"] for event in events if event["type"] == "agent_started")
    [question] = [event for event in events if event["type"] == "question"]
    assert 0.1 < started - (question["time_s"] + question["sound_s"]) < 3.0


@pytest.mark.slow
def test_spoken_words_are_where_their_sound_is(server_url, tmp_path, capsys):
    """The times of `spoken` words, on the recording's clock, are those of the samples played."""
    question = write_wave(tmp_path / "q.wav", tone(8))
    answer = str(tmp_path / "a.wav")
    cli.main(["talk", "--server", server_url, "--input", question, "--output", answer])
    events = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    word = next(event for event in events if event["type"] == "spoken")
    agent = soundfile.read(tmp_path / "a.wav")[0][:, 1]
    first = np.flatnonzero(np.abs(agent) > 0.01)[0] / SAMPLE_RATE
    assert first == pytest.approx(word["start_s"], abs=0.005)


@pytest.mark.slow
def test_talk_in_one_process(tmp_path, capsys):
    question = write_wave(tmp_path / "q.wav", tone(8))
    options = ["--input", question, "--output", str(tmp_path / "a.wav"), "--seed", "1"]
    cli.main(["talk", *options], load_tiny)
    check_outputs(tmp_path / "a.wav", tmp_path / "a", tmp_path / "a.png")
    assert "late " in capsys.readouterr().err


def test_talk_without_a_sound_card_asks_recorded_questions(tmp_path, monkeypatch, capsys):
    """What `make talk` does on a machine without sound: questions one after the other."""
    paths = tuple(
        Path(write_wave(tmp_path / f"{place}.wav", tone(6 + place))) for place in range(3)
    )
    assert questions_without_sound(lambda: True, tmp_path) == ()
    assert questions_without_sound(lambda: False, tmp_path) == paths
    monkeypatch.chdir(tmp_path)
    cli.main(["talk", "--fast", "--input", *map(str, paths)], load_tiny)
    [folder] = Path("talk").iterdir()
    events = check_outputs(
        folder / "conversation.wav", folder / "transcript", folder / "timeline.png"
    )
    assert [event["type"] for event in events].count("agent_ended") == 3
    questions = [event["time_s"] for event in events if event["type"] == "question"]
    ends = [event["time_s"] for event in events if event["type"] == "agent_ended"]
    for question, end in zip(questions[1:], ends, strict=False):
        assert question - end == pytest.approx(PAUSES.after_answer_s, abs=3 * TICK_S)
    assert "no sound card" in capsys.readouterr().err


def test_talk_with_bad_files_is_one_sentence(tmp_path, capsys):
    assert "no such file" in refused(capsys, "talk", "--input", str(tmp_path / "absent.wav"))
    (tmp_path / "text.wav").write_text("this is not sound")
    assert "cannot read" in refused(capsys, "talk", "--input", str(tmp_path / "text.wav"))
    empty = write_wave(tmp_path / "empty.wav", np.zeros(0, np.float32))
    assert "no sound in it" in refused(capsys, "talk", "--input", empty)
    assert "cannot read" in refused(capsys, "talk", "--input", str(tmp_path))


def test_talk_with_other_mistakes_is_one_sentence(tmp_path, capsys):
    question = write_wave(tmp_path / "q.wav", tone(1))
    nobody = "ws://127.0.0.1:9"
    assert "no duplex server answers" in refused(
        capsys, "talk", "--server", nobody, "--input", question
    )
    assert "no duplex server answers" in refused(
        capsys, "talk", "--server", "nonsense", "--input", question
    )
    assert "leave --server out" in refused(
        capsys, "talk", "--server", nobody, "--fast", "--input", question
    )
    assert "there is no agent in" in refused(
        capsys, "talk", "--agent", str(tmp_path / "no"), "--input", question
    )
    assert "at least 1" in refused(capsys, "serve", "--max-sessions", "0")
    assert "no such device" in refused(capsys, "talk", "--device", "no such device").lower()


def test_whom_to_heed_is_asked_of_the_agent(tmp_path, capsys):
    """Without a file of his the one who speaks first enrolls."""
    question = write_wave(tmp_path / "q.wav", tone(3))
    out = ["--output", str(tmp_path / "talk.wav")]
    agents = []

    def load(args, slots, cancel_echo=True):
        agents.append(TinyAgent(slots))
        return agents[-1]

    known = tmp_path / "anna.txt"
    for options in (["--heed", "first"], ["--voice-print", str(known)]):
        cli.main(["talk", "--fast", "--input", question, *out, *options], load)
    known.write_text("fwA/gQ==\n")
    cli.main(["talk", "--fast", "--input", question, *out, "--voice-print", str(known)], load)
    names = ("heed", "enroll")
    assert [[call for call in agent.calls if call[0] in names] for agent in agents] == [
        [("heed", 0, "first", None)],
        [("enroll", 0)],
        [("heed", 0, "enrolled", "fwA/gQ==")],
    ]
    known.write_text("not a print")
    assert "no voice print" in refused(
        capsys, "talk", "--input", question, "--voice-print", str(known)
    )
    assert "--voice-print FILE" in refused(
        capsys, "talk", "--input", question, "--heed", "enrolled"
    )


@pytest.mark.parametrize("name", ["conversation", "conversation.mp4", "folder.wav"])
def test_talk_tells_before_the_conversation_that_no_recording_can_be_written(
    name, tmp_path, capsys
):
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(SystemExit):
        cli.main(["talk", "--recorded", "--output", str(tmp_path / name)])
    assert "is no name of a recording; give one that ends in .wav" in capsys.readouterr().err


def test_serve_on_a_busy_port_is_one_sentence(server_url, capsys):
    port = server_url.split(":")[2].split("/")[0]
    assert "--port" in refused(capsys, "serve", "--port", port)


@pytest.mark.slow
def test_talk_with_a_full_server_is_one_sentence(server_url, tmp_path, capsys):
    question = write_wave(tmp_path / "q.wav", tone(30))
    talk = ["talk", "--server", server_url, "--input", question]
    other = subprocess.Popen(
        [sys.executable, "-m", "duplex", *talk, "--output", "other.wav"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        # It is being heard.
        other.stdout.read(1)
        assert "places are taken" in refused(capsys, *talk)
    finally:
        other.kill()
        other.communicate()


def test_cli_imports_nothing_slow():
    """So that the help is instant."""
    slow = ("torch", "numpy", "websockets")
    program = f"import sys, duplex.cli; print([name for name in {slow} if name in sys.modules])"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
