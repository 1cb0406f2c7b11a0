"""Recorded conversations made ready: what can be used is, what cannot be named and left out."""

import gzip
import json
import mmap
import re
import shutil
import subprocess
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duplex.audio import SAMPLE_RATE
from duplex.training.common.plain_text import read_text
from duplex.training.conversations import conversation
from duplex.training.conversations.conversation import (
    Conversation,
    Listener,
    check_fit,
    check_heard,
)
from duplex.training.conversations.labels import Told, Unusable, read_captions
from duplex.training.conversations.preparing import is_of, rows_of
from duplex.training.conversations.sound import Channel, is_silent, likeness
from duplex.training.conversations.timing import Side
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
        assert abs(len(wave) - 9 * SAMPLE_RATE) < 3
        said = wave[int(1.1 * SAMPLE_RATE) : int(1.5 * SAMPLE_RATE)]
        agent_speaks = wave[int(2.3 * SAMPLE_RATE) : int(2.6 * SAMPLE_RATE)]
        assert said.std() > 0.1 > 0.01 > agent_speaks.std()
        pitch_hz = np.abs(np.fft.rfft(said)).argmax() / 0.4
        assert abs(pitch_hz - 500) < 5, "the rate is right"
    page = (tmp_path / "prepared" / "report.html").read_text()
    assert "2 taken" in page and page.count("<svg") == 2 and ">Hello.</text>" in page


def splits(folder) -> dict[str, str]:
    return {entry["source"]: entry["split"] for entry in Pool(folder / "prepared").entries}


def test_one_in_twenty_is_set_aside_by_its_name(parts, tmp_path):
    names = [f"talk{i}" for i in range(200)]
    held = [name for name in names if zlib.crc32(f"{name}.wav".encode()) % 20 == 0]
    assert 3 <= len(held) <= 20
    chosen = [held[0], *(name for name in names if name not in held)][:3]
    prepare(parts, tmp_path, [record(tmp_path, n, {"alignments": alignments()}) for n in chosen])
    found = splits(tmp_path)
    assert [found[f"{name}.wav"] for name in chosen] == ["valid", "train", "train"]


def test_of_a_few_one_is_set_aside(parts, tmp_path):
    names = [n for n in map(str, range(30)) if zlib.crc32(f"{n}.wav".encode()) % 20][:3]
    prepare(parts, tmp_path, [record(tmp_path, n, {"alignments": alignments()}) for n in names])
    assert sorted(splits(tmp_path).values()) == ["train", "train", "valid"]


def test_of_one_its_end_is_set_aside(parts, tmp_path):
    user = [[word, start + 9 * n, end + 9 * n] for n in range(6) for word, start, end in USER_WORDS]
    labels = {"alignments": alignments(user, AGENT_WORDS)}
    prepare(parts, tmp_path, [record(tmp_path, "long", labels, seconds=54.0)])
    first, last = Pool(tmp_path / "prepared").entries
    assert (first["split"], last["split"]) == ("train", "valid")
    assert last["offset"] == first["samples"] and 9 < last["samples"] / SAMPLE_RATE < 20
    assert len(first["words"]) + len(last["words"]) == len(user)
    assert all(0 <= start < 20 for _, start, _ in last["words"])


def left_out(told: str) -> list[str]:
    """The lines that are no states of the bar."""
    return [line for line in re.split(r"[\r\n]+", told) if line.startswith("data.jsonl")]


def labels(*told, **kept) -> dict:
    return {"labels": {"alignments": alignments(*told, **kept)}}


