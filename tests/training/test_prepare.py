"""Recorded conversations made ready: what can be used is, what cannot is named and left out."""

import json
import re
import zlib

import numpy as np
import pytest
import soundfile

from duplex.audio import SAMPLE_RATE
from duplex.training.data.pool import Pool
from tests.training.helpers import AGENT_WORDS, USER_WORDS, alignments, prepare, record


def test_a_conversation_becomes_a_pool_entry(parts, tmp_path, capsys):
    """The right channel is kept, at the project's rate, with both sides' words."""
    lines = [
        record(tmp_path, "a", {"alignments": alignments()}),
        "",
        record(tmp_path, "b", {"alignments": alignments()}, 16_000),
    ]
    assert prepare(parts, tmp_path, lines) == 0
    told = capsys.readouterr().out
    assert (tmp_path / "prepared" / "READY").exists()
    assert "2 conversations" in told and "0 skipped" in told
    pool = Pool(tmp_path / "prepared")
    for i, entry in enumerate(pool.entries):
        assert entry["words"] == USER_WORDS and entry["agent"] == AGENT_WORDS
        assert entry["text"] == "hi you and now"
        wave = pool.wave(i)
        assert len(wave) == 9 * SAMPLE_RATE
        said = wave[int(1.1 * SAMPLE_RATE) : int(1.5 * SAMPLE_RATE)]
        agent_speaks = wave[int(2.3 * SAMPLE_RATE) : int(2.6 * SAMPLE_RATE)]
        assert said.std() > 0.1 > 0.01 > agent_speaks.std()
        pitch_hz = np.abs(np.fft.rfft(said)).argmax() / 0.4
        assert abs(pitch_hz - 500) < 5, "the rate is right"


def test_the_split_is_stable_and_about_a_twentieth_is_set_aside(parts, tmp_path):
    names = [f"talk{i}" for i in range(200)]
    held = [name for name in names if zlib.crc32(f"{name}.wav".encode()) % 20 == 0]
    other = next(name for name in names if name not in held)
    assert 3 <= len(held) <= 20
    lines = [record(tmp_path, name, {"alignments": alignments()}) for name in (held[0], other)]
    prepare(parts, tmp_path, lines)
    assert [entry["split"] for entry in Pool(tmp_path / "prepared").entries] == ["valid", "train"]


def left_out(told: str) -> list[str]:
    """The lines that are no states of the bar."""
    return [line for line in re.split(r"[\r\n]+", told) if line.startswith("data.jsonl")]


def swapped() -> list:
    """The first two alignments in the wrong order."""
    told = alignments()
    return [told[1], told[0], *told[2:]]


def labels(*told, **kept) -> dict:
    return {"labels": {"alignments": alignments(*told, **kept)}}


