"""The part `behaviour`: controls score as badly as they deserve, a detector's agent as its rules
predict, and the same seed gives the same report.

Scenes are tones and the recogniser hears loudness: nothing is fetched and no clock is asked.
"""

import argparse
import asyncio
import inspect
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from duplex import cli
from duplex.agent import Agent
from duplex.agent_interface import AgentInterface
from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.bench import behaviour
from duplex.bench import run as bench
from duplex.bench.behaviour import Judges
from duplex.bench.cascade import Cascade, CascadeParts, Costs, Endpointing
from duplex.bench.controls import Silent, Talking, without_pauses
from duplex.bench.play import play_fast
from duplex.bench.recognizer import Heard
from duplex.bench.report import published
from duplex.bench.report.figures import FIGURES, relevance
from duplex.bench.report.page import html
from duplex.bench.report.tiles import failures
from duplex.bench.scenes import KINDS, Piece, Scene, Word
from duplex.bench.serving.latency import sounding
from duplex.errors import BenchError
from duplex.events import Event
from tests.tiny_agent import TinyAgent

COSTS = Costs(recogniser=0.1, prompt=0.0, token=0.01, voice=0.0)
ANSWER_S, ANSWER_TOKENS = 3.2, 6


def sound(seconds: float, level: float = 0.2) -> np.ndarray:
    return np.full(round(seconds * SAMPLE_RATE), level, np.float32)


def scene(kind: str, *pieces: Piece, **more) -> Scene:
    return Scene(f"{kind}-1", kind, list(pieces), **{"listen_s": 5.0, **more})


def piece(role: str, seconds: float = 1.2, level: float = 0.2, **due) -> Piece:
    return Piece(role, f"the {role}", sound(seconds, level), [], **due)


ASK = piece("question", after_s=0.8)


def during(role: str, seconds: float) -> Piece:
    return piece(role, seconds, after_voice_s=0.8, latest_s=3.0)


SCENES = [
    scene("pause", piece("part", after_s=0.8), piece("question", after_s=2.4)),
    scene("turn", ASK),
    scene("interruption", ASK, during("interruption", 1.2)),
    scene("back_channel", ASK, during("back_channel", 0.4)),
    scene(
        "listening",
        piece("part", after_s=0.8),
        piece("part", after_s=0.4),
        piece("question", after_s=0.4),
    ),
    scene("side_talk", ASK, during("side", 1.2)),
    scene("background", ASK, during("television", 1.2)),
    scene("noise", piece("noise", 2.0, level=0.02, at_s=0.5), piece("question", after_s=4.0)),
    scene("silence", piece("question", after_s=4.0)),
    scene("echo", ASK, echo_delay_s=0.08, echo_gain=0.8),
]


def recognize(wave: np.ndarray) -> Heard:
    """Voice is loudness; each 0.4 s of it is a word."""
    voice = [(round(s, 3), round(e, 3)) for s, e in sounding(wave)]
    times = [float(t) for start, end in voice for t in np.arange(start, end - 0.2, 0.4)]
    return Heard(voice, [Word("word", round(t, 3), round(t + 0.3, 3)) for t in times])


def likelihood(question: str, answer: str) -> float:
    return -float(len(question))


def parts(questions: list | None = None) -> CascadeParts:
    def reply(messages: list[tuple[str, str]]) -> tuple[str, int]:
        if questions is not None:
            questions.append(messages)
        return "one two three four five six", ANSWER_TOKENS

    def detector():
        return lambda tick: float(np.sqrt(np.square(tick).mean()) > 0.05)

    return CascadeParts(
        detector,
        lambda wave: f"{len(wave) / SAMPLE_RATE:.2f} s",
        reply,
        lambda text: sound(ANSWER_S),
    )


def measure(agent, scenes: list[Scene] = SCENES, seed: int = 0) -> dict:
    return asyncio.run(
        behaviour.measure(partial(play_fast, agent), scenes, seed, Judges(recognize, likelihood))
    )


def figures(found: dict) -> dict[str, dict]:
    return {row["kind"]: row["figures"] for row in found["scenes"]}


@pytest.mark.parametrize("agent", [Agent, Cascade, Silent, TinyAgent])
def test_every_agent_opens_with_what_the_engine_gives(agent):
    wanted = inspect.signature(AgentInterface.open).parameters
    assert list(inspect.signature(agent.open).parameters) == list(wanted)


def test_silent_control_handles_nothing():
    found = figures(measure(Silent(1)))
    assert {kind: row["handled"] for kind, row in found.items()} == dict.fromkeys(KINDS, 0.0)
    assert (
        found["pause"]["take_over"] == found["listening"]["take_over"] == 0.0
    )  # flawless by the rules of v1
    assert found["turn"]["take_over"] == found["interruption"]["take_over"] == 0.0
    assert (
        found["interruption"]["yielded"] is None and found["back_channel"]["resumed"] is None
    )  # never had the chance


