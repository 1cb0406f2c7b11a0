"""Latency and load: arithmetic on numbers made by hand, and short runs that ask for no speed."""

import asyncio

import numpy as np
import pytest

from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.bench.controls import Silent, Talking
from duplex.bench.recognizer import Heard
from duplex.bench.report.page import html
from duplex.bench.report.report import table
from duplex.bench.scenes import Annotation, Piece, Scene
from duplex.bench.score import ScoredScene
from duplex.bench.serving import latency as bench_latency
from duplex.bench.serving import load as bench_load
from duplex.bench.serving.latency import reaction, sounding, spread, stages, timed
from duplex.bench.serving.load import (
    FIRST_TICKS,
    Ramp,
    Talk,
    first_audio,
    judge,
    lateness,
    user_line,
)

TONE = np.full(TICK_SAMPLES, 0.3, np.float32)
QUIET = np.zeros(TICK_SAMPLES, np.float32)


def test_spread_has_percentiles_and_a_histogram():
    found = spread([0.001 * n for n in range(101)])
    assert (found["count"], found["p50"], found["p95"], found["p99"], found["max"]) == (
        101,
        50.0,
        95.0,
        99.0,
        100.0,
    )
    assert sum(found["counts"]) == 101 and (found["edges"][0], found["edges"][-1]) == (0.0, 100.0)
    assert spread([]) is None


def test_sounding_is_exact_to_the_sample():
    wave = np.zeros(3 * SAMPLE_RATE, np.float32)
    for first, last in (
        (1000, 2000),
        (5000, 6000),
        (40_000, 41_000),
    ):  # the second gap is longer than max_gap_s
        wave[[first, last]] = 0.5
    assert sounding(wave) == [
        (1000 / SAMPLE_RATE, 6000 / SAMPLE_RATE),
        (40_000 / SAMPLE_RATE, 41_000 / SAMPLE_RATE),
    ]
    assert sounding(np.zeros(100, np.float32)) == []


@pytest.mark.parametrize(
    ("kind", "voice", "ended", "expected"),
    [
        ("turn", [(3.7, 6.0)], [], ("first_sample", 0.7)),
        ("turn", [], [], None),
        ("turn", [(0.0, 20.0)], [], None),
        ("interruption", [(3.5, 5.25)], [], ("silence", 0.25)),
        ("interruption", [(3.5, 5.25)], [5.2], None),  # it had finished
        ("interruption", [], [], None),
    ],
)
def test_reaction_is_timed_where_there_is_one(kind, voice, ended, expected):
    marks = [Annotation("question", "", 1.0, 3.0)] + [Annotation("interruption", "", 5.0, 6.0)] * (
        kind == "interruption"
    )
    assert reaction(ScoredScene(kind, marks, Heard(voice), 20.0, ended)) == (
        expected and (expected[0], pytest.approx(expected[1]))
    )


def test_timers_are_taken_off_again():
    agent, one = Silent(1), Talking(1, TONE)
    with timed(agent, [(one, "close", "inner")]) as ticks:
        agent.step(TONE[None], [0])
        one.close(0)
        one.close(0)
        agent.step(TONE[None], [0])
    assert [sorted(tick) for tick in ticks] == [["tick"], ["inner", "tick"]]
    assert all(seconds >= 0 for tick in ticks for seconds in tick.values())
    assert not vars(agent).keys() & {"step"} and not vars(one).keys() & {"close"}
    agent.step(TONE[None], [0])
    assert len(ticks) == 2


def test_stages_of_the_agent_are_where_the_bench_looks_for_them():
    from tests.tiny_speech_agent import tiny_agent

    agent = tiny_agent(1)
    agent.open(0)
    with timed(agent, stages(agent)) as ticks:
        for _ in range(3):
            agent.step(TONE[None], [0])
    for tick in ticks:
        assert tick.keys() == {"features", "encoder", "LM", "talker", "codec", "tick"}
        assert sum(tick.values()) - tick["tick"] <= tick["tick"]
    agent.step(TONE[None], [0])
    assert len(ticks) == 3
    assert stages(Silent(1)) == []


def test_lateness_is_against_the_beat_of_the_first_second():
    beat, at = 5.0 + np.arange(30) * TICK_S, np.arange(30)
    assert lateness(beat.tolist()) == pytest.approx(np.zeros(30 - FIRST_TICKS))
    late = beat + np.where(at == 20, 0.1, 0.0) + np.where(at == 2, -0.01, 0.0)
    assert lateness(late.tolist()) == pytest.approx(np.where(at == 20, 0.11, 0.01)[FIRST_TICKS:])
    waiting = np.maximum(
        beat, beat[3]
    )  # nobody fetched the first ones in time: that is not the engine's fault
    assert lateness(waiting.tolist()) == pytest.approx(np.zeros(30 - FIRST_TICKS))


def test_first_audio_is_the_first_audible_tick_after_the_question():
    talk = Talk([10.5, 11.0, 12.0, 12.5, 13.0], [TONE, QUIET, QUIET, TONE, TONE], begun=10.0)
    assert first_audio(talk, ends_s=[2.0, 2.6]) == pytest.approx([0.5, 0.4])
    assert first_audio(talk, ends_s=[4.0]) == []


