"""Which mind a machine holds, and who talks until it is there."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from duplex.errors import MindError, WeightsError
from duplex.mind import load
from duplex.mind.thinker import NO_TOOLS, Thinker

PATIENCE_S = 30


@pytest.mark.parametrize(
    ("free_mb", "cores", "names"),
    [
        (20_000, 2, ["large", "medium"]),
        (1_500, 2, ["medium"]),
        (500, 8, []),
        (20_000, 1, []),
    ],
)
def test_largest_mind_that_fits_is_chosen_and_says_why(free_mb, cores, names):
    minds, why = load.choose(free_mb, cores)
    assert [mind.name for mind in minds] == names
    assert why.startswith(f"mind: {names[0] if names else 'small'}, for ")
    assert f"{cores} cores" in why and "GB" in why


class Source:
    """A mind that reads so many tokens a second, by the test's clock."""

    time = 0.0

    def __init__(self, rate: float):
        self.rate = rate

    def read(self, messages, tools, is_cancelled):
        type(self).time += sum(len(m["content"].split()) for m in messages) / self.rate

    def stream(self, messages, tools, is_cancelled):
        yield "Yes."


def test_reading_is_timed():
    assert load.reading_rate(Source(20.0), lambda: Source.time) == pytest.approx(20.0, rel=0.2)


def settle(monkeypatch, *rates: float) -> Thinker:
    sources = [Source(rate) for rate in rates]
    made = iter(sources)
    monkeypatch.setattr(load, "Llama", lambda find, llama: next(made))
    monkeypatch.setattr(load, "find_llama", lambda: SimpleNamespace())
    monkeypatch.setattr(load, "reading_rate", lambda source: source.rate)
    thinker = load._begin(list(load.MINDS), offline=False)
    thinker.wait()
    return thinker


def test_mind_that_is_too_slow_makes_way_for_a_smaller_one(monkeypatch, capsys):
    thinker = settle(monkeypatch, 3.0, 30.0)
    assert thinker.is_ready and thinker.source.rate == 30.0
    told = capsys.readouterr().err
    assert "large reads 3 tokens a second here, too few" in told
    assert "medium (Qwen2.5-Coder 0.5B) thinks from now on; 30 tokens a second" in told


def test_first_one_is_taken_where_it_is_fast_enough(monkeypatch, capsys):
    assert settle(monkeypatch, 30.0).source.rate == 30.0
    assert "large (Qwen2.5-Coder 1.5B) thinks from now on" in capsys.readouterr().err


def test_thinker_is_not_ready_before_it_is_prepared():
    may_go_on = threading.Event()
    thinker = Thinker(Source(9.0))
    thinker.prepare(lambda: may_go_on.wait(PATIENCE_S))
    assert not thinker.is_ready
    thought = thinker.think([], NO_TOOLS)
    may_go_on.set()
    assert thought.wait(PATIENCE_S) and thought.text == "Yes." and thinker.is_ready


def test_mind_that_cannot_be_had_is_told_and_never_ready(capsys):
    def fail() -> None:
        raise WeightsError("there is no network")

    thinker = Thinker(Source(9.0))
    thinker.prepare(fail)
    thinker.wait()
    assert not thinker.is_ready
    assert "the small mind goes on talking: there is no network" in capsys.readouterr().err


def test_offline_mind_that_is_not_there_is_told_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("DUPLEX_HOME", str(tmp_path))
    monkeypatch.setattr(load, "find_llama", lambda: SimpleNamespace())
    with pytest.raises(WeightsError, match="offline"):
        load.load_thinker("large", offline=True)
    with pytest.raises(MindError, match="auto"):
        load.load_thinker(str(Path(tmp_path / "none.gguf")))