def test_talking_control_handles_nothing():
    found = measure(Talking(1, sound(1.0)))
    rows = figures(found)
    assert {kind: row["handled"] for kind, row in rows.items()} == dict.fromkeys(KINDS, 0.0)
    assert (
        rows["turn"]["take_over"] == rows["interruption"]["take_over"] == 1.0
    )  # flawless and at once by the rules of v1
    assert rows["turn"]["latency_clipped_s"] == 0.0 and rows["turn"]["latency_s"] is None
    assert (
        rows["interruption"]["latency_clipped_s"] < 0.4 and rows["interruption"]["yielded"] == 0.0
    )
    assert rows["pause"]["cut_in"] == rows["silence"]["cut_in"] == 1.0
    assert found["discernment"] == 0.0


def test_talking_control_has_no_pauses():
    """With the pauses between its sentences it seemed to yield to every interruption."""
    rhythm = np.concatenate([sound(0.5), sound(1.0, 0.0), sound(0.5), sound(0.1, 0.0), sound(0.5)])
    assert len(without_pauses(rhythm)) / SAMPLE_RATE == pytest.approx(1.5 + 0.16 + 0.1, abs=0.001)


def test_cascade_does_what_its_detector_says():
    found = measure(Cascade(1, parts(), COSTS))
    rows = figures(found)
    assert rows["turn"]["handled"] == rows["noise"]["handled"] == rows["silence"]["handled"] == 1.0
    waits = (
        Endpointing().silence_ticks * TICK_SAMPLES / SAMPLE_RATE
        + COSTS.recogniser
        + ANSWER_TOKENS * COSTS.token
    )
    assert (
        waits <= rows["turn"]["latency_s"] <= waits + 0.32
    )  # whole ticks, and one each for hearing and playing
    assert rows["pause"]["cut_in"] == 1.0  # it cannot tell a pause from the end
    assert rows["listening"]["cut_in"] == 0.0  # pauses shorter than its patience
    assert rows["interruption"]["yielded"] == 1.0 and 0.24 <= rows["interruption"]["stop_s"] <= 0.56
    assert rows["interruption"]["handled"] == 1.0
    assert (
        rows["back_channel"]["resumed"] == rows["side_talk"]["resumed"] == 0.0
    )  # anything loud stops it
    assert rows["echo"]["self_stopped"] == 1.0 and rows["echo"]["handled"] == 0.0  # even itself
    assert found["discernment"] == 0.0


def test_cascade_remembers_what_was_said():
    """What was heard and, of an answer that was interrupted, about as much as was said."""
    asked: list = []
    [interruption] = [one for one in SCENES if one.kind == "interruption"]
    asyncio.run(play_fast(Cascade(1, parts(asked), COSTS), interruption, 0))
    first, second = asked
    assert [role for role, _ in first] == ["system", "user"]
    assert [role for role, _ in second] == ["system", "user", "assistant", "user"]
    said = second[2][1]
    assert "one two three four five six".startswith(said) and 3 < len(said) < 20


def test_cascade_hears_a_resumed_sentence_as_a_whole():
    """Speech that comes while it thinks is part of the same turn."""
    asked: list = []
    hesitant = scene("pause", piece("part", after_s=0.8), piece("question", after_s=0.8))
    slow = Costs(recogniser=1.0, prompt=0.0, token=0.0, voice=0.0)
    asyncio.run(play_fast(Cascade(1, parts(asked), slow), hesitant, 0))
    seconds = [float(messages[-1][1].split()[0]) for messages in asked]
    assert len(seconds) == 2 and seconds[1] > 1.2 + 0.8 + 1.2 > seconds[0]


class Babbler(Silent):
    """Speaks at random, as its seed wants."""

    def open(self, slot: int, seed=0, instructions=None, temperature=None, gradually=False) -> None:
        self.rng = np.random.default_rng(seed)

    def step(self, audio: np.ndarray, active: list[int], voice: bool = True):
        played, events = super().step(audio, active)
        played[:] = 0.3 * (self.rng.uniform() < 0.3)
        return played, [[Event("said", 0, " <b>&")]] if played.any() else events


def report(seed: int, scenes: list[Scene] = SCENES) -> dict:
    found = {
        name: measure(agent, scenes, seed)
        for name, agent in (("talking", Talking(1, sound(1.0))), ("<babbler>", Babbler(1)))
    }
    return {
        "version": "0",
        "seed": seed,
        "url": None,
        "machine": bench.machine(),
        "scenes": len(scenes),
        "behaviour": found,
    }


def test_same_seed_gives_the_same_report():
    once, again, other = (report(seed, SCENES[:3]) for seed in (1, 1, 2))
    assert json.dumps(once) == json.dumps(again)
    assert html(once) == html(again)
    assert figures(once["behaviour"]["<babbler>"]) != figures(other["behaviour"]["<babbler>"])