def test_session_is_held_while_its_ticks_are_on_the_beat():
    on_time = (np.arange(200) * TICK_S).tolist()
    slow = (np.arange(200) * TICK_S * 1.01).tolist()  # 1 % too slow is late in the end
    cut_off = on_time[: FIRST_TICKS // 2]
    talks = [Talk(times, [QUIET] * len(times), 0.0) for times in (on_time, slow, cut_off)]
    found = judge(talks, [[1.0], [1.0], []], Ramp())
    assert (found["users"], found["held"], found["asked"], found["first_sample"]) == (3, 1, 2, None)


def test_users_do_not_speak_in_chorus():
    questions = [np.full(SAMPLE_RATE, 0.1, np.float32), np.full(SAMPLE_RATE, 0.2, np.float32)]
    lines = [user_line(questions, user, Ramp()) for user in range(3)]
    assert len({ends_s[0] for _, ends_s in lines}) == 3
    for line, ends_s in lines:
        assert len(line) == round(Ramp.level_s * SAMPLE_RATE) and len(ends_s) >= 3
        for end_s in ends_s:
            end = round(end_s * SAMPLE_RATE)
            assert line[end - 1] > 0 and line[end] == 0


def question(kind: str) -> Scene:
    return Scene(
        f"{kind}-1", kind, [Piece("question", "", np.tile(TONE, 8), [], after_s=0.4)], listen_s=0.8
    )


@pytest.mark.slow
def test_latency_is_measured_in_real_time():
    """Only what does not depend on the speed of the machine."""
    found = asyncio.run(
        bench_latency.measure(Silent(1), [question("turn"), question("silence")], seed=0)
    )
    assert (found["asked"], found["interrupted"], found["first_sample"]) == (1, 0, None)
    assert found["per_tick"]["tick"]["count"] > 10 and found["engine"]["ticks"] > 10


@pytest.mark.slow
def test_load_is_measured_in_real_time():
    slots = []

    def load(count: int) -> Talking:
        slots.append(count)
        return Talking(count, TONE)

    found = asyncio.run(bench_load.measure(load, [TONE], Ramp(users=(2,), level_s=3.0)))
    assert slots == [2]
    [level] = found["levels"]
    assert level["users"] == 2 and level["lateness"]["count"] > 2 * FIRST_TICKS
    assert 0 <= level["held"] <= 2
    assert found["held"] == (2 if level["held"] == 2 else 0)
    assert found["memory_per_session_mb"] is None


@pytest.mark.slow
def test_latency_of_a_server_has_its_wire(server_url):
    found = asyncio.run(bench_latency.measure_remote(server_url, [question("turn")], seed=0))
    assert found["asked"] == 1 and found["engine"]["sessions_opened"] == 1
    assert found["per_tick"]["wire, there and back"]["count"] == 20


@pytest.mark.slow
def test_load_on_a_server_ends_where_it_is_full(server_url):
    """The server has one place, and no tick is too late for it."""
    ramp = Ramp(level_s=3.0, max_late_s=60)
    found = asyncio.run(bench_load.measure_remote(server_url, [TONE], ramp))
    assert found["held"] == 1 and [one["users"] for one in found["levels"]] == [1]
    assert "places are taken" in found["full"]


def test_report_shows_latency_and_load():
    talk = Talk((np.arange(200) * TICK_S).tolist(), [QUIET] * 200, 0.0)
    late = judge([talk, talk], [[1.0], [1.0]], Ramp())
    load = {
        "held": 2,
        "memory_per_session_mb": None,
        "levels": [late],
        "full": "all <2> places are taken",
    }
    ticks = {"LM": spread([0.020] * 9 + [0.030]), "tick": spread([0.040] * 10)}
    latency = {
        "asked": 6,
        "interrupted": 4,
        "first_sample": spread([0.5, 0.7, 0.9]),
        "silence": None,
        "engine": None,
    }
    machine = {"processor": "some <processor>", "cores": 2, "python": "3"}
    report = {"version": "0", "seed": 0, "url": "ws://x", "machine": machine, "scenes": 10}
    report |= {
        "latency": {"remote": {**latency, "per_tick": ticks, "per_answer": {}}},
        "load": {"remote": load},
    }
    lines = table(report).splitlines()
    assert [line.split()[-5:] for line in lines if line.startswith("end of speech")] == [
        ["3", "700.0", "880.0", "896.0", "900.0"]
    ]
    assert [line.split()[-5:] for line in lines if line.startswith("a tick: LM")] == [
        ["10", "20.0", "25.5", "29.1", "30.0"]
    ]
    assert "load on remote: 2 sessions held; memory per session not visible from here" in lines
    page = html(report)
    assert (
        "3 of 6 questions answered in time, 0 of 4 interruptions" in page
        and page.count("<svg") == 2
    )
    assert (
        "<td>700.0</td><td>880.0</td>" in page
        and "all &lt;2&gt; places are taken" in page
        and "some &lt;processor&gt;" in page
    )
