"""The soak at toy scale: seconds instead of minutes, the smallest agent, and each kind of user."""

import json
from collections import Counter

import pytest

from duplex import cli
from duplex.bench import soak as bench_soak
from duplex.bench.soak import GROWTH_MB, KINDS, Visit, faults, plan, user_line
from tests.conftest import tone
from tests.tiny_agent import TinyAgent

CALM = {
    "sessions": 0,
    "model_errors": 0,
    "threads": 3,
    "tasks": 2,
    "open_files": 9,
    "resident_bytes": 2**30,
}


def test_the_plan_is_one_for_each_seed_and_fills_the_places():
    visits = plan(1, 3600, 4)
    assert visits == plan(1, 3600, 4) != plan(2, 3600, 4)
    assert {visit.kind for visit in visits} == set(KINDS)
    assert all(visit.at_s + visit.stays_s <= 3600 for visit in visits)
    assert 3.5 < sum(visit.stays_s for visit in visits) / 3600 < 5
    line = user_line([tone(10)], Visit(0, 5, "ends", 1))
    assert len(line) == 5 * 24_000


def test_what_is_a_fault():
    assert faults(CALM, CALM, Counter(ends=3, refused=2)) == []
    [sentence] = faults(
        CALM, {**CALM, "resident_bytes": 2**30 + (GROWTH_MB + 1) * 2**20}, Counter()
    )
    assert "memory grew by 31.0 MB" in sentence
    broken = {**CALM, "sessions": 1, "tasks": 5, "model_errors": 2}
    assert len(faults(CALM, broken, Counter({"error: lost": 1}))) == 4


def test_a_soak_of_seconds(monkeypatch, tmp_path, capsys):
    """Through the command: all kinds of users, nobody left over."""
    monkeypatch.setattr("duplex.serving.server.RESUME_S", 2)
    monkeypatch.setattr(bench_soak, "STAY_S", 1.5)
    monkeypatch.setattr(bench_soak, "PAUSE_S", 0.6)
    monkeypatch.setattr(cli, "_load", lambda args, slots: TinyAgent(slots))
    cli.main(["bench", "load", "--soak", "0.2", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["faults"] == [] and set(found["seen"]) >= set(KINDS)
    assert found["end"]["ticks"] > found["warm"]["ticks"] > 0
    assert "resident" in capsys.readouterr().out


def test_a_session_that_stays_fails_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench_soak, "STAY_S", 1.0)
    monkeypatch.setattr(bench_soak, "QUIET_S", 1.0)
    monkeypatch.setattr(bench_soak, "KINDS", {"drops": 1})  # and the server keeps them for 30 s
    monkeypatch.setattr(cli, "_load", lambda args, slots: TinyAgent(slots))
    with pytest.raises(SystemExit) as caught:
        cli.main(["bench", "load", "--soak", "0.05", "--out", str(tmp_path)])
    assert caught.value.code == 1
    assert "sessions are left over" in capsys.readouterr().out