LONG_TURN = [["um", second, second + 0.9] for second in range(39)]
NOT_A_NUMBER = [["hi", [0.1, float("nan")], "USER"]]
BAD = {
    "mono": (labels() | {"channels": 1}, "mono"),
    "no json": ({"labels": None}, "missing.json is missing"),
    "neither": ({"labels": {"words": []}}, 'neither "alignments" nor "text"'),
    "order": ({"labels": {"alignments": swapped()}}, 'out of order at "hi"'),
    "backwards": (labels([["hi", 0.9, 0.5]]), "out of order"),
    "beyond": (labels([*USER_WORDS, ["late", 8.8, 9.4]]), "beyond the end"),
    "shape": ({"labels": {"alignments": [["hi", [0.1], "USER"]]}}, "entry 1 of alignments"),
    "not a number": ({"labels": {"alignments": NOT_A_NUMBER}}, "entry 1 of alignments"),
    "only agent": (labels([]), "no words of the user"),
    "only user": (labels(agent=[]), "no word of SPEAKER_MAIN"),
    "too much text": ({"labels": {"text": "several words " * 40}}, "do not fit into 9.0 s"),
    "no turn": (labels(LONG_TURN, [["no", 4, 5]]) | {"seconds": 40.0}, "a whole turn of the user"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_the_rest_is_used(parts, tmp_path, capsys, case):
    how, sentence = BAD[case]
    good = record(tmp_path, "good", {"alignments": alignments()})
    assert prepare(parts, tmp_path, [good, record(tmp_path, "missing", **how)]) == 0
    told = capsys.readouterr()
    used = [entry["source"] for entry in Pool(tmp_path / "prepared").entries]
    assert used == ["good.wav"] and "1 skipped" in told.out
    (line,) = left_out(told.err)
    assert sentence in line and line.startswith("data.jsonl line 2: missing.wav: ")


def test_broken_files_are_named(parts, tmp_path, capsys):
    record(tmp_path, "a", None)
    (tmp_path / "a.json").write_text('{"alignments": [')
    (tmp_path / "b.wav").write_bytes(b"RIFF no wave")
    (tmp_path / "b.json").write_text(json.dumps({"alignments": alignments()}))
    record(tmp_path, "c", {"alignments": alignments()})
    soundfile.write(tmp_path / "c.wav", np.zeros((9 * SAMPLE_RATE, 2)), SAMPLE_RATE)
    sentences = {
        '{"path": "a.wav"}': "a.json is not JSON",
        '{"path": "b.wav"}': "cannot be read as sound",
        '{"path": "c.wav"}': "no sound of the user",
        '{"path": "gone.wav"}': "no such file",
        "{": 'with a "path"',
        '{"duration": 3}': 'with a "path"',
    }
    assert prepare(parts, tmp_path, list(sentences)) == 2
    told = capsys.readouterr()
    found = zip(left_out(told.err), sentences.values(), strict=True)
    for number, (line, sentence) in enumerate(found, 1):
        assert line.startswith(f"data.jsonl line {number}: ") and sentence in line
    assert "6 skipped" in told.out and not (tmp_path / "prepared" / "READY").exists()


def test_a_finished_folder_is_not_overwritten(parts, tmp_path):
    line = record(tmp_path, "a", {"alignments": alignments()})
    assert prepare(parts, tmp_path, [line]) == 0
    before = (tmp_path / "prepared" / "index.jsonl").read_text()
    with pytest.raises(SystemExit):
        prepare(parts, tmp_path, [line, line])
    assert (tmp_path / "prepared" / "index.jsonl").read_text() == before


def words_of(told: list) -> list[str]:
    return [word for word, _, _ in told]


def test_missing_times_come_from_the_aligner(parts, tmp_path):
    """Turns with and without times, and a text for the user's channel alone."""
    turns = [
        ["hi you", [0.5, 1.6], "USER"],
        ["Hello. Good day.", None, "SPEAKER_MAIN"],
        ["and - now", [5.0, 6.5], "USER"],
    ]
    mixed = {"alignments": [["Hello.", [2.2, 2.7], "SPEAKER_MAIN"]], "text": "hi you"}
    lines = [
        record(tmp_path, "turns", {"alignments": turns}),
        record(tmp_path, "text", {"text": "hi you and"}),
        record(tmp_path, "mixed", mixed),
    ]
    assert prepare(parts, tmp_path, lines) == 0
    by_turns, by_text, by_both = Pool(tmp_path / "prepared").entries
    words = by_turns["words"]
    assert words_of(words) == ["hi", "you", "and", "now"], "a dash is not said"
    assert all(0.5 <= start <= end <= 1.6 for _, start, end in words[:2])
    assert all(5.0 <= start <= end <= 6.5 for _, start, end in words[2:])
    assert words_of(by_turns["agent"]) == ["Hello.", "Good", "day."]
    assert words_of(by_text["words"]) == ["hi", "you", "and"] and by_text["agent"] is None
    assert by_both["agent"] == [["Hello.", 2.2, 2.7]]
    assert words_of(by_both["words"]) == ["hi", "you"]
    for words in (by_turns["agent"], by_text["words"]):
        for (_, _, before), (_, start, end) in zip(words, words[1:], strict=False):
            assert before <= start <= end <= 9.0
