"""Scenes written out: sound is where the words are said to be, interruptions cut the agent, and duplex.training.prepare reads them."""

import json

import numpy as np
import pytest
import soundfile
from duplex.training import dialogues
from duplex.training.data.pool import Pool
from duplex.training.scenes.sequence import BACK_CHANNELS, heard_form

from duplex.audio import SAMPLE_RATE
from tests.training.test_align import WORDS, write_pool
from tests.training.test_prepare import parts, prepare  # noqa: F401 (a fixture)

SECONDS_A_WORD = 0.4
ANSWER = "That is a very long answer which goes on for a while and then it ends."


def say(text: str, speed: float):
    """A hum for every word."""
    long = SECONDS_A_WORD / speed
    words = [[word, i * long, (i + 0.8) * long] for i, word in enumerate(text.split())]
    wave = np.zeros(int(len(words) * long * SAMPLE_RATE), np.float32)
    for _, start, end in words:
        times = np.arange(int(start * SAMPLE_RATE), int(end * SAMPLE_RATE))
        wave[times] = 0.2 * np.sin(times / 9)
    return wave, words


@pytest.fixture
def written(tmp_path):
    write_pool(tmp_path / "pool", 24)
    texts = [entry["text"] for entry in Pool(tmp_path / "pool").entries]
    lines = []
    for n in range(8):
        turns = [{"role": "user", "text": texts[n]}, {"role": "agent", "text": ANSWER}]
        turns += [{"role": "user", "text": texts[n + 8]}, {"role": "agent", "text": "Yes."}]
        lines.append({"kind": "test", "split": "train", "turns": turns})
    lines.append(
        {"kind": "test", "split": "train", "turns": [{"role": "user", "text": "Nobody says this."}]}
    )
    (tmp_path / "dialogues.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = [
        "--corpus",
        tmp_path / "dialogues.jsonl",
        "--pool",
        tmp_path / "pool",
        "--count",
        12,
        "--out",
        tmp_path / "out",
    ]
    assert dialogues.run(dialogues.parse_arguments([str(a) for a in told]), say) == 12
    return tmp_path / "out"


def scenes(folder):
    for line in (folder / "data.jsonl").read_text().splitlines():
        item = json.loads(line)
        wave, rate = soundfile.read(folder / item["path"], dtype="float32")
        assert (
            rate == SAMPLE_RATE
            and wave.shape[1] == 2
            and abs(len(wave) / rate - item["duration"]) < 0.01
        )
        yield wave.T, json.loads((folder / item["path"]).with_suffix(".json").read_text())


def loudness(wave: np.ndarray, start: float, end: float) -> float:
    return float(np.sqrt(np.square(wave[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]).mean()))


def test_sound_is_where_the_words_are(written):
    known = {heard_form(word) for word in WORDS}
    for (agent, user), told in scenes(written):
        words = [
            (word, start, end, agent if who == "SPEAKER_MAIN" else user)
            for word, (start, end), who in told["alignments"]
        ]
        assert [start for _, start, _, _ in words] == sorted(start for _, start, _, _ in words)
        for word, start, end, wave in words:
            assert loudness(wave, start, end) > 3 * loudness(wave, 0.0, 0.15), word
        heard = [word for word, _, _, wave in words if wave is user]
        assert heard and set(heard) <= known  # back-channels have no sound in this pool
        assert len(told["user_turns"]) == 2 and all(
            turn["for_the_agent"] for turn in told["user_turns"]
        )


def test_whoever_is_interrupted_falls_silent(written):
    stopped = 0
    for (agent, _), told in scenes(written):
        for stop in told["agent_stops"]:
            stopped += 1
            assert loudness(agent, stop + 0.01, stop + 0.2) == 0.0
            words = [
                word
                for word, (_, end), who in told["alignments"]
                if who == "SPEAKER_MAIN" and end <= stop
            ]
            assert len(words) < len(ANSWER.split())
    assert 1 <= stopped < 12


def test_prepare_reads_what_was_written(written, parts):  # noqa: F811
    assert prepare(parts, written, (written / "data.jsonl").read_text().splitlines()) == 0
    entries = Pool(written / "prepared").entries
    assert len(entries) == 12 and all(entry["agent"] and entry["words"] for entry in entries)


def test_a_corpus_that_nobody_can_say_is_told(tmp_path):
    write_pool(tmp_path / "pool", 4)
    line = {"kind": "test", "split": "train", "turns": [{"role": "user", "text": BACK_CHANNELS[0]}]}
    (tmp_path / "dialogues.jsonl").write_text(json.dumps(line) + "\n")
    told = [
        "--corpus",
        tmp_path / "dialogues.jsonl",
        "--pool",
        tmp_path / "pool",
        "--out",
        tmp_path / "out",
    ]
    with pytest.raises(SystemExit, match="can be spoken"):
        dialogues.run(dialogues.parse_arguments([str(a) for a in told]), say)
