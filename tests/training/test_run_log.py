"""A run's journal: one line of JSON a report, and the same numbers on TensorBoard."""

import argparse
import json

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from duplex.training.common.run_log import describe_run, log, named_numbers


def test_numbers_are_named_by_where_they_stand():
    line = {"train": {"stop": [1.5, 0.25], "end": 2}, "heard": "a text", "none": None}
    assert dict(named_numbers(line)) == {
        "train/stop/0": 1.5,
        "train/stop/1": 0.25,
        "train/end": 2.0,
    }


def test_a_report_is_a_line_and_a_point(tmp_path, capsys):
    describe_run(argparse.Namespace(out=tmp_path / "run", lr=1e-3), "training.test")
    for step in (25, 50):
        log(tmp_path / "run", {"step": step, "train": {"stop": [step / 3, 1.0]}, "heard": "words"})
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": s, "train": {"stop": [round(s / 3, 4), 1.0]}, "heard": "words"} for s in (25, 50)
    ]
    assert capsys.readouterr().out.count("\n") == 2
    board = EventAccumulator(str(tmp_path / "run/tensorboard"))
    board.Reload()
    assert [(point.step, round(point.value, 3)) for point in board.Scalars("train/stop/0")] == [
        (25, 8.333),
        (50, 16.667),
    ]
    described = json.loads((tmp_path / "run/run.json").read_text())
    assert described["program"] == "training.test" and described["arguments"]["lr"] == 1e-3
    assert described["versions"]["torch"] == torch.__version__