LONG_TURN = [["um", second, second + 0.9] for second in range(39)]
LATE = [[word, start + 20, end + 20] for word, start, end in USER_WORDS]
BAD = {
    "mono": (labels() | {"channels": 1}, "mono"),
    "neither": ({"labels": {"lines": []}}, 'neither "alignments" nor "segments" nor "text"'),
    "beyond": (labels(LATE), "beyond the end"),
    "shape": ({"labels": {"alignments": [["hi", [0.1], "USER"]]}}, "entry 1 of alignments"),
    "another label": (
        {"labels": {"alignments": alignments()}, "agent_label": "B"},
        "its labels are USER, SPEAKER_MAIN",
    ),
    "too much text": ({"labels": {"text": "several words " * 40}}, "do not fit into 9.0 s"),
    "one sound": (labels() | {"is_mixed": True}, "the same sound in both channels"),
    "no turn": (labels(LONG_TURN, [["no", 4, 5]]) | {"seconds": 40.0}, "a whole turn of the user"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_the_rest_is_used(parts, tmp_path, capsys, case):
    how, sentence = BAD[case]
    options = [f"--agent-label={how['agent_label']}"] if "agent_label" in how else []
    how = {name: value for name, value in how.items() if name != "agent_label"}
    good = {"alignments": [[w, [a, b], "B" if options else "USER"] for w, a, b in USER_WORDS]}
    if not options:
        good = {"alignments": alignments()}
    lines = [record(tmp_path, "good", good), record(tmp_path, "missing", **how)]
    assert prepare(parts, tmp_path, lines, *options) in (0, 2)
    told = capsys.readouterr()
    found = [line for line in left_out(told.err) if "missing.wav" in line]
    assert len(found) == 1 and sentence in found[0]
    assert found[0].startswith("data.jsonl line 2: missing.wav: ")
    assert "missing.wav" in rows_of(tmp_path / "prepared", "left_out")[-1]["why"]


def test_broken_files_are_named(parts, tmp_path, capsys):
    record(tmp_path, "a", None)
    (tmp_path / "a.json").write_text('{"alignments": [')
    (tmp_path / "b.wav").write_bytes(b"RIFF no wave")
    (tmp_path / "b.json").write_text(json.dumps({"alignments": alignments()}))
    record(tmp_path, "c", {"alignments": alignments()})
    soundfile.write(tmp_path / "c.wav", np.zeros((9 * SAMPLE_RATE, 2)), SAMPLE_RATE)
    record(tmp_path, "d", {"alignments": alignments()})
    soundfile.write(tmp_path / "d.wav", np.zeros((0, 2)), SAMPLE_RATE)
    sentences = {
        '{"path": "a.wav"}': "a.json is not JSON",
        '{"path": "b.wav"}': "cannot be read as sound",
        '{"path": "c.wav"}': "no sound of the user",
        '{"path": "d.wav"}': "no sound of the user",
        '{"path": "gone.wav"}': "no such file",
        "{": 'with a "path"',
        '{"duration": 3}': 'with a "path"',
    }
    assert prepare(parts, tmp_path, list(sentences)) == 2
    told = capsys.readouterr()
    found = zip(left_out(told.err), sentences.values(), strict=True)
    for number, (line, sentence) in enumerate(found, 1):
        assert line.startswith(f"data.jsonl line {number}: ") and sentence in line
    assert "7 skipped" in told.out and not (tmp_path / "prepared" / "READY").exists()


LISTS = {
    "UTF-16, as PowerShell writes it": '{"path": "a.wav"}\r\n{"path": "b.wav"}\r\n'.encode(
        "utf-16"
    ),
    "one JSON list": b'[{"path": "a.wav"},\n {"path": "b.wav"}]',
    "backslashes": b'{"path": ".\\\\a.wav"}\n{"path": "B.WAV"}\n',
}


@pytest.mark.parametrize("case", LISTS)
def test_a_list_of_another_system_is_read(parts, tmp_path, case):
    for name in "ab":
        record(tmp_path, name, {"alignments": alignments()})
    (tmp_path / "data.jsonl").write_bytes(LISTS[case])
    assert prepare(parts, tmp_path, [], data=tmp_path / "data.jsonl") == 0
    assert len(Pool(tmp_path / "prepared")) == 2


NO_LISTS = {
    "nothing": (b"", "is empty: it lists no recording"),
    "a table": (b"path,duration\na.wav,9\n", "no line is JSON like"),
    "zip": (b"PK\x03\x04 and so on", "is a zip archive: unpack it"),
    "half of a gz": (gzip.compress(b"{}" * 999)[:20], "cannot be unpacked"),
}


@pytest.mark.parametrize("case", NO_LISTS)
def test_what_is_no_list_is_told(parts, tmp_path, case):
    content, sentence = NO_LISTS[case]
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(SystemExit, match=sentence):
        prepare(parts, tmp_path, [], data=tmp_path / "list")


def test_what_is_listed_twice_is_taken_once(parts, tmp_path, capsys):
    line = record(tmp_path, "a", {"alignments": alignments()})
    assert prepare(parts, tmp_path, [line, line, line.replace("a.wav", "./a.wav")]) == 0
    assert len(Pool(tmp_path / "prepared")) == 1
    assert [said.split(": ")[1] for said in left_out(capsys.readouterr().err)] == [
        "a.wav is listed twice. It is left out."
    ] * 2


def test_of_a_folder_hidden_files_are_no_recordings(parts, tmp_path):
    """A Mac leaves ._NAME beside each file on other systems' disks."""
    data = tmp_path / "talks"
    (data / "__MACOSX").mkdir(parents=True)
    with pytest.raises(SystemExit, match="holds no recording: no .wav"):
        prepare(parts, tmp_path, [], data=data)
    record(data, "a", {"alignments": alignments()})
    for place in ("._a.wav", "__MACOSX/a.wav"):
        (data / place).write_bytes(b"no sound")
    assert prepare(parts, tmp_path, [], data=data) == 0
    assert prepare(parts, tmp_path, [], data=data / "a.wav", out=tmp_path / "one") == 0
    for folder in ("prepared", "one"):
        assert [entry["source"] for entry in Pool(tmp_path / folder).entries] == ["a.wav"]
        assert not rows_of(tmp_path / folder, "left_out")


def test_what_was_mended_is_looked_at_again(parts, tmp_path):
    lines = [record(tmp_path, name, {"alignments": alignments()}) for name in "ab"]
    (tmp_path / "b.json").write_text("{")
    assert prepare(parts, tmp_path, lines) == 0
    (tmp_path / "prepared" / "READY").unlink()
    assert is_of(tmp_path / "prepared", tmp_path / "data.jsonl")
    (tmp_path / "b.json").write_text((tmp_path / "a.json").read_text())
    assert not is_of(tmp_path / "prepared", tmp_path / "data.jsonl")
    assert prepare(parts, tmp_path, lines) == 0
    assert len(Pool(tmp_path / "prepared")) == 2 and not rows_of(tmp_path / "prepared", "left_out")
    assert is_of(tmp_path / "prepared", tmp_path / "data.jsonl")
    (tmp_path / "a.wav.srt").write_text("")
    assert not is_of(tmp_path / "prepared", tmp_path / "data.jsonl")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg here")
def test_ffmpeg_reads_what_libsndfile_does_not(parts, tmp_path):
    """A phone's m4a, and a recorder's wav that was never finished."""
    lines = [record(tmp_path, name, {"alignments": alignments()}) for name in ("phone", "open")]
    phone = tmp_path / "phone.wav"
    subprocess.run(["ffmpeg", "-v", "error", "-i", phone, tmp_path / "phone.m4a"], check=True)
    content = (tmp_path / "open.wav").read_bytes()
    at = content.index(b"data") + 4
    (tmp_path / "open.wav").write_bytes(content[:at] + bytes(4) + content[at + 4 :])
    assert prepare(parts, tmp_path, [lines[0].replace("phone.wav", "phone.m4a"), lines[1]]) == 0
    assert [round(len(Pool(tmp_path / "prepared").wave(i)) / SAMPLE_RATE) for i in (0, 1)] == [9, 9]


def test_without_ffmpeg_the_way_is_told(parts, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    (tmp_path / "phone.m4a").write_bytes(b"....ftypM4A")
    assert prepare(parts, tmp_path, ['{"path": "phone.m4a"}']) == 2
    assert "convert it, ffmpeg -i phone.m4a phone.wav" in capsys.readouterr().err


def test_a_finished_folder_is_not_overwritten(parts, tmp_path):
    line = record(tmp_path, "a", {"alignments": alignments()})
    assert prepare(parts, tmp_path, [line]) == 0
    before = (tmp_path / "prepared" / "index.jsonl").read_text()
    with pytest.raises(SystemExit):
        prepare(parts, tmp_path, [line, line])
    assert (tmp_path / "prepared" / "index.jsonl").read_text() == before


def test_a_killed_preparation_goes_on(parts, tmp_path, capsys):
    """Its index ends within a line; nothing is there twice."""
    lines = [record(tmp_path, name, {"alignments": alignments()}) for name in "abc"]
    assert prepare(parts, tmp_path, ["{", *lines[:2]]) == 0
    prepared = tmp_path / "prepared"
    (prepared / "READY").unlink()
    index = (prepared / "index.jsonl").read_bytes()
    (prepared / "index.jsonl").write_bytes(index[:-40])
    capsys.readouterr()
    assert prepare(parts, tmp_path, ["{", *lines]) == 0
    pool = Pool(prepared)
    assert [entry["source"] for entry in pool.entries] == ["a.wav", "b.wav", "c.wav"]
    assert len(pool.audio) == sum(entry["samples"] for entry in pool.entries)
    assert "3 conversations" in capsys.readouterr().out


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


def test_lists_are_read_as_people_have_them(parts, tmp_path):
    """A byte-order mark, gz, a folder, and names of other code points."""
    for name in ("a", "b"):
        record(tmp_path, name, {"alignments": alignments()})
    told = (tmp_path / "a.json").read_text()
    (tmp_path / "a.json").write_text(told, encoding="utf-8-sig")
    composed = unicodedata.normalize("NFC", "café")
    record(tmp_path, unicodedata.normalize("NFD", "café"), {"alignments": alignments()})
    lines = [json.dumps({"path": f"{name}.wav"}) for name in ("a", "b", composed)]
    content = "\n".join(lines).encode("utf-8-sig")
    (tmp_path / "data.jsonl.gz").write_bytes(gzip.compress(content))
    assert prepare(parts, tmp_path, [], data=tmp_path / "data.jsonl.gz") == 0
    assert set(splits(tmp_path)) == {"a.wav", "b.wav", f"{composed}.wav"}
    (tmp_path / "data.jsonl.gz").unlink()
    (tmp_path / "data.jsonl").unlink(missing_ok=True)
    assert prepare(parts, tmp_path, [], data=tmp_path, out=tmp_path / "again") == 0
    assert len(Pool(tmp_path / "again").entries) == 3


ENTRIES = {
    "out of order": [alignments()[1], alignments()[0], *alignments()[2:]],
    "20 ms too soon": [
        ["hi", [0.5, 1.02], "USER"],
        ["you", [1.0, 1.6], "USER"],
        *alignments()[2:],
    ],
    "an end before its start": [["hi", [0.9, 0.5], "USER"], *alignments()[1:]],
    "one beyond the end": [*alignments(), ["late", [9.4, 9.8], "USER"]],
    "a null text": [*alignments(), [None, [3.7, 3.8], "USER"]],
    "objects": [
        {"word": word, "start": times[0], "end": times[1], "speaker": speaker}
        for word, times, speaker in alignments()
    ],
    "numbers for speakers": [
        {"text": word, "timestamp": times, "speaker": int(speaker == "USER")}
        for word, times, speaker in alignments()
    ],
}


@pytest.mark.parametrize("case", ENTRIES)
def test_one_bad_word_does_not_cost_the_conversation(parts, tmp_path, case):
    assert prepare(parts, tmp_path, [record(tmp_path, "a", {"alignments": ENTRIES[case]})]) == 0
    (entry,) = Pool(tmp_path / "prepared").entries
    assert words_of(entry["words"]) == ["hi", "you", "and", "now"]
    assert words_of(entry["agent"]) == words_of(AGENT_WORDS)
    assert all(start < end <= 9.0 for _, start, end in entry["words"])
    starts = [start for _, start, _ in entry["words"]]
    assert starts == sorted(starts)


def test_a_diarizers_labels_belong_to_the_side_they_sound_on(parts, tmp_path):
    names = {"USER": "SPEAKER_01", "SPEAKER_MAIN": "SPEAKER_00"}
    segments = [
        {"text": word, "start": times[0], "end": times[1], "speaker": names[speaker]}
        for word, times, speaker in alignments()
    ]
    assert prepare(parts, tmp_path, [record(tmp_path, "a", {"segments": segments})]) == 0
    (entry,) = Pool(tmp_path / "prepared").entries
    assert entry["words"] == USER_WORDS and entry["agent"] == AGENT_WORDS


SAID = """[00:00.5 - 00:01.6] User: hi you
[00:02.2 - 00:03.6] AGENT: Hello.
  Good day.
[0:00:05 - 0:00:06.5] User: and now
"""
SRT = """1
00:00:00,500 --> 00:00:01,600
Caller: hi you

2
00:00:02,200 --> 00:00:03,600
{\\an8}<i>Agent: Hello.</i>
Good day.

3
00:00:05,000 --> 00:00:06,500
Caller: and now
"""
VTT = """WEBVTT

NOTE nobody says this

00:00.500 --> 00:01.600 align:start
<v Ann>hi you</v>

00:02.200 --> 00:03.600
<v.loud Rosa>Hello. Good day.</v>

00:05.000 --> 00:06.500
<v Ann>and now</v>
"""
NO_NAMES = "0.5\t1.6\thi you\n2.2\t3.6\tHello. Good day.\n5.0\t6.5\tand now\n"
TRANSCRIPTS = {
    "lines": ("a.txt", SAID.encode()),
    "lines of Windows": ("A.TXT", SAID.replace("\n", "\r\n").encode("utf-16")),
    "Audacity": ("a.txt", NO_NAMES.encode()),
    "Audacity, commas": ("a.wav.txt", NO_NAMES.replace(".", ",").encode()),
    "SubRip": ("a.srt", SRT.encode()),
    "SubRip of Windows": ("a.srt", SRT.replace("\n", "\r\n").encode("utf-8-sig")),
    "WebVTT": ("a.vtt", VTT.encode()),
    "WebVTT without names": ("a.vtt", re.sub("</?v[^>]*>", "", VTT).encode()),
}


@pytest.mark.parametrize("case", TRANSCRIPTS)
def test_a_transcript_is_read(parts, tmp_path, case):
    line = record(tmp_path, "a", None)
    name, content = TRANSCRIPTS[case]
    (tmp_path / name).write_bytes(content)
    assert prepare(parts, tmp_path, [line]) == 0
    (entry,) = Pool(tmp_path / "prepared").entries
    assert words_of(entry["words"]) == ["hi", "you", "and", "now"]
    assert [word.strip(".,") for word in words_of(entry["agent"])] == ["Hello", "Good", "day"]
    assert 0.5 <= entry["words"][0][1] < 1.6 and 2.2 <= entry["agent"][0][1] < 3.6


def test_a_colon_alone_names_nobody():
    told = read_captions("00:01 --> 00:02\nIt is this: cake\n", "a.srt")
    assert told.items == [("It is this: cake", [1.0, 2.0], "")]
    with pytest.raises(Unusable, match="a.srt holds no captions"):
        read_captions("cake", "a.srt")


def test_latin_letters_of_windows_are_read(tmp_path):
    (tmp_path / "a.txt").write_bytes("Café: très bien".encode("cp1252"))
    assert read_text(tmp_path / "a.txt") == "Café: très bien"


def test_text_that_does_not_fit_is_left_out(parts, tmp_path, capsys):
    """The random encoder gives every phone about -3.8 nats, whatever is said."""
    line = record(tmp_path, "a", {"alignments": alignments()})
    assert prepare(parts, tmp_path, [line], "--min-fit=-1") == 2
    (said,) = left_out(capsys.readouterr().err)
    assert "the agent's words do not fit what is said in the left channel" in said


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells it so")
def test_a_long_recording_is_not_held_in_memory(tmp_path):
    """Half an hour of both channels is 173 MB, of which a few are looked at together."""
    with open(tmp_path / "sound", "wb") as file:
        file.truncate(4 * 1800 * SAMPLE_RATE)
    samples = np.memmap(tmp_path / "sound", "<i2", "r").reshape(-1, 2)
    before = resident_mb()
    assert is_silent(samples[:, 1]) and likeness(samples) == 0.0
    channel = Channel(samples[:, 0], encoder=None)
    assert not any(channel.wave(start, start + 60).any() for start in range(0, 1800, 60))
    assert resident_mb() - before < 100


def test_words_of_a_silent_channel_are_told(parts, tmp_path, capsys):
    line = record(tmp_path, "a", {"alignments": alignments()})
    sound, rate = soundfile.read(tmp_path / "a.wav")
    soundfile.write(tmp_path / "a.wav", sound * [0, 1], rate)
    assert prepare(parts, tmp_path, [line], "--min-fit=-1") == 2
    (said,) = left_out(capsys.readouterr().err)
    assert "a.json has words of the agent, whose channel is silent" in said


def side(fit: float, is_heard: bool = False, log_prob: float | None = None) -> Side:
    return Side([["hi", 0.5, 0.9]], fit, is_heard=is_heard, log_prob=log_prob)


HEARD = {
    "English": (side(-0.8, is_heard=True), None),
    "German": (side(-1.6, is_heard=True), "of the user does not fit its sound"),
    "told, so it may be an accent": (side(-1.6), None),
    "by telephone, and Whisper is sure": (side(-2.3, is_heard=True, log_prob=-0.6), None),
    "German, to Whisper": (side(-1.9, is_heard=True, log_prob=-0.9), "do not understand the user"),
}


@pytest.mark.parametrize("case", HEARD)
def test_what_the_ears_hear_must_be_understood(case):
    user, sentence = HEARD[case]
    found = Conversation(np.zeros((9, 2), np.int16), user, None)
    listener = Listener(encoder=None, ears=None)
    if sentence is None:
        check_heard(found, listener)
        return
    with pytest.raises(Unusable, match=sentence):
        check_heard(found, listener)


class Words:
    """Stands for ears: a channel is the words that are heard in it."""

    whisper = True


READ = {
    "what is told is read": ("hi you and now", "nothing here", None),
    "half of it, with other words": ("well hi you again", "nothing here", None),
    "in the other channel": ("nothing here", "hi you and now", "are the channels swapped?"),
    "nowhere": ("nothing here", "no", "do not fit what is said in the right channel"),
}


@pytest.mark.parametrize("case", READ)
def test_what_fits_badly_is_taken_where_whisper_reads_it(monkeypatch, case):
    here, elsewhere, sentence = READ[case]
    monkeypatch.setattr(conversation, "heard_side", lambda ears, channel: channel)
    monkeypatch.setattr(conversation, "mean_fit", lambda words, channel: -3.0)
    monkeypatch.setattr(conversation, "swapped", lambda found, channels, min_fit: False)
    monkeypatch.setattr(conversation, "is_silent", lambda samples: False)
    agent, user = (heard(elsewhere), heard(here))
    found = Conversation(np.zeros((9, 2), np.int16), heard("Hi, you, and now."), None)
    found.user.fit = -2.3
    listener = Listener(encoder=None, ears=Words())
    if sentence is None:
        check_fit(Told(name="a.json"), found, (agent, user), listener)
        return
    with pytest.raises(Unusable, match=re.escape(sentence)):
        check_fit(Told(name="a.json"), found, (agent, user), listener)


def heard(text: str) -> Side:
    side = Side([[word, 0.0, 0.1] for word in text.split()])
    side.samples = None
    return side
