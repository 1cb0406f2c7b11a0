"""The soak at toy scale: seconds instead of minutes, the smallest agent, and each kind of user."""

import argparse
import json
from collections import Counter

import pytest

from duplex.bench import run as bench
from duplex.bench.serving import soak
from duplex.bench.serving.soak import SoakConfig, Visit, faults, plan, user_line
from duplex.serving.limits import ServerLimits
from tests.helpers import tone
from tests.tiny_agent import TinyAgent

CONFIG = SoakConfig()
CALM = {
    "sessions": 0,
    "model_errors": 0,
    "threads": 3,
    "tasks": 2,
    "open_files": 9,
    "resident_bytes": 2**30,
}


def test_plan_is_one_for_each_seed_and_fills_the_places():
    visits = plan(1, 3600, 4, CONFIG)
    assert visits == plan(1, 3600, 4, CONFIG) != plan(2, 3600, 4, CONFIG)
    assert {visit.kind for visit in visits} == set(CONFIG.kinds)
    assert all(visit.at_s + visit.stay_s <= 3600 for visit in visits)
    assert 3.5 < sum(visit.stay_s for visit in visits) / 3600 < 5
    line = user_line([tone(10)], Visit(0, 5, "ends", 1), CONFIG)
    assert len(line) == 5 * 24_000


def test_growth_and_what_is_left_over_are_faults():
    assert faults(CALM, CALM, Counter(ends=3, refused=2), 30) == []
    grown = {**CALM, "resident_bytes": 2**30 + 31 * 2**20}
    [sentence] = faults(CALM, grown, Counter(), 30)
    assert "memory grew by 31.0 MB" in sentence
    broken = {**CALM, "sessions": 1, "tasks": 5, "model_errors": 2}
    assert len(faults(CALM, broken, Counter({"error: lost": 1}), 30)) == 4


def options(minutes: str, folder) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser, "DUPLEX_API_KEY")
    return parser.parse_args(["load", "--soak", minutes, "--out", str(folder)])


@pytest.mark.slow
def test_soak_of_seconds_leaves_nobody(tmp_path, capsys):
    """All kinds of users, at a server that keeps a lost session for two seconds."""
    config = SoakConfig(stay_s=1.5, pause_s=0.6, limits=ServerLimits(resume_s=2, grace_s=0))
    assert soak.run(options("0.2", tmp_path), TinyAgent, [tone(15)], config)
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["faults"] == [] and set(found["seen"]) >= set(config.kinds)
    assert found["end"]["ticks"] > found["warm"]["ticks"] > 0
    assert "resident" in capsys.readouterr().out


@pytest.mark.slow
def test_session_that_stays_is_a_fault(tmp_path, capsys):
    """The server keeps lost sessions for 30 s, which is longer than the soak waits."""
    config = SoakConfig(stay_s=1.0, max_leaving_s=1.0, kinds={"drops": 1})
    assert not soak.run(options("0.05", tmp_path), TinyAgent, [tone(15)], config)
    assert "sessions are left over" in capsys.readouterr().out
