"""The sound head's training and its measure, on tones that stand for sounds."""

import json
import sys

import numpy as np
import pytest
import soundfile

from duplex.audio import SAMPLE_RATE
from duplex.model.sound import load_sound_head
from duplex.training import evaluate, sounds


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten clips of each sound, ten words of speech, a kitchen and a rain of another source."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    seconds = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    rows = []

    def add(hertz: float, **fields) -> None:
        wave = 0.2 * np.sin(2 * np.pi * hertz * seconds) + 0.01 * rng.standard_normal(len(seconds))
        file = f"{len(rows)}.wav"
        soundfile.write(folder / file, wave.astype(np.float32), SAMPLE_RATE)
        rows.append({"file": file, **fields})

    for number, label in enumerate(sounds.NAMES):
        for _ in range(10):
            add(200 * 1.4**number, kind="noise", label=label, split="train")
    for number in range(10):
        add(100, kind="speech", split="test" if number == 9 else "train")
    add(5000, kind="noise", label="kitchen", split="train")
    add(6000, kind="noise", label="rain", split="train")
    (folder / "audio.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_clips_are_in_fifths_and_what_is_alike_is_left_out(data):
    clips = sounds.read_clips(data)
    of_first = [clip.fold for clip in clips if clip.kind == 0]
    assert of_first == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert sum(clip.kind == sounds.NOISE for clip in clips) == 1
    assert [clip.fold for clip in clips if clip.kind == sounds.SPEECH][-1] == 4


def test_what_is_learned_is_measured_on_what_was_held_out(data, parts, tmp_path, monkeypatch):
    for name in ("STREAMS", "SPEECH_STREAMS", "NOISE_STREAMS", "SILENCE_STREAMS"):
        monkeypatch.setattr(sounds, name, 2 if name == "STREAMS" else 6)
    agent = tmp_path / "agent"
    arguments = ["--noise", data, "--encoder", parts / "encoder", "--out", agent / "sounds"]
    monkeypatch.setattr(sys, "argv", ["sounds", *map(str, arguments)])
    sounds.main()
    head = load_sound_head(agent / "sounds")
    assert head.config.names == tuple(sounds.NAMES.values())
    (agent / "encoder").symlink_to(parts / "encoder")
    told = ["sounds", "--data", data, "--agent", agent, "--out", tmp_path, "--minutes", 0.1]
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, told)])
    evaluate.main()
    found = json.loads((tmp_path / "sounds.json").read_text())
    assert found["clean"]["of"] == found["disturbed"]["of"] == 20
    assert found["clean"]["right"] > 0.5
    assert set(found) == {"clean", "disturbed", "speech", "noise", "silence"}
