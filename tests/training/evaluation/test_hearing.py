"""Evaluating hearing: the table's figures, the order of clips, and what is not done again."""

import json
from argparse import Namespace

import numpy as np
import pytest

from duplex.audio import TICK_SAMPLES
from duplex.events import Event
from duplex.model.asr.whisper import Reading
from duplex.training.evaluation.hearing.by_source import (
    Entry,
    Results,
    group_of,
    known_sources,
    markdown,
    measures_of,
    open_columns,
    rows_of,
)
from duplex.training.evaluation.hearing.listeners import (
    Heard,
    Remembered,
    agent_transcripts,
    clip_listener,
    read_clip,
)
from duplex.training.evaluation.learning_curve import plot_training


class Echo:
    """Two slots; writes down the tick's loudness three ticks later, and ends the turn at 9."""

    slots = 2

    def __init__(self):
        self.late: list[list[str]] = [[], []]
        self.ticks = 0

    def open(self, slot: int, seed: int) -> None:
        self.late[slot] = ["", "", ""]

    def close(self, slot: int) -> None:
        self.late[slot] = []

    def step(self, heard: np.ndarray, active: list[int]):
        self.ticks += 1
        events = [[], []]
        for slot in active:
            text = f" {round(float(heard[slot].max()))}" if heard[slot].any() else ""
            self.late[slot].append(text)
            if piece := self.late[slot].pop(0):
                events[slot].append(Event("heard", 0, piece))
                if piece == " 9":
                    events[slot] += [Event("corrected", 0, "nine"), Event("user_ended", 0)]
                    events[slot].append(Event("agent_started", 0))
        return heard, events


def sound(*levels: float) -> np.ndarray:
    """A tick of each level, the last one a little short."""
    return np.repeat(np.array(levels, np.float32), TICK_SAMPLES)[:-7]


def test_clips_side_by_side_come_back_in_their_order():
    waves = [sound(1, 1, 1), sound(2), sound(3, 3)]
    found = agent_transcripts(Echo(), waves)
    assert [heard.text.split() for heard in found] == [["1"] * 3, ["2"], ["3"] * 2]
    assert not any(heard.is_answered for heard in found)


def test_what_was_read_again_counts_and_ends_the_session():
    waiting = Echo()
    assert agent_transcripts(waiting, [sound(1, 1)]) == [Heard("1 1", False)]
    ended = Echo()
    assert agent_transcripts(ended, [sound(1, 9)]) == [Heard("nine", True)]
    assert ended.ticks < waiting.ticks


def test_clips_get_their_silence():
    lengths = []
    listener = clip_listener(lambda wave: lengths.append(len(wave)) or "so")
    assert listener([sound(1), sound(1, 2)], 2) == [Heard("so"), Heard("so")]
    assert lengths == [3 * TICK_SAMPLES - 7, 4 * TICK_SAMPLES - 7]


def test_no_sound_is_heard_twice(tmp_path):
    heard = []

    def recognise(wave: np.ndarray) -> str:
        heard.append(wave)
        return "so it is"

    for _ in range(2):  # the second reads what the first has kept
        whisper = Remembered(tmp_path / "heard.jsonl", recognise)
        assert [whisper.transcribe(np.full(9, level, np.float32)) for level in (0.1, 0.2, 0.1)] == [
            "so it is"
        ] * 3
    assert len(heard) == 2


def test_results_of_the_same_setting_are_kept(tmp_path):
    done = []
    for setting in ({"seed": 0}, {"seed": 0}, {"seed": 1}):
        results = Results(tmp_path / "hearing.json", setting)
        results.measure("a measure", lambda number: done.append(number) or number, 7)
        assert results.found == {"setting": setting, "a measure": 7}
    assert done == [7, 7]  # of each setting once


def entry(text: str, heard: str, is_answered: bool | None = None, seconds: float = 20.0) -> Entry:
    return Entry(text, seconds, heard, is_answered)


def figure(name: str, number: int, *entries: Entry) -> float:
    """A set's figure of these entries: that of its `number`-th measure."""
    [measure] = measures_of(name)[number : number + 1]
    scores = np.array([measure.score(entry) for entry in entries], float)
    return measure.scale * scores[:, 0].sum() / scores[:, 1].sum()