def test_page_needs_nothing_else():
    page = html(report(1))
    strips = page.count("How soon it answers")
    assert page.count("<svg") == page.count("</svg>") == 2 * len(SCENES) + strips
    # The recordings beside it can be heard, and their absence harms nothing.
    assert page.count("src=") == page.count("src='recordings/") == 2 * len(SCENES)
    for outside in ("http", "href=", "<script", "url(", "@import"):
        assert outside not in page
    assert "<babbler>" not in page and "&lt;babbler&gt;" in page
    for model in ("Moshi", "PersonaPlex", "Freeze-Omni", "Gemini Live 2.0", "GPT-Realtime"):
        assert (
            f"<td class=l>{model}</td><td class=l>published (other data, other machine)</td>"
            in page
        )
    assert page.count("<td class=l>measured here</td>") == 2


def test_page_begins_with_what_failed():
    page = html(report(1))
    assert page.index("class=tile>") < page.index("<h2>Behaviour</h2>")
    names = re.findall(r"<details( open class=failed)?><summary><b>([^<]*)", page)
    assert [bool(failed) for failed, _ in names] == sorted(
        (bool(failed) for failed, _ in names), reverse=True
    )
    assert names[0][0] and page.count("failed: ") >= page.count("<em>failed</em>") > 0


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ({"cut_in": 0.0, "handled": 1.0}, []),
        ({"take_over": None}, []),
        ({"cut_in": 1.0, "handled": 0.0}, ["spoke into the user's sentence"]),
        ({"yielded": 0.0, "handled": 0.0}, ["not: yield rate, when it was speaking"]),
        ({"latency_s": None, "cut_in": 0.0, "handled": 0.0}, ["no answer"]),
        ({"latency_s": 3.5, "handled": 0.0}, ["handled otherwise than it should be"]),
    ],
)
def test_what_a_scene_failed_by(found, wrong):
    assert failures({"figures": found}) == wrong


def test_every_published_number_has_its_column():
    assert {len(values) for values in published.MODELS.values()} == {len(published.COLUMNS)}
    ours = [rule for _, rule in published.COLUMNS if rule]
    assert all(kind in KINDS and figure in FIGURES for kind, figure in ours)


def test_relevance_ranks_an_answer_among_the_questions_of_the_run():
    table = {
        ("a", "x"): -1.0,
        ("b", "x"): -2.0,
        ("c", "x"): -0.5,
        ("b", "y"): -1.0,
        ("a", "y"): -9.0,
        ("c", "y"): -9.0,
    }
    assert relevance([("a", "x"), ("b", "y"), ("c", "x")], lambda q, a: table[q, a]) == [
        0.5,
        1.0,
        1.0,
    ]
    assert relevance([("a", "x")], lambda q, a: 0.0) == [None]


def options(*arguments: str) -> argparse.Namespace:
    """What `duplex bench ARGUMENTS` would be given."""
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser, "DUPLEX_API_KEY")
    return parser.parse_args(arguments)


def test_report_has_every_agent_and_scene(tmp_path, capsys):
    args = options("behaviour", "--agents", "default,silent", "--out", str(tmp_path))
    loader = bench.Loader(
        lambda slots: Talking(slots, sound(1.0)),
        make_recognizer=lambda offline, threads: recognize,
        make_language_model=lambda offline: argparse.Namespace(log_likelihood=likelihood),
    )
    bench.write_report(bench.measure(args, SCENES[:3], loader), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["kind", "figure", "by", "default", "silent"]
    [turn] = [line.split() for line in lines if line.startswith("turn") and "handled" in line]
    assert turn[-4:] == ["0.00", "(1)", "0.00", "(1)"]
    found = json.loads((tmp_path / "report.json").read_text())
    assert list(found["behaviour"]) == ["default", "silent"] and found["scenes"] == 3
    assert (tmp_path / "report.html").read_text() == html(found)
    assert len(list(Path(tmp_path / "recordings" / "silent").glob("*.flac"))) == 3


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(["bench", *arguments])
    assert caught.value.code == 2
    [sentence] = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("duplex: ")
    ]
    return sentence


def test_mistakes_are_told_in_a_sentence(tmp_path, capsys):
    out = ("--out", str(tmp_path))
    unknown = refused(capsys, "behaviour", "--agents", "default,moshi", *out)
    assert "no agent 'moshi'" in unknown
    elsewhere = ("load", "--url", "ws://localhost:1", "--dialect", "moshi", *out)
    assert "load is measured in our own dialect only" in refused(capsys, *elsewhere)
    empty = refused(capsys, "load", "--scenes", str(tmp_path), *out)
    assert "there are no scenes in" in empty
    assert "duplex bench load" in refused(capsys, "latency", "--soak", "1", *out)


def test_missing_package_is_told_in_a_sentence():
    with pytest.raises(BenchError, match="silero_vad not installed; pip install"):
        bench.check(options("all"), is_installed=lambda module: module != "silero_vad")
