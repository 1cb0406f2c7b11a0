"""Scenes written out: sound is where the words are said to be, interruptions cut the agent."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duplex.agent.backchannels import BACKCHANNELS
from duplex.audio import SAMPLE_RATE
from duplex.model.asr.spoken_form import spoken_form
from duplex.training import dialogues
from duplex.training.data.pool import Pool
from tests.training.helpers import POOL_WORDS, prepare, strings, write_tone_pool

ANSWER = "That is a very long answer which goes on for a while and then it ends."


def say(text: str, speed: float):
    """A hum for every word, 0.4 s apart."""
    long = 0.4 / speed
    words = [[word, i * long, (i + 0.8) * long] for i, word in enumerate(text.split())]
    wave = np.zeros(int(len(words) * long * SAMPLE_RATE), np.float32)
    for _, start, end in words:
        times = np.arange(int(start * SAMPLE_RATE), int(end * SAMPLE_RATE))
        wave[times] = 0.2 * np.sin(times / 9)
    return wave, words


def user(text: str) -> dict:
    return {"role": "user", "text": text}


def agent(text: str) -> dict:
    return {"role": "agent", "text": text}


def write_corpus(path: Path, turns: list[list[dict]]) -> Path:
    lines = [json.dumps({"kind": "test", "split": "train", "turns": each}) for each in turns]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Twelve scenes of two questions each; one more dialogue cannot be said."""
    folder = tmp_path_factory.mktemp("dialogues")
    write_tone_pool(folder / "pool", 24)
    texts = [entry["text"] for entry in Pool(folder / "pool").entries]
    turns = [[user(texts[n]), agent(ANSWER), user(texts[n + 8]), agent("Yes.")] for n in range(8)]
    corpus = write_corpus(folder / "corpus.jsonl", [*turns, [user("Nobody says this.")]])
    options = strings("--corpus", corpus, "--pool", folder / "pool", "--count", 12)
    args = dialogues.parse_arguments([*options, "--out", str(folder / "out")])
    assert dialogues.run(args, say) == 12
    return folder / "out"


def scenes(folder: Path):
    """The two channels of every scene, and what is told of it."""
    for line in (folder / "data.jsonl").read_text().splitlines():
        item = json.loads(line)
        wave, rate = soundfile.read(folder / item["path"], dtype="float32")
        assert rate == SAMPLE_RATE and wave.shape[1] == 2
        assert abs(len(wave) / rate - item["duration"]) < 0.01
        yield wave.T, json.loads((folder / item["path"]).with_suffix(".json").read_text())


def loudness(wave: np.ndarray, start: float, end: float) -> float:
    return float(np.sqrt(np.square(wave[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]).mean()))


def test_sound_is_where_the_words_are(written):
    known = {spoken_form(word) for word in POOL_WORDS}
    for (agent_wave, user_wave), told in scenes(written):
        starts = [start for _, (start, _), _ in told["alignments"]]
        assert starts == sorted(starts)
        heard = set()
        for word, (start, end), who in told["alignments"]:
            wave = agent_wave if who == "SPEAKER_MAIN" else user_wave
            assert loudness(wave, start, end) > 3 * loudness(wave, 0.0, 0.15), word
            if who == "USER":
                heard.add(word)
        assert heard and heard <= known, "backchannels have no sound in this pool"
        assert [turn["for_the_agent"] for turn in told["user_turns"]] == [True, True]


def test_an_interrupted_agent_falls_silent(written):
    stopped = 0
    for (agent_wave, _), told in scenes(written):
        for stop in told["agent_stops"]:
            stopped += 1
            assert loudness(agent_wave, stop + 0.01, stop + 0.2) == 0.0
            said = [who for _, (_, end), who in told["alignments"] if end <= stop]
            assert said.count("SPEAKER_MAIN") < len(ANSWER.split())
    assert 1 <= stopped < 12


def test_prepare_reads_what_was_written(written, parts, tmp_path):
    for file in written.iterdir():
        (tmp_path / file.name).symlink_to(file)
    lines = (written / "data.jsonl").read_text().splitlines()
    (tmp_path / "data.jsonl").unlink()
    assert prepare(parts, tmp_path, lines) == 0
    entries = Pool(tmp_path / "prepared").entries
    assert len(entries) == 12 and all(entry["agent"] and entry["words"] for entry in entries)


def test_a_corpus_that_nobody_can_say_is_told(tmp_path):
    write_tone_pool(tmp_path / "pool", 4)
    corpus = write_corpus(tmp_path / "corpus.jsonl", [[user(BACKCHANNELS[0])]])
    options = strings("--corpus", corpus, "--pool", tmp_path / "pool", "--out", tmp_path / "out")
    with pytest.raises(SystemExit, match="can be spoken"):
        dialogues.run(dialogues.parse_arguments(options), say)