def test_each_set_has_its_measure():
    words = entry("i like grey", "I like Gray."), entry("so it is", "so he is")
    assert figure("LibriSpeech", 0, *words) == pytest.approx(100 / 6)
    orders = entry("iced mocha twelve ounce", "a mocha, 12 ounces"), entry("latte", "latte")
    assert figure("benchmark, orders", 0, *orders) == pytest.approx(80)
    digits = entry("four two, oh one", "4201."), entry("one two", "three two")
    assert figure("digits", 0, *digits) == 50
    assert figure("digits", 1, *digits) == pytest.approx(100 * 5 / 6)
    address = entry("anna dot fox at example dot com", "anna.fox@example.com.")
    assert figure("e-mail addresses", 0, address) == 100
    assert figure("single words", 0, entry("Okay.", "OK"), entry("No.", "no no")) == 50
    begun = entry("why is it", "why is"), entry("who are you", "are you")
    assert figure("questions from the first sample on", 2, *begun) == 50
    noise = entry("", "so it", False), entry("", "", True)
    assert figure("noise, tones, music, silence", 0, *noise) == pytest.approx(3)
    assert figure("noise, tones, music, silence", 1, *noise) == 50


def test_known_sources_stand_apart_and_nobody_is_answered_by_whisper():
    noise = "noise, tones, music, silence"
    heard = {
        "A test": {"first pass": [entry("so it is", "so is")] * 3, "tiny.en": [entry("so", "so")]},
        "B": {"first pass": [entry("so", "no")], "tiny.en": [entry("so", "so")]},
        noise: {"first pass": [entry("", "", False)], "tiny.en": [entry("", "so")]},
    }
    sources = {"A test": "github:x/a", "B": "github:x/b", noise: "noise"}
    groups = {name: group_of(source, ["x/A"]) for name, source in sources.items()}
    assert list(groups.values()) == ["known", "unseen", "nobody"]
    rows = [row for name in heard for row in rows_of(name, heard[name], groups[name])]
    assert [row["clips"] for row in rows] == [3, 1, 1, 1]
    assert rows[0]["figures"] == {"first pass": [33.33] * 3, "tiny.en": [0.0] * 3}
    assert rows[3]["figures"] == {"first pass": [0.0] * 3, "tiny.en": None}
    lines = markdown(rows).splitlines()
    assert lines[0] == "| Sources that no training has seen | | clips | first pass | tiny.en |"
    assert lines[2] == "| B | WER, % | 1 | 100.0 (100.0 to 100.0) | 0.0 (0.0 to 0.0) |"
    assert lines[-1].endswith("| 0.0 (0.0 to 0.0) | – |")


def test_an_encoder_must_tell_its_sources(tmp_path):
    with pytest.raises(SystemExit, match="--known"):
        known_sources(tmp_path, [])
    assert known_sources(tmp_path, ["kokoro"]) == ["kokoro"]


def test_learning_curve_has_a_line_for_each_pool(tmp_path):
    lines = [
        {"minutes": m, "pool": p, "phone_errors": w}
        for m, p, w in ((5, "a", 0.9), (5, "b", 0.8), (10, "a", 0.5))
    ]
    (tmp_path / "log.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in [{"minutes": 1, "ctc": 3.0}, *lines])
    )
    args = Namespace(plot=tmp_path / "log.jsonl", result=tmp_path / "training.json")
    assert plot_training(args) == {"a": [10, 0.5], "b": [5, 0.8]}
    assert (tmp_path / "training.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([], ["first pass", "second pass (tiny)", "whole clips (tiny)", "tiny.en"]),
        (["second*", "tiny.en"], ["second pass (tiny)", "tiny.en"]),
    ],
)
def test_columns_are_chosen_by_name(wanted, found):
    args = Namespace(agent=None, encoder=None, column=wanted, second_pass="tiny")
    assert [*open_columns(args, recognizer=None)] == found


def test_a_whole_clip_is_read_as_one_turn():
    """All of it is heard, in whole ticks, and what is not believed is not there."""

    class Reader:
        def encode(self, power):
            self.frames = len(power)
            return power

        def decode(self, h, max_tokens, draft, favoured, beams):
            return Reading("Hi.", [1], [self.log_prob], 0.0)

    reader = Reader()
    for reader.log_prob, text in ((-0.1, "Hi."), (-9.0, "")):
        assert read_clip(reader, np.zeros(TICK_SAMPLES * 90 + 5, np.float32)) == text
    assert reader.frames == 91 * 8 + 50
