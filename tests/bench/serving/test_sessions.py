"""Several people at once, at toy scale: figures of each number of sessions, and clear errors."""

import argparse
import json

import pytest

from duplex.bench import run as bench
from duplex.bench.serving import sessions
from duplex.bench.serving.load import Ramp
from duplex.errors import BenchError
from tests.helpers import tone
from tests.tiny_agent import TinyAgent


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser, "DUPLEX_API_KEY")
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("load", "--sessions", "1,2"), "is for duplex bench latency"),
        (("latency", "--sessions", "1", "--url", "ws://localhost:1"), "of this process"),
    ],
)
def test_options_that_do_not_go_together(words, sentence):
    with pytest.raises(BenchError, match=sentence):
        bench.check(options(*words))


@pytest.mark.parametrize("text", ["", "1,x", "0", "1,,2", "65"])
def test_numbers_of_sessions(text):
    with pytest.raises(BenchError, match="numbers from 1 to 64"):
        sessions.parse(text)
    assert sessions.parse("1, 8") == [1, 8]


@pytest.mark.slow
def test_each_number_of_sessions_is_answered(tmp_path, capsys):
    args = options("latency", "--sessions", "1,3", "--out", str(tmp_path))
    ramp = Ramp(level_s=4.5, pause_s=1.5)
    sessions.run(args, TinyAgent, [tone(6)], ramp)
    found = json.loads((tmp_path / "sessions.json").read_text())
    assert set(found) == {"1", "3"}
    for size, one in found.items():
        assert one["first_sample"]["count"] == one["asked"] > 0
        assert [len(waiting) for waiting in one["always_waiting_ms"]] == [int(size)] * 3
    assert "first sample" in capsys.readouterr().out
