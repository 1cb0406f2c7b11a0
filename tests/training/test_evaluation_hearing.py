"""Evaluating hearing: clips side by side keep their order, and what was done is not done again."""

import json
from argparse import Namespace

import numpy as np
import pytest

from duplex.audio import TICK_SAMPLES
from duplex.events import Event
from duplex.training.evaluation.disturbances import wordless, words_per_minute
from duplex.training.evaluation.hearing import Results, Teacher, agent_transcripts
from duplex.training.evaluation.learning_curve import plot_training


class Echo:
    """Two slots; writes down the tick's loudness, three ticks later."""

    slots = 2

    def __init__(self):
        self.late: list[list[str]] = [[], []]

    def open(self, slot: int, seed: int) -> None:
        self.late[slot] = ["", "", ""]

    def close(self, slot: int) -> None:
        self.late[slot] = []

    def step(self, heard: np.ndarray, active: list[int]):
        events = [[], []]
        for slot in active:
            self.late[slot].append(
                f" {round(float(heard[slot].max()))}" if heard[slot].any() else ""
            )
            events[slot].append(Event("heard", 0, self.late[slot].pop(0)))
        return heard, events


def test_clips_side_by_side_come_back_in_their_order():
    waves = [
        np.full(ticks * TICK_SAMPLES - 7, level, np.float32)
        for ticks, level in ((3, 1), (1, 2), (2, 3))
    ]
    assert [text.split() for text in agent_transcripts(Echo(), waves)] == [
        ["1"] * 3,
        ["2"],
        ["3"] * 2,
    ]


def test_teacher_hears_no_sound_twice(tmp_path):
    heard = []

    def recognise(wave: np.ndarray) -> str:
        heard.append(wave)
        return "so it is"

    for _ in range(2):  # the second reads what the first has kept
        teacher = Teacher(tmp_path / "teacher.jsonl", recognise)
        assert [teacher.transcribe(np.full(9, level, np.float32)) for level in (0.1, 0.2, 0.1)] == [
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


def test_wordless_sound_has_words_per_minute():
    noises = [np.random.default_rng(1).integers(-9000, 9000, 48_000).astype(np.int16)]
    waves = wordless(noises, 5 / 3, np.random.default_rng(0))
    assert (
        len(waves) == 5 and not waves[0].any() and all(0 < np.abs(wave).max() for wave in waves[1:])
    )
    assert words_per_minute(["so it is", "", "", "", ""], waves) == pytest.approx(1.8)
